"""The results of a run, as a file: every figure of every round, so that a report can be made again at any time."""

from datetime import datetime
from pathlib import Path
from typing import Final

from pydantic import BaseModel, Field

FILE_NAME: Final = "side_by_side.json"


class CpuPart(BaseModel):
    """The CPU time of one part, in microseconds per task."""

    process: str
    thread: str
    us: float


class Measured(BaseModel):
    """One run.

    Attributes:
        figures: measure -> contender -> one figure for each turn, in the order of the turns.
        latencies: load -> contender -> the latency of each single task on an idle pool, ms.
        cpu: load -> contender -> the medians of its parts.
        skipped: contender -> what it needs.
        failed: contender -> how its driver failed.
    """

    at: datetime
    machine: dict[str, str]
    versions: dict[str, str]
    rounds: int
    workers: int
    scale: float
    took_s: float = 0
    figures: dict[str, dict[str, list[float]]] = Field(default_factory=dict)
    latencies: dict[str, dict[str, list[float]]] = Field(default_factory=dict)
    cpu: dict[str, dict[str, list[CpuPart]]] = Field(default_factory=dict)
    skipped: dict[str, str] = Field(default_factory=dict)
    failed: dict[str, str] = Field(default_factory=dict)

    def note(self, measure: str, contender: str, figure: float) -> None:
        """Adds one figure."""
        self.figures.setdefault(measure, {}).setdefault(contender, []).append(figure)

    def forget(self, contender: str) -> None:
        """Removes all figures of a contender that failed."""
        for by_contender in (*self.figures.values(), *self.latencies.values(), *self.cpu.values()):
            by_contender.pop(contender, None)  # type: ignore[attr-defined]  # all of them are dicts

    def save(self, folder: Path) -> None:
        """Writes the results beside the report."""
        (folder / FILE_NAME).write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")


def load_measured(folder: Path) -> Measured | None:
    """The last run whose results are in this folder; None if there is none."""
    path = folder / FILE_NAME
    return Measured.model_validate_json(path.read_bytes()) if path.exists() else None
