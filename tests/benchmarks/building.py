"""Invented runs, for the tests of all that reads a run."""

from datetime import UTC, datetime

from benchmarks.measured import CpuPart, Measured


def measured(**figures: dict[str, list[float]]) -> Measured:
    """A run with these figures: `throughput__raw={"racepool": [...], "ppe": [...]}`."""
    return Measured(
        at=datetime(2026, 1, 31, tzinfo=UTC),
        machine={"processor": "abacus"},
        versions={"Python": "3.11"},
        rounds=3,
        workers=3,
        scale=1,
        figures={name.replace("__", ", ").replace("_", " "): by_contender for name, by_contender in figures.items()},
        cpu={"raw": {"racepool": [CpuPart(process="broker", thread="main", us=70)]}},
    )
