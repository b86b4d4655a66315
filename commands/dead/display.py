"""Dead tasks as tables and as JSON. Knows no file."""

import signal
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.text import Text

from racepool.commands.dead.tasks import DeadTask
from racepool.commands.display import look
from racepool.commands.narrow_table import Column, NarrowTable, numbers
from racepool.protocol.visible import visible
from racepool.races.payloads import Request

UNKNOWN = "\N{EN DASH}"


def dead_table(tasks: Iterable[DeadTask], names: Iterable[str], *, plain: bool) -> RenderableType:
    """A table with a row for each task, and these names; `plain` = no lines around cells."""
    columns = (
        Column("Task", style="bold"), Column("Race", least=12, wraps=True), numbers("Size", 2),
        Column("Given up", short=_without_year), Column("Lost workers", least=16, wraps=True, optional=1),
    )  # fmt: skip
    table = NarrowTable(columns, look(plain=plain))
    for task, name in zip(tasks, names, strict=True):
        record = task.record
        table.add(
            name,
            task.race_id or UNKNOWN,
            decimal(record.payload_bytes),
            f"{_local(record.given_up_at_ms):%Y-%m-%d %H:%M:%S}",
            _losses(task),
        )
    return table


def dead_details(task: DeadTask, request: Request | None, *, plain: bool) -> RenderableType:
    """All that is known of one task; `request` is what its payload holds, None if that is no request."""
    record = task.record
    facts = NarrowTable((Column(style="dim"), Column(least=20, wraps=True)), "tight")
    rows: dict[str, Text | str] = {
        "Task": Text(task.task_id, style="bold"),
        "Race": f"{task.race_name or UNKNOWN} ({task.race_id or UNKNOWN})",
        "Given up": f"{_local(record.given_up_at_ms):%Y-%m-%d %H:%M:%S %Z}",
        "Run timeout": f"{record.run_timeout_ms / 1000:g} s",
        "Payload": _sizes(task, request),
        "Polled at": f"{_zoned(request.polled_at):%Y-%m-%d %H:%M:%S %Z}" if request else UNKNOWN,
        "File": str(task.path),
    }
    for name, value in rows.items():
        facts.add(name, value)
    return Group(facts, Text(), _attempts(task, plain=plain))


def _attempts(task: DeadTask, *, plain: bool) -> NarrowTable:
    columns = (
        numbers("No"), Column("Worker", least=10), Column("Lost by", least=8, wraps=True),
        Column("Signal", optional=1), Column("Assigned at", optional=2), numbers("Lost after"),
    )  # fmt: skip
    table = NarrowTable(columns, look(plain=plain))
    for number, attempt in enumerate(task.record.attempts, start=1):
        table.add(
            str(number),
            attempt.worker,
            Text(visible(attempt.reason), style="red"),
            _signal(attempt.signal),
            f"{_local(attempt.assigned_at_ms):%H:%M:%S.%f}"[:-3],
            f"{(attempt.lost_at_ms - attempt.assigned_at_ms) / 1000:.3f} s",
        )
    return table


def facts_of(task: DeadTask) -> dict[str, Any]:
    """One task for JSON: instants in UTC, durations in seconds, sizes in bytes."""
    record = task.record
    return {
        "task_id": task.task_id,
        "race_id": task.race_id,
        "race_name": task.race_name,
        "given_up_at": _utc(record.given_up_at_ms),
        "run_timeout_s": record.run_timeout_ms / 1000,
        "payload_bytes": record.payload_bytes,
        "attempts": [
            {
                "worker": attempt.worker,
                "reason": attempt.reason,
                "signal": attempt.signal,
                "assigned_at": _utc(attempt.assigned_at_ms),
                "lost_at": _utc(attempt.lost_at_ms),
            }
            for attempt in record.attempts
        ],
        "path": str(task.path),
    }


def request_facts(request: Request | None) -> dict[str, Any]:
    """What the payload adds to `facts_of`; nulls if it is no request."""
    body = request.race if request else None
    return {
        "polled_at": request.polled_at.isoformat() if request else None,
        "body": None if body is None else "json" if isinstance(body, bytes) else "mapping",
        "body_bytes": len(body) if isinstance(body, bytes) else None,
    }


def _losses(task: DeadTask) -> str:
    """The lost workers, grouped by reason, in the order of the attempts."""
    workers: dict[str, list[str]] = {}
    for attempt in task.record.attempts:
        workers.setdefault(attempt.reason, []).append(attempt.worker)
    return "; ".join(f"{reason}: {', '.join(names)}" for reason, names in workers.items())


def _sizes(task: DeadTask, request: Request | None) -> str:
    size = decimal(task.record.payload_bytes)
    match request and request.race:
        case bytes() as body:
            return f"{size}, of which the body as it was fetched is {len(body):,} bytes"
        case dict():
            return f"{size}; the race was submitted as a mapping"
        case _:
            return f"{size}; it is no request of this racepool's"


def _without_year(instant: str) -> str:
    return instant.partition("-")[2].rpartition(":")[0]


def _signal(number: int | None) -> str:
    if number is None:
        return UNKNOWN
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def _local(instant_ms: int) -> datetime:
    return _zoned(datetime.fromtimestamp(instant_ms / 1000, UTC))


def _zoned(instant: datetime) -> datetime:
    try:
        return instant.astimezone()
    except OverflowError:  # at the first or last day of the calendar
        return instant


def _utc(instant_ms: int) -> str:
    return datetime.fromtimestamp(instant_ms / 1000, UTC).isoformat(timespec="milliseconds")
