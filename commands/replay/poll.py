"""The nouns of a replay: a captured poll, a file that is none, and what became of a poll."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict

from racepool.races.money_row import MoneyRow


@dataclass(frozen=True, slots=True)
class CapturedPoll:
    """One captured poll: where it lies, of which race it is, and when it was made.

    Attributes:
        digest: of the race's JSON, uncompressed.
    """

    path: Path
    race_id: str
    race_number: int | None
    polled_at: datetime
    digest: str

    @property
    def race_label(self) -> str:
        """The race as a person calls it."""
        return "a race without a number" if self.race_number is None else f"R{self.race_number}"


@dataclass(frozen=True, slots=True)
class UnreadFile:
    """A file that is no poll, or does not say of what and when."""

    path: Path
    reason: str


class PollEntry(BaseModel):
    """What became of one poll: rows, or an error.

    Attributes:
        number: of the poll in its race, from 0, in the order of time.
        start_time: of the race, as this poll tells it; None for one that failed.
        rows: in the order of the entrants.
        error: why there are none; None for a poll that succeeded, which may still have no money to tell of.
    """

    model_config = ConfigDict(frozen=True)

    race_id: str
    number: int
    start_time: AwareDatetime | None = None
    rows: tuple[MoneyRow, ...] = ()
    error: str | None = None
