import random
from collections.abc import Callable
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from racepool.broker.actions import Report
from racepool.broker.core import BrokerCore
from racepool.broker.statistics import BOUNDS_MS, RECENT_EVENTS, Histogram, Statistics
from racepool.protocol.messages import Cancel, Outcome, Ping
from tests.broker.building import ALICE, H1, W1, W2, an_id, beat, hello, ready, result, submit


def histogram_of(durations: list[float]) -> Histogram:
    histogram = Histogram()
    for duration in durations:
        histogram.observe(duration)
    return histogram


def bucket_of(value: float) -> tuple[float, float]:
    """The bounds between which a histogram cannot tell values apart."""
    return next(
        (lower, upper)
        for lower, upper in zip((0.0, *BOUNDS_MS), (*BOUNDS_MS, float("inf")), strict=True)
        if value <= upper
    )


def test_empty_histogram_has_no_percentiles() -> None:
    empty = Histogram().distribution()

    assert (empty.p50, empty.p90, empty.p99, empty.max, empty.count, empty.sum) == (None, None, None, None, 0, 0)


@given(st.lists(st.floats(0, 1e7), min_size=1, max_size=300))
def test_percentiles_lie_in_the_bucket_of_the_exact_ones(durations: list[float]) -> None:
    figures = histogram_of(durations).distribution()
    ordered = sorted(durations)

    for part, told in ((0.5, figures.p50), (0.9, figures.p90), (0.99, figures.p99)):
        exact = ordered[ceil(part * len(ordered)) - 1]
        lower, upper = bucket_of(exact)
        assert told is not None
        assert lower - 0.001 <= told <= min(upper, ordered[-1]) + 0.001
    assert figures.max == ordered[-1]
    assert figures.sum == pytest.approx(sum(durations), abs=0.001)


def test_percentiles_are_ordered_and_interpolated() -> None:
    figures = histogram_of(
        [random.Random(1).uniform(0, 2_500) for _ in range(1)] + [index / 4 for index in range(10_000)]
    )
    told = figures.distribution()

    assert told.p50 == pytest.approx(1_250, rel=0.05)
    assert told.p90 == pytest.approx(2_250, rel=0.05)
    assert told.p99 == pytest.approx(2_475, rel=0.05)


@given(st.lists(st.floats(0, 1e7), max_size=100))
def test_buckets_count_what_is_not_above_their_bound(durations: list[float]) -> None:
    buckets = histogram_of(durations).distribution().buckets

    assert buckets == [
        *((bound, sum(duration <= bound for duration in durations)) for bound in BOUNDS_MS),
        (None, len(durations)),
    ]


# --- the whole --------------------------------------------------------------------------------------------------------


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def statistics(broker: BrokerCore, clock: Clock) -> Statistics:
    return Statistics(broker, clock, lambda: 1_700_000_000.0 + clock.now)


def test_fresh_broker_has_nothing_but_its_process(statistics: Statistics) -> None:
    figures = statistics.snapshot()

    assert (figures.total_workers, figures.queue_depth, figures.in_flight, figures.oldest_queued_s) == (0, 0, 0, None)
    assert (figures.expected_workers, figures.degraded, figures.clients) == (3, True, 0)
    assert sum(figures.counters.model_dump().values()) == 0
    assert figures.broker.epoch == b"epoch-01".hex()


