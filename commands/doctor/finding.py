"""What a check says."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is: a warning may be meant so, a problem keeps the pool from its work or soon will."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, how it is, and what to do if that is not well."""

    check: str
    level: Level
    text: str
    remedy: str = ""


def ok(check: str, text: str, remedy: str = "") -> Finding:
    """All is well; `remedy` is how to have more."""
    return Finding(check, Level.OK, text, remedy)


def warning(check: str, text: str, remedy: str) -> Finding:
    """It may be meant so."""
    return Finding(check, Level.WARNING, text, remedy)


def problem(check: str, text: str, remedy: str) -> Finding:
    """It is to be mended."""
    return Finding(check, Level.PROBLEM, text, remedy)


def told(check: str, error: str) -> Finding:
    """A problem in the words of an error of ours, which end with the remedy."""
    text, _, remedy = error.rpartition("; ")
    return Finding(check, Level.PROBLEM, text or remedy, remedy if text else "")
