"""The finding of a check."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """A problem stops the pool from working, or soon will. A warning may be intended."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: the name of the check, what it found, and what to do if that is wrong."""

    check: str
    level: Level
    text: str
    remedy: str = ""


def ok(check: str, text: str, remedy: str = "") -> Finding:
    """All is well; `remedy` may name an option."""
    return Finding(check, Level.OK, text, remedy)


def warning(check: str, text: str, remedy: str) -> Finding:
    """It may be intended."""
    return Finding(check, Level.WARNING, text, remedy)


def problem(check: str, text: str, remedy: str) -> Finding:
    """It must be mended."""
    return Finding(check, Level.PROBLEM, text, remedy)


def told(check: str, error: str) -> Finding:
    """A problem with the text of an error of racepool: the part after the last '; ' is the remedy."""
    text, _, remedy = error.rpartition("; ")
    return Finding(check, Level.PROBLEM, text or remedy, remedy if text else "")
