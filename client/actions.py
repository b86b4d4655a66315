"""What the client's core decides; the engine performs it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from racepool.client.task import ClientTask
from racepool.client.timing import TaskTiming
from racepool.protocol.errors import PoolError
from racepool.protocol.messages import Answer, FromClient, Hello


@dataclass(frozen=True, slots=True)
class OpenSession:
    """Close the socket, open a fresh one and send this HELLO through it."""

    hello: Hello


@dataclass(frozen=True, slots=True)
class Send:
    """Send this message through the session's socket."""

    message: FromClient


@dataclass(frozen=True, slots=True)
class SendTask:
    """Submit this task through the session's socket."""

    task: ClientTask
    waited_ms: int
    again: bool  # a broker may have it already
    can_share: bool  # this broker reads payloads in shared memory


@dataclass(frozen=True, slots=True)
class Deliver:
    """Resolve the task's future with this answer."""

    task: ClientTask
    answer: Answer
    trouble: str = ""  # why no worker is ready, as far as the broker knows


@dataclass(frozen=True, slots=True)
class Fail:
    """Fail the task's future: it ended without an answer. `error` makes the error from the task's name.

    `timing` is given if a broker refused the task, or if its queue timeout ended it.
    """

    task: ClientTask
    error: Callable[[str], PoolError]
    timing: TaskTiming | None = None


@dataclass(frozen=True, slots=True)
class DeliverStats:
    """Give the broker's stats to all callers that asked."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class FailStats:
    """Give this error to all callers that asked for stats."""

    error: PoolError


@dataclass(frozen=True, slots=True)
class Log:
    """Tell the service through the logger "racepool": a warning, or else an info."""

    text: str
    is_warning: bool


Action: TypeAlias = OpenSession | Send | SendTask | Deliver | Fail | DeliverStats | FailStats | Log