def test_stats_add_up(broker: BrokerCore, statistics: Statistics, clock: Clock) -> None:
    now = clock.now
    broker.on_client(ALICE, hello(), now)
    for name in ("t1", "t2", "t3", "t4"):
        broker.on_client(ALICE, submit(name), now)
    broker.on_client(ALICE, Ping(held=5), now)
    broker.on_client(ALICE, Cancel(an_id("t4"), kill=False), now)
    broker.on_worker(W1, ready("worker-2", 102), now, 102)
    broker.on_worker(W1, result("t1", 1, Outcome.RAISED), now + 1)
    broker.on_heartbeat(H1, beat("worker-2", 102, busy=True), now + 1)
    broker.on_heartbeat(H1, beat("worker-1", 101, busy=True, draining=True), now + 1, 101)
    clock.now = now + 3

    figures = statistics.snapshot()

    assert (figures.total_workers, figures.active_workers, figures.idle_workers) == (2, 2, 0)
    assert [worker.state for worker in figures.workers] == ["draining", "busy"]
    assert (figures.queue_depth, figures.held_by_clients, figures.in_flight, figures.oldest_queued_s) == (6, 5, 1, 3.0)
    counters = figures.counters
    assert counters.submitted == (
        figures.queue_depth
        - figures.held_by_clients
        + figures.in_flight
        + counters.completed
        + counters.failed
        + counters.crashed
        + counters.cancelled
        + counters.timed_out
        + counters.abandoned
    )
    assert [worker.name for worker in figures.workers] == ["worker-1", "worker-2"]
    busy = figures.workers[1]
    assert (busy.task_id, busy.busy_for_s, busy.tasks_failed, busy.last_heartbeat_age_s, busy.rss_bytes) == (
        an_id("t2").hex(),
        2.0,
        1,
        2.0,
        50_000_000,
    )
    assert figures.workers[0].task_id is None


def test_enough_workers_are_not_degraded(make_broker: Callable[..., BrokerCore], clock: Clock) -> None:
    broker = make_broker(workers=2)
    statistics = Statistics(broker, clock, clock)
    broker.on_worker(W1, ready("worker-1", 101), clock.now)
    assert statistics.snapshot().degraded

    broker.on_worker(W2, ready("worker-2", 102), clock.now)
    assert not statistics.snapshot().degraded


def test_oldest_task_has_waited_at_all_brokers_and_has_not_while_it_ran(
    broker: BrokerCore, statistics: Statistics, clock: Clock
) -> None:
    broker.on_client(ALICE, hello(), clock.now)
    broker.on_worker(W1, ready(), clock.now, 101)
    broker.on_client(ALICE, submit("t1", waited_ms=50_000, again=True), clock.now)
    broker.on_process_exit([an_id("worker-1")], clock.now + 29)
    clock.now += 31

    assert statistics.snapshot().oldest_queued_s == 52.0


def test_reports_become_distributions(broker: BrokerCore, statistics: Statistics) -> None:
    broker.on_client(ALICE, hello(), 0.0)
    reports = [
        *broker.on_client(ALICE, submit("t1"), 0.0),
        *broker.on_worker(W1, ready(), 0.25, 101),
        *broker.on_worker(W1, result("t1", 1), 0.75),
        *broker.on_client(ALICE, submit("t2"), 0.75),
        *broker.on_process_exit([an_id("worker-1")], 0.875),
    ]
    for action in reports:
        if isinstance(action, Report):
            statistics.on_report(action)

    figures = statistics.snapshot()
    assert (figures.queue_wait_ms.count, figures.queue_wait_ms.max) == (2, 250.0)
    assert (figures.run_ms.count, figures.run_ms.sum) == (1, 500.0)
    assert (figures.crash_detection_ms.count, figures.crash_detection_ms.max) == (1, 125.0)
    assert [(event.event, event.worker) for event in figures.recent_events] == [
        ("worker_lost", "worker-1"),
        ("task_requeued", "worker-1"),
    ]


@pytest.mark.parametrize("reason", ["run_timeout", "cancelled"])
def test_deliberate_kill_is_not_counted_as_a_detection(statistics: Statistics, reason: str) -> None:
    statistics.on_report(Report("worker_lost", {"worker": "w", "reason": reason, "silent_ms": 1.0}))

    assert statistics.snapshot().crash_detection_ms.count == 0


def test_recent_events_are_the_last_ones_with_their_time(statistics: Statistics, clock: Clock) -> None:
    for index in range(RECENT_EVENTS + 5):
        clock.now = 1_000.0 + index
        statistics.on_report(Report("task_requeued", {"worker": f"w{index}", "task_id": "00"}))
        statistics.on_report(Report("worker_ready", {"worker": "not remembered"}))

    events = statistics.snapshot().recent_events
    assert [event.worker for event in events] == [f"w{index}" for index in range(5, RECENT_EVENTS + 5)]
    assert events[0].at.timestamp() == 1_700_001_005.0
