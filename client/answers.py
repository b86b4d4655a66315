"""Makes a result, or one clear error that names the task and its race, out of an answer."""

from typing import Any

from pydantic import ValidationError

from racepool.client.task import ClientTask
from racepool.client.timing import TaskTiming
from racepool.protocol.errors import (
    InvalidRaceError,
    PayloadTooLargeError,
    PoolError,
    TaskTimeoutError,
    TransformError,
    WorkerCrashedError,
)
from racepool.protocol.failures import unpack_crashes, unpack_field_errors, unpack_raised, unpack_size
from racepool.protocol.messages import Answer, Outcome
from racepool.protocol.nesting import read_json
from racepool.protocol.parcel import PEEK_BYTES, Parcel, first_text
from racepool.protocol.stats import PoolStats
from racepool.protocol.visible import visible
from racepool.races.payloads import unpack_result
from racepool.races.race import RaceData, RaceInput


def result_of(answer: Answer, task: ClientTask, trouble: str = "") -> tuple[Any, PoolError | None]:
    """The task's result, or its error. `trouble` is why no worker is ready, if the broker has told that."""
    try:
        if answer.outcome is Outcome.OK:
            return unpack_result(answer.payload), None
        return None, _error(answer, task, label(task), trouble)
    except Exception as error:  # noqa: BLE001  # a bad answer fails one task, never the I/O thread
        what = f"its answer cannot be read: {error}; install the same racepool for workers and clients"
        return None, TransformError(label(task), type(error).__name__, what, "")


def timing_of(answer: Answer) -> TaskTiming:
    """What the task cost."""
    return TaskTiming(answer.queued_us / 1000, answer.run_us / 1000, answer.attempts, answer.worker)


def _error(answer: Answer, task: ClientTask, about: str, trouble: str) -> PoolError:
    match answer.outcome:
        case Outcome.INVALID_RACE:
            return InvalidRaceError(unpack_field_errors(answer.payload), about=about)
        case Outcome.RAISED:
            return TransformError(about, *unpack_raised(answer.payload))
        case Outcome.CRASHED:
            return WorkerCrashedError(about, unpack_crashes(answer.payload), task_id=task.id.hex())
        case Outcome.TOO_LARGE:
            size_bytes = unpack_size(answer.payload)
            return PayloadTooLargeError(f"the result of {about}", size_bytes)
        case Outcome.RUN_TIMEOUT:
            return TaskTimeoutError(about, state="running", timeout_s=task.run_timeout_ms / 1000)
        case Outcome.QUEUE_TIMEOUT:
            reason = trouble or "no worker was free"
            return TaskTimeoutError(about, state="queued", timeout_s=task.queue_timeout_s, reason=reason)
        case Outcome.OK | Outcome.UNREADABLE:
            raise AssertionError("OK is no error, and a broker never sends UNREADABLE")


def stats_of(payload: bytes) -> tuple[PoolStats | None, PoolError | None]:
    """The broker's stats, or why they cannot be read."""
    try:
        return PoolStats.model_validate_json(payload), None
    except ValidationError as error:
        return None, PoolError(f"the broker's stats cannot be read; install the same racepool for both: {error}")


def label(task: ClientTask) -> str:
    """The name of a task in messages: its id, as in the logs, and its race if that can be read."""
    return f"task {task.id.hex()}{race_of(task.parcel)}"


def race_of(given: "Parcel | RaceInput") -> str:
    """The name of a race in messages, in brackets; empty if it cannot be read."""
    told = race_id(given)
    return f" (race {visible(told)})" if told else ""


def race_id(given: "Parcel | RaceInput") -> str | None:
    """The race's id, at most 64 characters of it; None if it cannot be read."""
    return _field(given, "event_id", "id")


def race_name(given: "Parcel | RaceInput") -> str | None:
    """The race's name, like `race_id`."""
    return _field(given, "description", "name")


def _field(given: "Parcel | RaceInput", in_response: str, in_race: str) -> str | None:
    """Reads one field of a race that failed. A race that succeeded is never opened here."""
    try:
        race = _opened(given)
        value = race["data"]["race"][in_response] if "data" in race else race[in_race]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return value[:64].encode(errors="backslashreplace").decode() if isinstance(value, str) else None


def _opened(given: "Parcel | RaceInput") -> Any:  # noqa: ANN401  # the caller may give anything
    match given:
        case Parcel():
            return given.peek()
        case RaceData():
            return {"id": given.id, "name": given.name}
        case bytes() | bytearray() | memoryview() | str():
            first = given[:PEEK_BYTES]
            return read_json(first if isinstance(first, str) else first_text(bytes(first)), allow_partial=True)
        case _:
            return given
