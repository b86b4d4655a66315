"""Resident memory of a lab's programs over time: a bounded number of samples, and whether the memory grows."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Final

from racepool.commands.chaos.lab_processes import LabProcess

SAMPLES_KEPT: Final = 60_000
JUDGED_FROM_S: Final = 60.0
EARLY: Final = (0.15, 0.40)
LATE: Final = (0.75, 1.0)
TOLERANCE: Final = 1.25
TOLERANCE_KB: Final = 12 * 1024
JUDGED: Final = ("broker", "worker", "supervisord", "client")


@dataclass(frozen=True, slots=True)
class Sample:
    """One process at one moment, in seconds from the start of the load."""

    at_s: float
    program: str
    name: str
    pid: int
    rss_kb: int


@dataclass(frozen=True, slots=True)
class Growth:
    """The medians of a program's early and late samples."""

    program: str
    early_kb: float
    late_kb: float

    @property
    def is_flat(self) -> bool:
        """Whether it grew by no more than a restart or a busy moment explains."""
        return self.late_kb <= self.early_kb * TOLERANCE + TOLERANCE_KB


class MemorySamples:
    """All samples. When there are too many, every second one is dropped."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self._stride = 1
        self._looks = 0

    def on_look(self, at_s: float, processes: Iterable[LabProcess]) -> None:
        """Takes all processes of one moment."""
        self._looks += 1
        if self._looks % self._stride:
            return
        self.samples += [Sample(at_s, each.program, each.name, each.pid, each.rss_kb) for each in processes]
        if len(self.samples) > SAMPLES_KEPT:
            kept = set(sorted({sample.at_s for sample in self.samples})[::2])
            self.samples = [sample for sample in self.samples if sample.at_s in kept]
            self._stride *= 2

    def growth(self, seconds: float) -> Iterator[Growth]:
        """The growth of each program that ran early and late in the load; none if the load was too short to judge."""
        if seconds < JUDGED_FROM_S:
            return
        for program in JUDGED:
            early, late = (list(self._within(program, span, seconds)) for span in (EARLY, LATE))
            if early and late:
                yield Growth(program, median(early), median(late))

    def _within(self, program: str, span: tuple[float, float], seconds: float) -> Iterator[int]:
        begin, end = (part * seconds for part in span)
        return (each.rss_kb for each in self.samples if each.program == program and begin <= each.at_s <= end)
