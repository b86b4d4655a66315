"""What became of the polls, counted."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Tally:
    """polls begun = stored + the failures + those under way; a poll that was skipped was not begun."""

    ticks: int = 0
    polls: int = 0
    stored: int = 0
    records: int = 0
    skipped: int = 0  # the race's previous poll was not done yet
    failures: Counter[str] = field(default_factory=Counter)  # by the name of the error's class
