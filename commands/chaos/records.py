"""What a client of the lab records: a line for each submission, and a line for each callback."""

import hashlib
import json
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from racepool.protocol.errors import TaskTimeoutError
from racepool.races.transformed_race import TransformedRace

OK = "ok"


@dataclass(frozen=True, slots=True)
class Submitted:
    """One exec(), the nth of its client. `fault` is the number of the fault inside its race, if there is one."""

    client: str
    n: int
    at: float
    task_id: str
    race: int
    run_timeout_s: float
    fault: int | None


@dataclass(frozen=True, slots=True)
class Resolved:
    """The future of that exec() called back.

    Attributes:
        outcome: OK, or the class of the error; for a TaskTimeoutError also its state.
        digest: of the result; empty for an error.
        message: of the error; empty for a result.
    """

    client: str
    n: int
    at: float
    outcome: str
    digest: str
    message: str


Record: TypeAlias = Submitted | Resolved


def to_line(record: Record) -> bytes:
    """The record as one line."""
    return json.dumps([type(record).__name__, asdict(record)]).encode() + b"\n"


def from_line(line: bytes) -> Record:
    """Reads what `to_line` wrote."""
    kind, fields = json.loads(line)
    return Submitted(**fields) if kind == Submitted.__name__ else Resolved(**fields)


def outcome_of(future: "Future[Any]") -> tuple[str, str, str]:
    """How a future ended: outcome, digest, message."""
    error = future.exception()
    if error is None:
        return OK, digest(future.result()), ""
    state = f" {error.state}" if isinstance(error, TaskTimeoutError) else ""
    return f"{type(error).__name__}{state}", "", str(error)


def digest(result: object) -> str:
    """A hash of a result's content: equal results have equal digests, in any order of their keys."""
    plain = result.model_dump(mode="json") if isinstance(result, TransformedRace) else result
    try:
        text = json.dumps(plain, sort_keys=True, default=repr)
    except TypeError:  # keys of several types have no order
        text = repr(plain)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
