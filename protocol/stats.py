"""The broker's figures as monitoring sees them: JSON on the stats socket, `PoolStats` in Python."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict


class _Figures(BaseModel):
    model_config = ConfigDict(frozen=True)


class WorkerStats(_Figures):
    """One worker. `state` is idle, busy, or draining (its last task); ages and durations are in seconds."""

    name: str
    pid: int
    state: Literal["idle", "busy", "draining"]
    task_id: str | None
    busy_for_s: float | None
    tasks_completed: int
    tasks_failed: int
    last_heartbeat_age_s: float
    started_at: datetime
    version: str
    rss_bytes: int | None


class Counters(_Figures):
    """Totals of this broker epoch.

    submitted = (queue_depth - held_by_clients) + in_flight + completed + failed + crashed + cancelled + timed_out
    + abandoned, at all times.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    submitted: int = 0
    completed: int = 0
    failed: int = 0
    crashed: int = 0
    cancelled: int = 0
    timed_out: int = 0
    abandoned: int = 0
    requeued: int = 0
    rejected: int = 0
    worker_crashes: int = 0
    stale_results: int = 0
    bad_frames: int = 0
    dropped: int = 0


class Distribution(_Figures):
    """A histogram in milliseconds. `buckets` are (upper bound, count up to it), the last bound is null for infinity.

    Percentiles are interpolated within their bucket, and null while count is 0.
    """

    p50: float | None
    p90: float | None
    p99: float | None
    max: float | None
    count: int
    sum: float
    buckets: list[tuple[float | None, int]]


class Event(_Figures):
    """One of the last crashes, requeues and restarts."""

    at: datetime
    event: str
    worker: str | None
    task_id: str | None
    reason: str | None


class BrokerStats(_Figures):
    """The broker process."""

    pid: int
    epoch: str
    version: str
    protocol_version: int
    uptime_s: float
    rss_bytes: int


class PoolStats(_Figures):
    """What the stats socket answers.

    `queue_depth` counts all tasks that wait, those held by clients included. `crash_detection_ms` is the time from a
    lost worker's last sign of life to the verdict: an upper bound (a heartbeat interval more), as nobody tells when
    a process died. `queue_wait_ms` is all waiting of a task up to each assignment.
    """

    total_workers: int
    active_workers: int
    idle_workers: int
    expected_workers: int
    degraded: bool
    queue_depth: int
    held_by_clients: int
    in_flight: int
    oldest_queued_s: float | None
    backlog_limit: int
    workers: list[WorkerStats]
    counters: Counters
    queue_wait_ms: Distribution
    run_ms: Distribution
    crash_detection_ms: Distribution
    clients: int
    recent_events: list[Event]
    broker: BrokerStats
