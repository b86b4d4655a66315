"""The wire contract: every message between client, broker and worker. docs/protocol.md explains it.

Knows nothing of how a message is written into frames: that is in frames.py.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NewType, TypeAlias

PROTOCOL_VERSION = 5
ID_BYTES = 16
EPOCH_BYTES = 8
MAX_NAME_CHARS = 64
MIN_BEAT_S = 0.01  # no broker's word makes a peer spin
MAX_INT = 2**53 - 1  # what every language's integers and doubles agree on


Id = NewType("Id", bytes)
"""16 random bytes that name a task, a client or a worker's session."""

Epoch = NewType("Epoch", bytes)
"""8 random bytes that name one life of a broker."""

Payload: TypeAlias = bytes | memoryview
"""What a payload frame holds."""

Name = NewType("Name", str)
"""A worker's or a version's name: 1 to 64 printable characters."""


class Outcome(StrEnum):
    """How a task ended. The payload of the answer depends on it, see docs/protocol.md."""

    OK = "ok"
    INVALID_RACE = "invalid_race"
    RAISED = "raised"
    TOO_LARGE = "too_large"
    CRASHED = "crashed"
    RUN_TIMEOUT = "run_timeout"
    QUEUE_TIMEOUT = "queue_timeout"
    UNREADABLE = "unreadable"


WORKER_OUTCOMES = frozenset({Outcome.OK, Outcome.INVALID_RACE, Outcome.RAISED, Outcome.TOO_LARGE})


# --- client to broker -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello:
    """Opens a client's session; answered by Welcome. `client_id` outlives sessions, the socket does not.

    Sessions are counted from 1: an older one's Hello, late through its own socket, is ignored. The client's shared
    memory is named by descriptor and inode; 0 and 0 where there is none.
    """

    client_id: Id
    session: int
    pid: int
    held: int
    segment_fd: int = 0
    segment_inode: int = 0


@dataclass(frozen=True, slots=True)
class Submit:
    """One task; answered by exactly one Answer or Reject. A task id that the broker knows already is not a new task.

    `waited_ms` is all waiting up to now, `again` that it was submitted before: to an earlier broker, perhaps. If it
    `is_shared`, its payload is a reference to the client's shared memory.
    """

    task_id: Id
    run_timeout_ms: int
    waited_ms: int
    again: bool
    is_shared: bool
    payload: Payload


@dataclass(frozen=True, slots=True)
class Expire:
    """The client's queue timeout seems over.

    A queued task that has waited for so long is answered (`queue_timeout`), any other by Waited.
    """

    task_id: Id
    limit_ms: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """The client wants no answer any more. A queued task is forgotten; `kill` ends the worker of one in flight."""

    task_id: Id
    kill: bool


@dataclass(frozen=True, slots=True)
class Ping:
    """A client's heartbeat, with the number of tasks that it holds back; answered by Pong."""

    held: int


@dataclass(frozen=True, slots=True)
class AskStats:
    """Asks for the broker's figures; answered by Stats."""


# --- broker to client -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Welcome:
    """The session stands, in this epoch, for whoever speaks within `liveness_ms`. To clients and workers.

    `can_share` tells a client that its shared memory can be read here.
    """

    epoch: Epoch
    payload_limit: int
    liveness_ms: int
    can_share: bool = False

    @property
    def beat_s(self) -> float:
        """How often to speak at the least, in seconds."""
        return max(self.liveness_ms / 4000, MIN_BEAT_S)


@dataclass(frozen=True, slots=True)
class Answer:
    """The end of a task, after so many attempts."""

    task_id: Id
    outcome: Outcome
    attempts: int
    payload: Payload


@dataclass(frozen=True, slots=True)
class Reject:
    """The backlog is full (`depth` and `limit` in tasks, or in bytes); the broker does not hold the task."""

    task_id: Id
    depth: int
    limit: int
    in_bytes: bool


@dataclass(frozen=True, slots=True)
class Waited:
    """Answers Expire: so long has the task waited, all brokers and attempts together; `queued` if it still does."""

    task_id: Id
    waited_ms: int
    queued: bool


@dataclass(frozen=True, slots=True)
class Pong:
    """Answers Ping and Heartbeat."""

    epoch: Epoch


@dataclass(frozen=True, slots=True)
class Who:
    """The broker does not know this session: open a new one. Also the answer to a foreign protocol version."""


@dataclass(frozen=True, slots=True)
class Stats:
    """The broker's figures: PoolStats as JSON."""

    payload: bytes


# --- worker to broker -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ready:
    """Opens a worker's session and says that it is idle; answered by Welcome. One incarnation per session.

    A process counts its sessions from 1: an older one's Ready, late through its own socket, is ignored.
    """

    incarnation: Id
    session: int
    name: Name
    pid: int
    version: Name
    started_at_ms: int


@dataclass(frozen=True, slots=True)
class Result:
    """The end of the assignment that epoch, lease and task id name together; the worker is idle again.

    `recycle` asks for Recycle: it has done its number of tasks, or grown too large. It works on until then.
    """

    epoch: Epoch
    lease: int
    task_id: Id
    outcome: Outcome
    recycle: bool
    payload: Payload


@dataclass(frozen=True, slots=True)
class Returned:
    """The task of this lease was recalled before it was begun, and is back in the broker's hands."""

    epoch: Epoch
    lease: int


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A worker's heartbeat, from a socket of its own. Answered by Pong, or by Who if the session is unknown.

    `draining` tells that it was asked to end, and will when its task is done.
    """

    incarnation: Id
    name: Name
    pid: int
    version: Name
    started_at_ms: int
    busy: bool
    draining: bool
    rss_bytes: int


# --- broker to worker -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Assign:
    """The nth attempt of a task, under a lease that no other assignment of this epoch has.

    If it `is_shared`, its payload is a reference to its client's shared memory.
    """

    epoch: Epoch
    lease: int
    task_id: Id
    attempt: int
    run_timeout_ms: int
    is_shared: bool
    payload: Payload


@dataclass(frozen=True, slots=True)
class Recall:
    """Do not begin the task of this lease. Answered by Returned, or by its Result if it has been begun."""

    lease: int


@dataclass(frozen=True, slots=True)
class Recycle:
    """End, to be started anew: no other worker is away. To one that asked for it and is idle; its session is over."""


# --- both ways --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bye:
    """The sender ends its session on purpose."""


FromClient: TypeAlias = Hello | Submit | Expire | Cancel | Ping | AskStats | Bye
ToClient: TypeAlias = Welcome | Answer | Reject | Waited | Pong | Who | Stats | Bye
FromWorker: TypeAlias = Ready | Result | Returned | Bye
ToWorker: TypeAlias = Welcome | Assign | Recall | Recycle | Who | Bye
ToHeartbeat: TypeAlias = Pong | Who
Message: TypeAlias = FromClient | ToClient | FromWorker | ToWorker | Heartbeat
