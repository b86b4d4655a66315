"""Everything that a run has shown and that is judged. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from racepool.commands.chaos.injection import Injection
from racepool.commands.chaos.measurement import SILENCE_FACTOR, Noticed
from racepool.commands.chaos.memory import Growth
from racepool.commands.chaos.program_logs import ProgramLogs
from racepool.commands.chaos.witness import Witness
from racepool.protocol.settings import Settings

Judgement: TypeAlias = tuple[str, tuple[str, ...], bool]
"""What was checked of a promise, each case in which it was broken, and whether the run could have broken it."""


@dataclass(frozen=True)
class Ending:
    """The pool at the end of a run.

    Attributes:
        waited_s: how long the lab waited for it to be whole.
        missing: what was not whole after that, as text.
        surplus: processes that must not be there, as text.
    """

    waited_s: float = 0.0
    missing: tuple[str, ...] = ()
    surplus: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evidence:
    """Everything that is judged; `ending` is None for a run that was interrupted."""

    settings: Settings
    witness: Witness
    logs: ProgramLogs
    injections: Sequence[Injection]
    noticed: Sequence[Noticed]
    growth: Sequence[Growth]
    ending: Ending | None

    def bound_s(self, run_timeout_s: float, restarts: int = 0) -> float:
        """The seconds within which an exec must resolve, see docs/limits.md."""
        settings = self.settings
        attempt_s = (run_timeout_s or settings.run_timeout) + SILENCE_FACTOR * settings.liveness
        return settings.queue_timeout + (1 + restarts) * settings.max_attempts * attempt_s

    @property
    def done(self) -> list[Injection]:
        """The faults that were done."""
        return [injection for injection in self.injections if not injection.missed]

    def hits(self, *, frozen_only: bool = False) -> set[int]:
        """The pids that the pool may have lost through a fault."""
        return {
            hit.pid
            for injection in self.injections
            if injection.fault.kind.costs_worker and (not frozen_only or "freeze" in injection.name)
            for hit in injection.hits
        }
