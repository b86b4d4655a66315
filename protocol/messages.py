"""The wire contract: every message between client, broker and worker. docs/protocol.md explains it.

Knows nothing of how a message is written into frames: that is in frames.py.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NewType, TypeAlias

PROTOCOL_VERSION = 7
ID_BYTES = 16
EPOCH_BYTES = 8
MAX_NAME_CHARS = 64
MAX_TEXT_BYTES = 240
MIN_BEAT_S = 0.01  # a peer never sends heartbeats faster, however short the broker's liveness is
MAX_INT = 2**53 - 1  # every language can hold an integer up to this one, as a double too


Id = NewType("Id", bytes)
"""16 random bytes that name a task, a client or a worker's session."""

Epoch = NewType("Epoch", bytes)
"""8 random bytes that name one life of a broker."""

Payload: TypeAlias = bytes | memoryview
"""What a payload frame holds."""

Name = NewType("Name", str)
"""A worker's or a version's name: 1 to 64 printable characters."""


Text = NewType("Text", str)
"""A sentence for a person: up to 240 bytes of printable characters; may be empty."""


def text(words: str) -> Text:
    """The words on one line, as much of them as a Text may have."""
    line = "".join(character if character.isprintable() else " " for character in words)
    return Text(line.encode(errors="backslashreplace")[:MAX_TEXT_BYTES].decode(errors="ignore"))


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
    """Opens a client's session; answered by Welcome. A client keeps its `client_id` for all its sessions.

    Each session has a new socket and the next number, from 1. So the broker can ignore a Hello of an older session that
    comes late. `segment_fd` and `segment_inode` name the client's shared memory; both are 0 if there is none. `held` is
    how many tasks the client holds back.
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

    `waited_ms` is how long the task has waited so far, in total. `again` tells that it was submitted before, perhaps to
    an earlier broker. If `is_shared`, the payload is a reference to the client's shared memory.
    """

    task_id: Id
    run_timeout_ms: int
    waited_ms: int
    again: bool
    is_shared: bool
    payload: Payload


@dataclass(frozen=True, slots=True)
class Expire:
    """By the client's clock, the task has used up its queue timeout, `limit_ms`.

    If the task is queued and has waited that long, the broker sends the Answer `queue_timeout`; if not, Waited.
    """

    task_id: Id
    limit_ms: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """The client wants no answer any more. The broker forgets a queued task.

    A task in flight runs to its end, or the broker kills its worker if the client says `kill`.
    """

    task_id: Id
    kill: bool


@dataclass(frozen=True, slots=True)
class Ping:
    """A client's heartbeat, with the number of tasks that it holds back; answered by Pong."""

    held: int


@dataclass(frozen=True, slots=True)
class AskStats:
    """Asks for the broker's stats; answered by Stats."""


# --- broker to client -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Welcome:
    """The session is open. It ends if the peer is silent for longer than `liveness_ms`. To clients and workers.

    `payload_limit` is in bytes. `can_share` tells a client that the broker can read its shared memory.
    """

    epoch: Epoch
    payload_limit: int
    liveness_ms: int
    can_share: bool = False

    @property
    def beat_s(self) -> float:
        """The longest time between two heartbeats of the peer, in seconds."""
        return max(self.liveness_ms / 4000, MIN_BEAT_S)


@dataclass(frozen=True, slots=True)
class Answer:
    """The end of a task, and what it cost.

    `attempts` counts those of this epoch only. `queued_us` is how long the task has waited, over all attempts and
    brokers; `run_us` is how long its last attempt ran; both are in microseconds. `worker` is the name of the worker
    that had the last attempt. Without an attempt, it is None and `run_us` is 0.
    """

    task_id: Id
    outcome: Outcome
    attempts: int
    queued_us: int
    run_us: int
    worker: Name | None
    payload: Payload


@dataclass(frozen=True, slots=True)
class Reject:
    """The backlog is full, so the broker does not take the task. `depth` and `limit` are in tasks, or in bytes."""

    task_id: Id
    depth: int
    limit: int
    in_bytes: bool


@dataclass(frozen=True, slots=True)
class Waited:
    """Answers Expire. `waited_ms` is the sum over all attempts and brokers. `queued`: the task still waits."""

    task_id: Id
    waited_ms: int
    queued: bool


@dataclass(frozen=True, slots=True)
class Pong:
    """Answers Ping and Heartbeat."""

    epoch: Epoch


@dataclass(frozen=True, slots=True)
class Trouble:
    """Follows the Pong to a client while no worker is ready, and a worker could not start. `reason` says why."""

    reason: Text


@dataclass(frozen=True, slots=True)
class Refused:
    """The message about this task was no message of the protocol. The broker does not have the task."""

    task_id: Id
    reason: Text


@dataclass(frozen=True, slots=True)
class Who:
    """The broker does not know this session, so the peer has to open a new one.

    The broker also says this to a peer of another protocol version.
    """


@dataclass(frozen=True, slots=True)
class Stats:
    """The broker's stats: PoolStats as JSON."""

    payload: bytes


# --- worker to broker -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ready:
    """Opens a worker's session and says that the worker is idle; answered by Welcome.

    `incarnation` is the random id of this session. A process counts its sessions from 1, so the broker can ignore a
    Ready of an older session that comes late. `version` is the racepool version of the worker.
    """

    incarnation: Id
    session: int
    name: Name
    pid: int
    version: Name
    started_at_ms: int


@dataclass(frozen=True, slots=True)
class CannotStart:
    """This worker ends, because its set-up cannot work; `reason` names the setting. Sent instead of Ready."""

    name: Name
    reason: Text


@dataclass(frozen=True, slots=True)
class Result:
    """The end of the assignment that epoch, lease and task id name together; the worker is idle again.

    `recycle` asks for Recycle: the worker has done its number of tasks, or has grown too large. It takes tasks until
    the broker answers with Recycle.
    """

    epoch: Epoch
    lease: int
    task_id: Id
    outcome: Outcome
    recycle: bool
    payload: Payload


@dataclass(frozen=True, slots=True)
class Returned:
    """Answers Recall: the worker has not begun the task of this lease, and has dropped it."""

    epoch: Epoch
    lease: int


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A worker's heartbeat, from a socket of its own. Answered by Pong, or by Who if the session is unknown.

    `incarnation` is the one of the session's Ready. `draining`: the worker was asked to end, and ends after its task.
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
    """Gives a task to a worker, for its nth attempt. No other assignment of this epoch has this lease.

    If `is_shared`, the payload is a reference to the client's shared memory.
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
    """The worker must not begin the task of this lease. Answered by Returned, or by Result if the task had begun."""

    lease: int


@dataclass(frozen=True, slots=True)
class Recycle:
    """The worker ends, and supervisord starts a new process. Its session is over.

    Sent to an idle worker that asked for it, and to one worker at a time.
    """


# --- both ways --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bye:
    """The sender ends its session on purpose."""


FromClient: TypeAlias = Hello | Submit | Expire | Cancel | Ping | AskStats | Bye
ToClient: TypeAlias = Welcome | Answer | Reject | Refused | Waited | Pong | Trouble | Who | Stats | Bye
FromWorker: TypeAlias = Ready | CannotStart | Result | Returned | Bye
ToWorker: TypeAlias = Welcome | Assign | Recall | Recycle | Who | Bye
ToHeartbeat: TypeAlias = Pong | Who
Message: TypeAlias = FromClient | ToClient | FromWorker | ToWorker | Heartbeat
