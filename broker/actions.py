"""What the core asks of its shell. The shell performs each in order; none gives a result at once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from racepool.broker.tasks import Death, Peer
from racepool.protocol.messages import Assign, Id, Payload, ToClient, ToHeartbeat, ToWorker


@dataclass(frozen=True, slots=True)
class SendToClient:
    """Through the frontend. A send that fails comes back as `on_client_unreachable`."""

    peer: Peer
    message: ToClient


@dataclass(frozen=True, slots=True)
class SendStats:
    """Answer an AskStats with the figures of this moment."""

    peer: Peer


@dataclass(frozen=True, slots=True)
class SendToWorker:
    """Through the backend. A send that fails comes back as `on_worker_unreachable`."""

    peer: Peer
    message: ToWorker


@dataclass(frozen=True, slots=True)
class SendByValue:
    """As SendToWorker, for one that cannot read the client's shared memory: the payload itself instead of a reference.

    One that cannot be read here either comes back as `on_unreadable`.
    """

    peer: Peer
    assignment: Assign


@dataclass(frozen=True, slots=True)
class SendToHeartbeat:
    """Through the heartbeat socket; one that fails is forgotten, the next beat asks again."""

    peer: Peer
    message: ToHeartbeat


@dataclass(frozen=True, slots=True)
class WatchProcess:
    """Watch the process behind this session; its end comes back as `on_process_exit`, or as `on_process_gone`."""

    incarnation: Id
    pid: int


@dataclass(frozen=True, slots=True)
class UnwatchProcess:
    """The session ended; so does the watch."""

    incarnation: Id


@dataclass(frozen=True, slots=True)
class KillProcess:
    """SIGKILL the process behind this session, and end the watch."""

    incarnation: Id


@dataclass(frozen=True, slots=True)
class ProbeProcess:
    """Look whether the silent process used CPU since the last look; comes back as `on_probe`."""

    incarnation: Id


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Keep a task that was given up where somebody can look into it; one that cannot be kept is let go.

    What its payload refers to, if it `is_shared`, is there until its client has the answer.
    """

    task_id: Id
    run_timeout_ms: int
    deaths: tuple[Death, ...]
    is_shared: bool
    payload: Payload


@dataclass(frozen=True, slots=True)
class Report:
    """What an operator must know: one log line, counted and remembered by the statistics."""

    event: str
    fields: Mapping[str, object] = field(default_factory=dict)


Effect: TypeAlias = (
    SendToClient
    | SendStats
    | SendToWorker
    | SendByValue
    | SendToHeartbeat
    | WatchProcess
    | UnwatchProcess
    | KillProcess
    | ProbeProcess
    | Quarantine
)
Action: TypeAlias = Effect | Report
