"""A task, and the client that waits for it, as the broker sees them."""

from dataclasses import dataclass, field
from enum import Enum

from racepool.protocol.messages import Id, Payload

Peer = bytes
"""A routing id of one of the broker's sockets: names one session, is never shown to anyone."""


class Disowned(Enum):
    """Why nobody waits for a task in flight any more."""

    CANCELLED = "cancelled"
    ABANDONED = "abandoned"


@dataclass(frozen=True, slots=True)
class Death:
    """One attempt that ended with its worker's loss. `signal` is what ended it, where the kernel told.

    Instants are the broker's clock, in seconds; `reason` is a LostBy's.
    """

    worker: str
    reason: str
    signal: int | None
    assigned_at: float
    lost_at: float


@dataclass(slots=True, eq=False)
class Client:
    """A client; `id` outlives its sessions, of which `session` is the latest, at `peer`.

    `can_share` tells that its shared memory can be read from here.
    """

    id: Id
    session: int
    peer: Peer
    last_seen: float
    held: int
    can_share: bool
    tasks: dict[Id, "Task"] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Task:
    """One task. It is in exactly one place: the backlog (`is_queued`) or one worker's hands, as its task or its second.

    The payload of one that `is_shared` is a reference to its client's shared memory; it `goes_by_value` after a worker
    could not read that. One that `goes_alone` shares no hands with another, since a worker died with it in its hands;
    one that `was_returned` was in a worker's hands and not begun.
    Instants and durations are in seconds. `waited_s` sums the time in the backlog over all attempts,
    and what its client had counted before.
    """

    id: Id
    seq: int
    client: Client
    payload: Payload
    is_shared: bool
    run_timeout_ms: int
    queued_since: float | None = None
    waited_s: float = 0.0
    assignments: int = 0
    deaths: tuple[Death, ...] = ()
    disowned: Disowned | None = None
    goes_by_value: bool = False
    goes_alone: bool = False
    was_returned: bool = False

    @property
    def may_be_second(self) -> bool:
        """Whether it may wait in the hands of a busy worker: once at most, and never after a loss."""
        return self.assignments == 0 and not self.goes_alone and not self.was_returned

    @property
    def is_queued(self) -> bool:
        """Whether it waits in the backlog."""
        return self.queued_since is not None

    def waited(self, now: float) -> float:
        """The time in the backlog up to now, over all attempts."""
        return self.waited_s + (now - self.queued_since if self.queued_since is not None else 0.0)
