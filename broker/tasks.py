"""A task, and the client that waits for it, as the broker sees them."""

from dataclasses import dataclass, field
from enum import Enum

from racepool.protocol.messages import MAX_INT, Answer, Id, Name, Outcome, Payload

Peer = bytes
"""A routing id of one of the broker's sockets. It names one session, and is never shown to anyone."""


class Withdrawn(Enum):
    """Why nobody waits for a task in flight any more; the values are counters of PoolStats."""

    CANCELLED = "cancelled"
    ABANDONED = "abandoned"


@dataclass(frozen=True, slots=True)
class Death:
    """One attempt that ended with the loss of its worker. Instants are the broker's clock, in seconds."""

    worker: str
    reason: str  # of the SessionEnd
    signal: int | None  # what ended the process, where the kernel told
    assigned_at: float
    lost_at: float


@dataclass(slots=True, eq=False)
class Client:
    """A client. Its `id` outlives its sessions."""

    id: Id
    session_number: int  # of its latest session
    peer: Peer  # of its latest session
    last_seen: float  # on the broker's clock, in seconds
    held: int  # how many tasks it holds back
    can_share: bool  # whether its shared memory can be read from here
    tasks: dict[Id, "Task"] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Task:
    """One task. Instants are the broker's clock, in seconds.

    Invariant: it is in exactly one place: the backlog (`is_queued`), or one worker's hands, as its task or prefetched.
    """

    id: Id
    seq: int  # its place in the order of arrival
    client: Client
    payload: Payload  # if `is_shared`, a reference to its client's shared memory
    is_shared: bool
    run_timeout_ms: int
    queued_since: float | None = None  # None in a worker's hands
    waited_s: float = 0.0  # all waits before the present one, those that the client counted included
    hand_wait_s: float = 0.0  # how long it waited in a worker's hand; the queue timeout does not count this
    assignments: int = 0  # attempts; one that never reached its worker, or was not begun, does not count
    last_worker: Name | None = None  # that had the last attempt; one that does not count is left out
    last_run_s: float = 0.0  # how long that attempt ran
    deaths: tuple[Death, ...] = ()
    withdrawn: Withdrawn | None = None
    goes_by_value: bool = False  # a worker could not read its shared payload
    goes_alone: bool = False  # a worker died with it in its hands: it shares no hands with another task any more
    was_returned: bool = False  # it was in a worker's hands, and was not begun

    @property
    def may_be_prefetched(self) -> bool:
        """Whether it may wait in the hands of a busy worker: once at most, and never after a loss."""
        return self.assignments == 0 and not self.goes_alone and not self.was_returned

    @property
    def is_queued(self) -> bool:
        """Whether it waits in the backlog."""
        return self.queued_since is not None

    def waited(self, now: float) -> float:
        """The time in the backlog up to now, over all attempts."""
        return self.waited_s + (now - self.queued_since if self.queued_since is not None else 0.0)

    def answer(self, outcome: Outcome, payload: Payload) -> Answer:
        """The ANSWER for its client. Call this only when the task ends, and waits no more."""
        queued_us, run_us = _us(self.waited_s + self.hand_wait_s), _us(self.last_run_s)
        return Answer(self.id, outcome, self.assignments, queued_us, run_us, self.last_worker, payload)


def _us(seconds: float) -> int:
    return min(round(seconds * 1_000_000), MAX_INT)  # a client may say that its task has waited for any time
