"""The measurements: the turns of every contender in a round, and the figures that each turn gives."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.figures import percentile
from benchmarks.loads import MIXED, NORMALISED, RAW

THROUGHPUT, IDLE, BURST, SUBMIT, STALL, BARE_STALL = "throughput", "idle", "burst", "submit", "stall", "bare stall"
CPU, START, MEMORY_REST, MEMORY_PEAK = "cpu", "start", "memory at rest", "memory at its peak"
P50, P99 = " p50", " p99"
LONGEST_TURN_S: Final = 1.5
BURST_OF_MEMORY: Final = 1_000


@dataclass(frozen=True)
class Turn:
    """One command to a driver.

    Attributes:
        tasks: at scale 1; fewer where a contender would take longer than LONGEST_TURN_S for them.
        figures: what is made of the driver's answer for `tasks` tasks, by the measure's name.
        times: how often in a round.
    """

    do: str
    load: str
    tasks: int
    figures: Callable[[Any, int], dict[str, float]]
    times: int = 1
    is_scaled: bool = True

    def name(self, figure: str) -> str:
        """The measure's key among the figures of a run."""
        return key(figure, self.load)

    def tasks_at(self, scale: float) -> int:
        """How many tasks the command has."""
        return max(5, round(self.tasks * scale)) if self.is_scaled else self.tasks


def key(measure: str, load: str) -> str:
    """A measure of a load, as a run's file names it."""
    return f"{measure}, {load}"


def memory_tasks(scale: float) -> int:
    """How many tasks come at once while memory is measured. A larger scale does not make them more."""
    return max(5, round(BURST_OF_MEMORY * min(1.0, scale)))


def _percentiles(measure: str) -> Callable[[Any, int], dict[str, float]]:
    return lambda values, _: {measure + P50: percentile(values, 50), measure + P99: percentile(values, 99)}


def _single(measure: str) -> Callable[[Any, int], dict[str, float]]:
    return lambda value, _: {measure: value}


def _rate(took_s: float, tasks: int) -> dict[str, float]:
    return {THROUGHPUT: tasks / took_s}


TURNS: Final = (
    Turn("sustained", NORMALISED, 3_000, _rate),
    Turn("sustained", RAW, 1_000, _rate),
    Turn("sustained", MIXED, 1_500, _rate),
    Turn("idle", NORMALISED, 100, _percentiles(IDLE)),
    Turn("idle", RAW, 50, _percentiles(IDLE)),
    Turn("bursts", NORMALISED, 50, _percentiles(BURST)),
    Turn("bursts", RAW, 30, _percentiles(BURST)),
    Turn("submit", NORMALISED, 30, _percentiles(SUBMIT)),
    Turn("submit", RAW, 30, _percentiles(SUBMIT)),
    Turn("bare_stall", RAW, 100, _single(BARE_STALL), times=3, is_scaled=False),
    Turn("stall", RAW, 100, _single(STALL), times=3, is_scaled=False),
)
