"""The broker's figures as Prometheus names them: base units, counters that end in _total. Pure; asks nobody.

What is left out: percentiles since the broker's start (Prometheus takes those of any span from the buckets), and ids of
tasks (a label whose values never end).
"""

from collections.abc import Iterable, Iterator

from prometheus_client import Metric
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)

from racepool.protocol.stats import BrokerStats, Counters, Distribution, Event, PoolStats, WorkerStats

MS = 1000
STATES = ("idle", "busy", "draining")
OUTCOMES = ("completed", "failed", "crashed", "cancelled", "timed_out", "abandoned")


def families(stats: PoolStats) -> Iterator[Metric]:
    """All metrics of these figures."""
    yield from _pool(stats)
    yield from _tasks(stats.counters)
    yield from _durations(stats)
    yield from _workers(stats.workers)
    yield from _events(stats.recent_events)
    yield from _broker(stats.broker)


def _pool(stats: PoolStats) -> Iterator[Metric]:
    draining = sum(worker.state == "draining" for worker in stats.workers)
    by_state = {"idle": stats.idle_workers, "busy": stats.active_workers - draining, "draining": draining}
    workers = GaugeMetricFamily("racepool_workers", "Workers that the broker knows, by state.", labels=["state"])
    for state in STATES:
        workers.add_metric([state], by_state[state])
    yield workers
    gauges = (
        ("ready_workers", stats.total_workers, "Workers that the broker knows, whatever their state."),
        ("expected_workers", stats.expected_workers, "Workers that there should be."),
        ("degraded", stats.degraded, "1 while fewer workers are there than expected, else 0."),
        ("queue_depth", stats.queue_depth, "Tasks that wait for a worker, those held by clients included."),
        ("held_by_clients", stats.held_by_clients, "Waiting tasks that clients hold back behind their windows."),
        ("in_flight", stats.in_flight, "Tasks in workers' hands."),
        ("oldest_queued_seconds", stats.oldest_queued_s or 0, "How long the oldest task waits; 0 while none does."),
        ("backlog_limit", stats.backlog_limit, "Tasks that the broker's backlog holds at most."),
        ("clients", stats.clients, "Clients that the broker knows."),
    )
    yield from (GaugeMetricFamily(f"racepool_{name}", about, value) for name, value, about in gauges)


def _tasks(counters: Counters) -> Iterator[Metric]:
    ended = CounterMetricFamily("racepool_tasks", "Tasks that ended, by how they did.", labels=["outcome"])
    for outcome in OUTCOMES:
        ended.add_metric([outcome], getattr(counters, outcome))
    yield ended
    totals = (
        ("tasks_submitted", counters.submitted, "Tasks that the broker took."),
        ("tasks_requeued", counters.requeued, "Times that a task went back to its place as its worker was lost."),
        ("tasks_rejected", counters.rejected, "Tasks that a full backlog refused."),
        ("worker_crashes", counters.worker_crashes, "Workers that were lost while they should have worked."),
        ("stale_results", counters.stale_results, "Results of an assignment that was over; they change nothing."),
        ("bad_frames", counters.bad_frames, "Messages that were none of this protocol."),
        ("dropped_messages", counters.dropped, "Messages that could not be delivered to a peer."),
    )
    yield from (CounterMetricFamily(f"racepool_{name}", about, value) for name, value, about in totals)


def _durations(stats: PoolStats) -> Iterator[Metric]:
    for name, distribution, about in (
        ("queue_wait", stats.queue_wait_ms, "All waiting of a task up to each assignment"),
        ("run", stats.run_ms, "Time of an attempt in its worker"),
        ("crash_detection", stats.crash_detection_ms, "From a lost worker's last sign of life to the verdict"),
    ):
        yield HistogramMetricFamily(
            f"racepool_{name}_seconds", f"{about}.", _buckets(distribution), distribution.sum / MS
        )
        yield GaugeMetricFamily(
            f"racepool_{name}_max_seconds", f"{about}: the longest of this broker.", (distribution.max or 0) / MS
        )


def _buckets(distribution: Distribution) -> list[tuple[str, float]]:
    return [("+Inf" if bound is None else str(round(bound / MS, 9)), count) for bound, count in distribution.buckets]


def _workers(workers: Iterable[WorkerStats]) -> Iterator[Metric]:
    # While a worker is replaced two may have its name: a series needs to be one of them.
    latest = {worker.name: worker for worker in sorted(workers, key=lambda worker: worker.started_at)}.values()
    state = GaugeMetricFamily("racepool_worker_state", "1 for the state that it is in.", labels=["worker", "state"])
    tasks = CounterMetricFamily("racepool_worker_tasks", "Tasks that it did.", labels=["worker", "outcome"])
    info = InfoMetricFamily("racepool_worker", "Its process and version.", labels=["worker"])
    busy, heartbeat, started, memory = (
        GaugeMetricFamily(f"racepool_worker_{name}", about, labels=["worker"])
        for name, about in (
            ("busy_seconds", "How long it has had its task; 0 while it has none."),
            ("heartbeat_age_seconds", "Time since its last sign of life."),
            ("start_time_seconds", "When it started, since the Unix epoch."),
            ("resident_memory_bytes", "Its resident memory."),
        )
    )
    for worker in latest:
        for each in STATES:
            state.add_metric([worker.name, each], worker.state == each)
        tasks.add_metric([worker.name, "completed"], worker.tasks_completed)
        tasks.add_metric([worker.name, "failed"], worker.tasks_failed)
        info.add_metric([worker.name], {"pid": str(worker.pid), "version": worker.version})
        busy.add_metric([worker.name], worker.busy_for_s or 0)
        heartbeat.add_metric([worker.name], worker.last_heartbeat_age_s)
        started.add_metric([worker.name], worker.started_at.timestamp())
        if worker.rss_bytes is not None:
            memory.add_metric([worker.name], worker.rss_bytes)
    yield from (state, tasks, info, busy, heartbeat, started, memory)


def _events(events: Iterable[Event]) -> Iterator[Metric]:
    latest = {(event.event, event.reason or ""): event.at.timestamp() for event in events}
    last = GaugeMetricFamily(
        "racepool_last_event_timestamp_seconds",
        "When something of this kind happened last.",
        labels=["event", "reason"],
    )
    for labels, at in latest.items():
        last.add_metric(labels, at)
    yield last


def _broker(broker: BrokerStats) -> Iterator[Metric]:
    yield InfoMetricFamily(
        "racepool_build",
        "What the broker is.",
        {"version": broker.version, "protocol_version": str(broker.protocol_version)},
    )
    yield InfoMetricFamily(
        "racepool_broker", "This life of the broker.", {"pid": str(broker.pid), "epoch": broker.epoch}
    )
    yield GaugeMetricFamily("racepool_broker_uptime_seconds", "Time since its start.", broker.uptime_s)
    yield GaugeMetricFamily("racepool_broker_resident_memory_bytes", "Its resident memory.", broker.rss_bytes)
