"""The message that the status page gets each second, as JSON. Pure; the page itself is in static/."""

from dataclasses import asdict
from datetime import datetime
from typing import Any

from racepool.commands.dead.display import facts_of
from racepool.commands.dead.tasks import DeadTasks
from racepool.commands.exporter.chart_history import Point
from racepool.commands.exporter.chronicle import Chronicle
from racepool.protocol import VERSION
from racepool.protocol.stats import Event, PoolStats
from racepool.protocol.visible import visible

OLD_S = 30.0  # half of a client's default queue timeout
NEARLY_FULL = 0.8  # part of the backlog's limit
DEAD_TASKS = 20
DISTRIBUTIONS = ("queue_wait_ms", "run_ms", "crash_detection_ms")
LEFT_OUT: dict[str, Any] = {"recent_events": True, **{name: {"buckets"} for name in DISTRIBUTIONS}}


def moment(
    now: datetime, stats: PoolStats | None, chronicle: Chronicle, dead: DeadTasks | str | None, point: Point
) -> dict[str, Any]:
    """Everything that the page shows, except the earlier points of its charts.

    Args:
        now: the wall-clock time.
        stats: the broker's stats; None if it did not answer.
        chronicle: must have taken this answer already.
        dead: the dead tasks; or a text why they cannot be read; or None if they are on another host.
        point: the newest point of the charts.
    """
    absence = chronicle.absence
    level, headline = verdict(stats)
    facts = {
        "at": now.timestamp(),
        "version": VERSION,
        "level": level,
        "headline": headline,
        "away": absence and {"since": absence.since.timestamp(), "reason": absence.reason},
        "limits": {"nearly_full": NEARLY_FULL, "old_s": OLD_S},
        "stats": stats and stats.model_dump(mode="json", exclude=LEFT_OUT),
        "missing": chronicle.missing if stats else [],
        "events": [_event(event) for event in reversed(chronicle.events)],
        "dead": _dead(dead),
        "point": asdict(point),
    }
    return {name: _shown(value) for name, value in facts.items()}


def verdict(stats: PoolStats | None) -> tuple[str, str]:
    """The state of the pool (ok, warning or down), and a headline for it."""
    if stats is None:
        return "down", "The broker does not answer"
    if not stats.total_workers:
        why = [f": {each.worker} cannot start: {each.reason}" for each in stats.failed_starts[-1:]]
        return "down", "".join(["No worker is ready", *why])
    if stats.degraded:
        return "warning", f"{stats.total_workers} of {stats.expected_workers} workers are ready"
    if stats.queue_depth - stats.held_by_clients >= NEARLY_FULL * stats.backlog_limit:
        return "warning", "The backlog is nearly full"
    if (stats.oldest_queued_s or 0) >= OLD_S:
        return "warning", "Tasks have waited for a long time"
    return "ok", "All workers are ready" if stats.total_workers > 1 else "The worker is ready"


def _shown(value: Any) -> Any:  # noqa: ANN401  # any JSON value
    """The value, with each text in it as a person can see it: a name must not turn the direction of the page's text."""
    match value:
        case str():
            return visible(value)
        case dict():
            return {name: _shown(each) for name, each in value.items()}
        case list() | tuple():
            return [_shown(each) for each in value]
        case _:
            return value


def _event(event: Event) -> dict[str, Any]:
    return {
        "at": event.at.timestamp(),
        "event": event.event,
        "worker": event.worker,
        "task_id": event.task_id,
        "reason": event.reason,
    }


def _dead(dead: DeadTasks | str | None) -> dict[str, Any] | None:
    if dead is None:
        return None
    if isinstance(dead, str):
        return {"problem": dead, "count": None, "unreadable": None, "tasks": []}
    tasks = [
        {name: facts[name] for name in ("task_id", "race_id", "race_name", "given_up_at", "attempts")}
        | {"short_id": dead.short_id(task)}
        for task in dead.tasks[:DEAD_TASKS]
        for facts in [facts_of(task)]
    ]
    unreadable = len(dead.records) - len(dead.tasks)
    return {"problem": None, "count": len(dead.tasks), "unreadable": unreadable, "tasks": tasks}
