"""What was done, when, and to which processes. Instants are of the monotonic clock, which a host's processes share."""

from dataclasses import dataclass, field

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


@dataclass(slots=True)
class Injection:
    """One fault that was done.

    Attributes:
        until: when it was over; None before that, and for a fault without duration.
        client: the name of the client that the fault hit, or that submitted for it.
        troubles: what the pool should have done and did not, as text; each is a broken promise.
        missed: why the fault was not done, as text; empty if it was.
    """

    fault: Fault
    at: float
    until: float | None = None
    hits: list[Hit] = field(default_factory=list)
    client: str = ""
    troubles: list[str] = field(default_factory=list)
    missed: str = ""

    @property
    def name(self) -> str:
        """The name of its kind."""
        return self.fault.kind.name

    @property
    def over_at(self) -> float:
        """The latest instant at which the pool must be whole again."""
        return (self.until or self.at) + self.fault.kind.rest_s
