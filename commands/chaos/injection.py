"""What was done, when, and to which processes. Instants are of the clock that all processes of a host share."""

from dataclasses import dataclass, field

from racepool.commands.chaos.plan import Fault


@dataclass(slots=True)
class Hit:
    """One process that a fault hit.

    Attributes:
        name: as in the logs (worker-0, broker); empty where only its pid is known.
        until: when it was let go again; None if it never was.
        died_at: when it ended, where somebody had to end it.
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
        until: when it was over; None while it is not, or if it is a matter of a moment.
        client: the one that it was about, or that was there for it.
        troubles: what should have come of it and did not, as text; each is a broken promise.
        missed: why nothing was done, as text; empty if it was.
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
        """Of its kind."""
        return self.fault.kind.name

    @property
    def over_at(self) -> float:
        """When the pool has got over it, at the latest."""
        return (self.until or self.at) + self.fault.kind.rest_s
