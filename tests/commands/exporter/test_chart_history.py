from itertools import pairwise

from racepool.commands.exporter.chart_history import COLUMNS, POINTS, ChartHistory
from tests.commands.exporter.building import distribution, pool_stats, worker


def test_rate_is_that_of_the_last_seconds() -> None:
    history = ChartHistory()

    points = [
        history.record(
            float(second), pool_stats(counters={"completed": 10 * second, "failed": second, "timed_out": second})
        )
        for second in range(20)
    ]

    assert points[0].completed_per_s is None
    assert [(point.completed_per_s, point.unsuccessful_per_s) for point in points[1:]] == [(10.0, 2.0)] * 19


def test_burst_is_over_after_five_seconds() -> None:
    history = ChartHistory()
    done = [0, 100, *[100] * 8]

    rates = [
        history.record(float(at), pool_stats(counters={"completed": done[at]})).completed_per_s for at in range(10)
    ]

    assert rates[1] == 100.0
    assert [rate for rate in rates if rate == 0] == rates[6:]
    assert all(earlier >= later for earlier, later in pairwise(rate for rate in rates[1:] if rate is not None))


def test_another_brokers_counters_are_not_compared() -> None:
    history = ChartHistory()
    history.record(1.0, pool_stats(counters={"completed": 500}))

    first = history.record(2.0, pool_stats(counters={"completed": 3}, broker={"epoch": "bb"}))
    second = history.record(3.0, pool_stats(counters={"completed": 7}, broker={"epoch": "bb"}))

    assert first.completed_per_s is None
    assert second.completed_per_s == 4.0


def test_moment_without_a_broker_is_a_point_without_figures() -> None:
    history = ChartHistory()
    history.record(1.0, pool_stats())

    away = history.record(2.0, None)
    back = history.record(3.0, pool_stats())

    assert (away.at, away.ready_workers, away.queue_depth) == (2.0, None, None)
    assert (back.ready_workers, back.completed_per_s) == (3, None)
    assert history.columns()["ready_workers"] == [3, None, 3]


def test_memory_is_unknown_while_that_of_one_worker_is() -> None:
    history = ChartHistory()

    known = history.record(1.0, pool_stats(workers=[worker("a"), worker("b")]))
    unknown = history.record(2.0, pool_stats(workers=[worker("a"), worker("b", rss_bytes=None)]))

    assert (known.workers_bytes, unknown.workers_bytes) == (2_000, None)


def test_clock_that_is_set_back_makes_no_negative_rate() -> None:
    history = ChartHistory()
    history.record(100.0, pool_stats(counters={"completed": 5}))

    assert history.record(50.0, pool_stats(counters={"completed": 9})).completed_per_s is None
    assert history.record(51.0, pool_stats(counters={"completed": 11})).completed_per_s == 2.0


def test_past_is_bounded_and_its_oldest_point_goes_first() -> None:
    history = ChartHistory()

    for second in range(POINTS + 5):
        history.record(float(second), None)

    columns = history.columns()
    assert set(columns) == set(COLUMNS)
    assert {len(column) for column in columns.values()} == {POINTS}
    assert columns["at"][0] == 5.0


def test_columns_of_no_points_are_there() -> None:
    assert ChartHistory().columns() == {name: [] for name in COLUMNS}


def test_percentiles_are_of_the_last_seconds() -> None:
    history = ChartHistory()
    history.record(1.0, pool_stats(run_ms=distribution(90, 0, 0, 0)))

    point = history.record(2.0, pool_stats(run_ms=distribution(90, 10, 0, 0)))

    assert (point.run_p50_ms, point.run_p99_ms) == (5.5, 9.91)
    assert (point.wait_p50_ms, point.wait_p99_ms) == (None, None)
