"""The data of a replay: a captured poll, a file that is no poll, and the outcome of a poll."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from racepool.races.money_row import PollRows


@dataclass(frozen=True, slots=True)
class CapturedPoll:
    """One captured poll: its file, its race, and when it was made.

    Attributes:
        digest: sha256 of the race's JSON, uncompressed.
    """

    path: Path
    race_id: str
    race_number: int | None
    polled_at: datetime
    digest: str

    @property
    def race_label(self) -> str:
        """The race's name for people."""
        return "a race without a number" if self.race_number is None else f"R{self.race_number}"


@dataclass(frozen=True, slots=True)
class UnreadFile:
    """A file that is no poll, or does not tell its race and time."""

    path: Path
    reason: str


class PollEntry(BaseModel):
    """The outcome of one poll: its rows, or an error.

    Attributes:
        number: of the poll in its race, from 0, in the order of time.
        result: None for a poll that failed.
        error: why the poll failed; None if it succeeded.
    """

    model_config = ConfigDict(frozen=True)

    race_id: str
    number: int
    result: PollRows | None = None
    error: str | None = None
