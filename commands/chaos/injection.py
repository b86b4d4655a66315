"""What was done, when, and to which processes. Instants are of the monotonic clock, which a host's processes share."""

from dataclasses import dataclass, field
from enum import Enum

from racepool.commands.chaos.lab_processes import is_alive
from racepool.commands.chaos.plan import Fault


@dataclass(slots=True)
class Hit:
    """One process that a fault hit.

    Attributes:
        name: as in the logs (worker-0, broker); empty where only its pid is known.
        until: when it was continued; None if it never was.
        died_at: when it ended, for a process that was frozen for good.
    """

    at: float
    pid: int
    name: str = ""
    until: float | None = None
    died_at: float | None = None


class Why(Enum):
    """Why a process must end."""

    HANGS = "a worker whose race hangs"
    RETURNED = "a child that returned from the transform"
    LEFT = "a process that a race left in its worker"


@dataclass(slots=True)
class Awaited:
    """A process that must end. A pid and a start name a process.

    Attributes:
        worker: the worker that started it, if the process may live as long as that one.
        due_at: when its end was due; None while its worker lives.
        seen_at: when it was last seen alive.
        is_gone: whether it has ended.
    """

    why: Why
    process: tuple[int, int]
    worker: tuple[int, int]
    due_at: float | None
    seen_at: float
    is_gone: bool = False

    def is_overdue(self, patience_s: float) -> bool:
        """Whether it was seen alive later than so many seconds after its end was due."""
        return self.due_at is not None and self.seen_at > self.due_at + patience_s

    def look(self, now: float) -> None:
        """Sees whether it is still alive."""
        if self.is_gone:
            return
        if self.due_at is None and not is_alive(*self.worker):
            self.due_at = now
        if is_alive(*self.process):
            self.seen_at = now
        else:
            self.is_gone = True


@dataclass(slots=True)
class Injection:
    """One fault that was done.

    Attributes:
        until: when it was over; None before that, and for a fault without duration.
        client: the name of the client that the fault hit, or that submitted for it.
        troubles: what the pool should have done and did not, as text; each is a broken promise.
        missed: why the fault was not done, as text; empty if it was.
        awaited: the processes that must end.
        prepared: the pids of the workers in which a race left what the kind asks for.
    """

    fault: Fault
    at: float
    until: float | None = None
    hits: list[Hit] = field(default_factory=list)
    client: str = ""
    troubles: list[str] = field(default_factory=list)
    missed: str = ""
    awaited: list[Awaited] = field(default_factory=list)
    prepared: set[int] = field(default_factory=set)

    @property
    def name(self) -> str:
        """The name of its kind."""
        return self.fault.kind.name

    @property
    def over_at(self) -> float:
        """The latest instant at which the pool must be whole again."""
        return (self.until or self.at) + self.fault.kind.rest_s
