"""Dead tasks as tables and as JSON. Knows no file."""

import signal
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from rich.box import ROUNDED
from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from racepool.commands.dead.tasks import DeadTask
from racepool.commands.display import printable
from racepool.races.payloads import Request

UNKNOWN = "\N{EN DASH}"


def dead_table(tasks: Iterable[DeadTask], names: Iterable[str], *, plain: bool) -> RenderableType:
    """A table with a row for each task, and these names; `plain` = no lines around cells."""
    table = Table(box=None if plain else ROUNDED)
    table.add_column("Task", no_wrap=True, style="bold")
    table.add_column("Race", overflow="fold")
    table.add_column("Size", justify="right", no_wrap=True)
    table.add_column("Given up", no_wrap=True)
    table.add_column("Lost workers", overflow="fold")
    for task, name in zip(tasks, names, strict=True):
        record = task.record
        table.add_row(
            name,
            Text(printable(task.race_id or UNKNOWN)),
            decimal(record.payload_bytes),
            f"{_local(record.given_up_at_ms):%Y-%m-%d %H:%M:%S}",
            Text(_losses(task)),
        )
    return table


def dead_details(task: DeadTask, request: Request | None, *, plain: bool) -> RenderableType:
    """All that is known of one task; `request` is what its payload holds, None if that is no request."""
    record = task.record
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column(overflow="fold")
    rows = {
        "Task": Text(task.task_id, style="bold"),
        "Race": Text(printable(f"{task.race_name or UNKNOWN} ({task.race_id or UNKNOWN})")),
        "Given up": Text(f"{_local(record.given_up_at_ms):%Y-%m-%d %H:%M:%S %Z}"),
        "Run timeout": Text(f"{record.run_timeout_ms / 1000:g} s"),
        "Payload": Text(_sizes(task, request)),
        "Polled at": Text(f"{_zoned(request.polled_at):%Y-%m-%d %H:%M:%S %Z}" if request else UNKNOWN),
        "File": Text(printable(str(task.path))),
    }
    for name, value in rows.items():
        facts.add_row(name, value)
    return Group(facts, Text(), _attempts(task, plain=plain))


def _attempts(task: DeadTask, *, plain: bool) -> Table:
    table = Table(box=None if plain else ROUNDED)
    table.add_column("No", justify="right")
    for heading in ("Worker", "Lost by", "Signal", "Assigned at"):
        table.add_column(heading)
    table.add_column("Lost after", justify="right")
    for number, attempt in enumerate(task.record.attempts, start=1):
        table.add_row(
            str(number),
            Text(printable(attempt.worker)),
            Text(printable(attempt.reason), style="red"),
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
    return printable("; ".join(f"{reason}: {', '.join(names)}" for reason, names in workers.items()))


def _sizes(task: DeadTask, request: Request | None) -> str:
    size = decimal(task.record.payload_bytes)
    match request and request.race:
        case bytes() as body:
            return f"{size}, of which the body as it was fetched is {len(body):,} bytes"
        case dict():
            return f"{size}; the race was submitted as a mapping"
        case _:
            return f"{size}; it is no request of this racepool's"


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
