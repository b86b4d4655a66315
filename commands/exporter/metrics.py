"""The broker's stats as Prometheus metrics, in base units. Pure.

Two things are left out. Prometheus computes percentiles from the buckets itself, for any span of time. Ids of tasks
would be a label with an endless number of values.
"""

from collections.abc import Iterable, Iterator

from prometheus_client import Metric
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)

from racepool.protocol.stats import OUTCOMES, BrokerStats, Counters, Distribution, Event, PoolStats, WorkerStats

MS = 1000
STATES = ("idle", "busy", "draining")


def families(stats: PoolStats) -> Iterator[Metric]:
    """All metrics of these stats."""
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
        ("ready_workers", stats.total_workers, "Workers that the broker knows, in any state."),
        ("expected_workers", stats.expected_workers, "Workers that there should be."),
        ("degraded", stats.degraded, "1 while there are fewer workers than expected, else 0."),
        ("failed_starts", len(stats.failed_starts), "Workers that cannot start because of their set-up."),
        ("queue_depth", stats.queue_depth, "Tasks that wait for a worker, with those held by clients."),
        ("held_by_clients", stats.held_by_clients, "Waiting tasks that clients hold back behind their windows."),
        ("in_flight", stats.in_flight, "Tasks in workers' hands."),
        ("oldest_queued_seconds", stats.oldest_queued_s or 0, "How long the oldest task has waited; 0 if none waits."),
        ("backlog_limit", stats.backlog_limit, "The most tasks that the broker's backlog can hold."),
        ("clients", stats.clients, "Clients that the broker knows."),
    )
    yield from (GaugeMetricFamily(f"racepool_{name}", about, value) for name, value, about in gauges)


def _tasks(counters: Counters) -> Iterator[Metric]:
    ended = CounterMetricFamily("racepool_tasks", "Tasks that ended, by outcome.", labels=["outcome"])
    for outcome in OUTCOMES:
        ended.add_metric([outcome], getattr(counters, outcome))
    yield ended
    totals = (
        ("tasks_submitted", counters.submitted, "Tasks that the broker accepted."),
        ("tasks_requeued", counters.requeued, "How often a task went back to its place because its worker was lost."),
        ("tasks_rejected", counters.rejected, "Tasks that were refused because the backlog was full."),
        (
            "worker_crashes",
            counters.worker_crashes,
            "Workers that were lost; one that leaves on its own is not counted.",
        ),
        (
            "stale_results",
            counters.stale_results,
            "Results of an assignment that had ended; they change nothing.",
        ),
        ("bad_frames", counters.bad_frames, "Messages that do not follow the protocol."),
        ("dropped_messages", counters.dropped, "Messages that could not be delivered to a peer."),
    )
    yield from (CounterMetricFamily(f"racepool_{name}", about, value) for name, value, about in totals)


def _durations(stats: PoolStats) -> Iterator[Metric]:
    for name, distribution, about in (
        ("queue_wait", stats.queue_wait_ms, "Time a task has waited in all, at each assignment"),
        ("run", stats.run_ms, "Time of an attempt in its worker"),
        (
            "crash_detection",
            stats.crash_detection_ms,
            "Time from a lost worker's last sign of life until it was noticed",
        ),
    ):
        yield HistogramMetricFamily(
            f"racepool_{name}_seconds", f"{about}.", _buckets(distribution), distribution.sum / MS
        )
        yield GaugeMetricFamily(
            f"racepool_{name}_max_seconds",
            f"{about}: the longest since the broker's start.",
            (distribution.max or 0) / MS,
        )


def _buckets(distribution: Distribution) -> list[tuple[str, float]]:
    return [("+Inf" if bound is None else str(round(bound / MS, 9)), count) for bound, count in distribution.buckets]


def _workers(workers: Iterable[WorkerStats]) -> Iterator[Metric]:
    # While a worker is replaced, two may have its name: a series must have one value.
    latest = {worker.name: worker for worker in sorted(workers, key=lambda worker: worker.started_at)}.values()
    state = GaugeMetricFamily("racepool_worker_state", "1 for its present state, else 0.", labels=["worker", "state"])
    tasks = CounterMetricFamily("racepool_worker_tasks", "Tasks that it ran, by outcome.", labels=["worker", "outcome"])
    info = InfoMetricFamily("racepool_worker", "The worker's process and version.", labels=["worker"])
    busy, heartbeat, started, memory = (
        GaugeMetricFamily(f"racepool_worker_{name}", about, labels=["worker"])
        for name, about in (
            ("busy_seconds", "How long the worker has had its task; 0 if it has none."),
            ("heartbeat_age_seconds", "Time since the worker's last sign of life."),
            ("start_time_seconds", "When the worker started, in seconds since 1970."),
            ("resident_memory_bytes", "The worker's resident memory."),
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
        "When an event of this kind happened last.",
        labels=["event", "reason"],
    )
    for labels, at in latest.items():
        last.add_metric(labels, at)
    yield last


def _broker(broker: BrokerStats) -> Iterator[Metric]:
    yield InfoMetricFamily(
        "racepool_build",
        "The broker's version.",
        {"version": broker.version, "protocol_version": str(broker.protocol_version)},
    )
    yield InfoMetricFamily(
        "racepool_broker", "The broker's process and epoch.", {"pid": str(broker.pid), "epoch": broker.epoch}
    )
    yield GaugeMetricFamily("racepool_broker_uptime_seconds", "Time since the broker's start.", broker.uptime_s)
    yield GaugeMetricFamily("racepool_broker_resident_memory_bytes", "The broker's resident memory.", broker.rss_bytes)
