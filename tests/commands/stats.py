"""Stats of a pool as a broker would send them, for tests of code that shows or judges stats."""

from datetime import UTC, datetime, timedelta
from typing import Any

from racepool.protocol import VERSION
from racepool.protocol.messages import PROTOCOL_VERSION
from racepool.protocol.stats import BrokerStats, Counters, Distribution, Event, PoolStats, WorkerStats

NOON = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
BOUNDS = (1.0, 10.0, 100.0, None)


def worker(name: str, **changes: Any) -> WorkerStats:  # noqa: ANN401  # any field's value
    plain = WorkerStats(
        name=name, pid=100, state="idle", task_id=None, busy_for_s=None, tasks_completed=0, tasks_failed=0,
        last_heartbeat_age_s=0.1, started_at=NOON, version=VERSION, rss_bytes=50 * 2**20,
    )  # fmt: skip
    return plain.model_copy(update=changes)


def broker(**changes: Any) -> BrokerStats:  # noqa: ANN401  # any field's value
    plain = BrokerStats(
        pid=50, epoch="first", version=VERSION, protocol_version=PROTOCOL_VERSION, uptime_s=60.0, rss_bytes=40 * 2**20
    )
    return plain.model_copy(update=changes)


def event(name: str, *, after_s: float = 0.0, who: str | None = None) -> Event:
    return Event(at=NOON + timedelta(seconds=after_s), event=name, worker=who, task_id=None, reason=None)


def spread(*counts: int) -> Distribution:
    """A histogram with these counts in the buckets of BOUNDS."""
    sums = [sum(counts[: index + 1]) for index in range(len(BOUNDS))]
    buckets = list(zip(BOUNDS, sums, strict=True))
    return Distribution(p50=None, p90=None, p99=None, max=None, count=sums[-1], sum=0.0, buckets=buckets)


def pool(*workers: WorkerStats, completed: int = 0, **changes: Any) -> PoolStats:  # noqa: ANN401  # any field's value
    """A pool of three expected workers: all idle, or with only these workers."""
    there = workers or tuple(worker(f"worker-{index}", pid=100 + index) for index in range(3))
    busy = sum(each.state != "idle" for each in there)
    plain = PoolStats(
        total_workers=len(there), active_workers=busy, idle_workers=len(there) - busy, expected_workers=3,
        degraded=len(there) < 3, queue_depth=0, held_by_clients=0, in_flight=busy, oldest_queued_s=None,
        backlog_limit=100_000, workers=list(there), counters=Counters(submitted=completed, completed=completed),
        queue_wait_ms=spread(), run_ms=spread(), crash_detection_ms=spread(), clients=1, recent_events=[],
        failed_starts=[], broker=broker(),
    )  # fmt: skip
    return plain.model_copy(update=changes)
