"""Counts what happened to the polls."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Tally:
    """polls = stored + failures + running polls. A skipped poll was never started, so it is not in `polls`."""

    ticks: int = 0
    polls: int = 0
    stored: int = 0
    records: int = 0
    skipped: int = 0  # the race's previous poll was still running
    failures: Counter[str] = field(default_factory=Counter)  # by the name of the error's class
