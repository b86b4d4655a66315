from datetime import timedelta

import pytest

from racepool.commands.top.trend import MAX_EVENTS, MAX_SEEN, SLOT_S, WINDOW_S, Latency, PoolTrend, Slot
from racepool.protocol.stats import PoolStats
from tests.commands.stats import NOON, broker, event, pool, spread, worker


def told(*stats: PoolStats, every_s: float = 1.0) -> PoolTrend:
    """The trend after these stats, one after the other."""
    trend = PoolTrend(0.0)
    for index, each in enumerate(stats):
        trend.on_stats(each, index * every_s, NOON + timedelta(seconds=index * every_s))
    return trend


def test_throughput_is_what_was_added_since_we_look() -> None:
    assert told(pool(completed=1_000)).throughput() is None
    assert told(pool(completed=1_000), pool(completed=1_010), pool(completed=1_040)).throughput() == 20.0


def test_throughput_forgets_what_is_longer_ago_than_the_window() -> None:
    burst = [pool(completed=0), pool(completed=500)]
    quiet = [pool(completed=500)] * int(WINDOW_S + 1)

    assert told(*burst, *quiet).throughput() == 0.0


def test_broker_that_counts_from_zero_again_takes_nothing_away() -> None:
    trend = told(pool(completed=1_000), pool(completed=12, broker=broker(epoch="second", pid=51)))

    assert trend.throughput() == 12.0
    assert [each.event for each in trend.events] == ["broker_restarted"]
    assert trend.events[0].reason == "pid 50 -> 51, up 0:01:00"


def test_latency_is_of_the_last_seconds_only() -> None:
    before, after = spread(1_000, 0, 0, 0), spread(1_000, 0, 10, 0)

    trend = told(pool(run_ms=before), pool(run_ms=after))

    run = trend.run()
    assert (run.p50, run.p90, run.p99, run.count) == pytest.approx((55.0, 91.0, 99.1, 10))
    assert trend.queue_wait() == Latency()


def test_latency_beyond_all_bounds_is_the_last_bound() -> None:
    assert told(pool(), pool(run_ms=spread(0, 0, 0, 3))).run().p50 == 100.0


def test_silence_lasts_from_the_first_unanswered_question_to_the_next_answer() -> None:
    trend = told(pool())
    trend.on_silence(2.0)
    trend.on_silence(3.0)

    silences = [trend.silent_since]
    trend.on_stats(pool(), 4.5, NOON)
    silences.append(trend.silent_since)

    assert silences == [2.0, None]
    assert trend.events[-1].event == "broker_back"
    assert trend.events[-1].reason == "silent for 4.5 s"


def test_events_are_told_once_and_in_their_order() -> None:
    lost, back = event("worker_lost", who="worker-1"), event("worker_restarted", after_s=0.4, who="worker-1")

    trend = told(pool(recent_events=[lost]), pool(recent_events=[lost, back]), pool(recent_events=[back]))

    assert list(trend.events) == [lost, back]
    assert trend.restarts == {"worker-1": 1}


def test_events_do_not_pile_up() -> None:
    trend = told(*(pool(recent_events=[event("worker_lost", after_s=index)]) for index in range(3 * MAX_EVENTS)))

    assert len(trend.events) == MAX_EVENTS


def test_memory_of_events_that_were_told_is_bounded() -> None:
    many = [event("worker_lost", after_s=index) for index in range(MAX_SEEN + 10)]

    trend = told(pool(recent_events=many), pool(recent_events=many[-1:]))

    assert len(trend._seen) <= MAX_SEEN
    assert list(trend.events) == many[-MAX_EVENTS:]


def test_worker_that_was_replaced_while_the_broker_was_away_counts_as_restarted() -> None:
    trend = told(
        pool(worker("worker-0", pid=1), worker("worker-1", pid=2)),
        pool(worker("worker-0", pid=1), worker("worker-1", pid=9), broker=broker(epoch="second")),
    )

    assert trend.restarts == {"worker-1": 1}


def test_missing_workers_are_named_while_they_are_expected() -> None:
    trend = told(pool(), pool(worker("worker-0"), worker("worker-2")))

    assert trend.missing() == {"worker-1": 0.0}
    trend.on_stats(pool(worker("worker-0"), worker("worker-2"), expected_workers=2), 2.0, NOON)
    assert trend.missing() == {}


def test_worker_that_was_seen_last_is_missing_if_more_are_gone_than_expected() -> None:
    first, second, last = (
        pool(worker("worker-0"), worker("worker-1")),
        pool(worker("worker-0"), worker("worker-2")),
        pool(worker("worker-0"), expected_workers=2),
    )

    assert told(first, second, last).missing() == {"worker-2": 1.0}


def test_bars_have_a_gap_where_the_broker_was_not_heard() -> None:
    trend = told(pool(queue_depth=1))
    trend.on_stats(pool(queue_depth=7), 2 * SLOT_S, NOON)
    trend.on_stats(pool(queue_depth=5), 2 * SLOT_S + 0.5, NOON)

    assert trend.bars(lambda slot: slot.queue_depth, 4, 2 * SLOT_S + 0.6) == [None, 1, None, 7]
    assert trend.bars(Slot.throughput, 3, 2 * SLOT_S) == [None, None, 0.0]
