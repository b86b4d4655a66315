"""Stats of a broker, as the tests need them."""

from datetime import UTC, datetime
from typing import Any

from racepool.protocol.stats import PoolStats

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
BOUNDS_MS = (1.0, 10.0, 100.0, None)


def distribution(*counts: int, total_ms: float = 0.0) -> dict[str, Any]:
    """A distribution with these counts in its buckets."""
    counts = counts or (0,) * len(BOUNDS_MS)
    sums = [sum(counts[: number + 1]) for number in range(len(counts))]
    known = (
        {"p50": 5.0, "p90": 9.0, "p99": 9.9, "max": 12.5} if sums[-1] else dict.fromkeys(("p50", "p90", "p99", "max"))
    )
    buckets = list(zip(BOUNDS_MS, sums, strict=True))
    return {**known, "count": sums[-1], "sum": total_ms, "buckets": buckets}


def worker(name: str = "worker-0", **changes: object) -> dict[str, Any]:
    """An idle worker that has done nothing."""
    facts = {
        "name": name, "pid": 11, "state": "idle", "task_id": None, "busy_for_s": None, "tasks_completed": 0,
        "tasks_failed": 0, "last_heartbeat_age_s": 0.1, "started_at": NOON, "version": "0.1.0", "rss_bytes": 1_000,
    }  # fmt: skip
    return facts | changes


def event(kind: str = "worker_lost", **changes: object) -> dict[str, Any]:
    """The loss of a worker whose process ended at noon."""
    return {"at": NOON, "event": kind, "worker": "worker-0", "task_id": None, "reason": "process_exit"} | changes


def pool_stats(**changes: Any) -> PoolStats:  # noqa: ANN401  # any field's value
    """The stats of a pool of three idle workers; `counters` and `broker` name only what differs."""
    counters, broker = changes.pop("counters", {}), changes.pop("broker", {})
    workers = changes.pop("workers", [worker(f"worker-{number}", pid=11 + number) for number in range(3)])
    active = sum(each["state"] != "idle" for each in workers)
    facts = {
        "total_workers": len(workers), "active_workers": active, "idle_workers": len(workers) - active,
        "expected_workers": 3, "degraded": len(workers) < 3, "queue_depth": 0, "held_by_clients": 0,
        "in_flight": active,
        "oldest_queued_s": None, "backlog_limit": 100, "workers": workers, "clients": 1, "recent_events": [],
        "failed_starts": [],
        "queue_wait_ms": distribution(), "run_ms": distribution(), "crash_detection_ms": distribution(),
        "counters": counters,
        "broker": {
            "pid": 7, "epoch": "aa", "version": "0.1.0", "protocol_version": 1, "uptime_s": 60.0, "rss_bytes": 5_000,
        } | broker,
    }  # fmt: skip
    return PoolStats.model_validate(facts | changes)
