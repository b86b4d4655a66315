from datetime import UTC, datetime, timedelta
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from racepool.races.race import RaceData
from racepool.races.race_clock import bucket_bounds, poll_time
from racepool.races.start import start_instant

START = datetime(2025, 7, 17, 0, 50, tzinfo=UTC)


def race(day: str = "2025-07-17", time: str = "12:50", advertised_start: int | None = None) -> RaceData:
    fields = {"id": "r1", "name": "Cup", "status": "open", "race_date_nz": day, "start_time_nz": time}
    return RaceData.parse({**fields, "advertised_start": advertised_start})


@pytest.mark.parametrize(
    ("day", "time", "start"),
    [
        ("2025-07-17", "12:50", "2025-07-17T00:50:00+00:00"),  # winter, UTC+12
        ("2025-07-17", "12:50:30 NZST", "2025-07-17T00:50:30+00:00"),
        ("2025-07-17", "12:50 NZDT", "2025-07-16T23:50:00+00:00"),  # the suffix counts, though it is winter
        ("2025-01-17", "12:50", "2025-01-16T23:50:00+00:00"),  # summer, UTC+13
        ("2025-01-17", "12:50NZDT", "2025-01-16T23:50:00+00:00"),
        ("2025-01-17", "12:50 NZST", "2025-01-17T00:50:00+00:00"),
        ("2025-09-28", "01:59", "2025-09-27T13:59:00+00:00"),  # the day on which summer time begins at 2:00
        ("2025-09-28", "02:30", "2025-09-27T14:30:00+00:00"),  # skipped
        ("2025-09-28", "03:00", "2025-09-27T14:00:00+00:00"),
        ("2025-04-06", "01:59", "2025-04-05T12:59:00+00:00"),  # the day on which it ends at 3:00
        ("2025-04-06", "02:30", "2025-04-05T13:30:00+00:00"),  # repeated; the first
        ("2025-04-06", "02:30 NZST", "2025-04-05T14:30:00+00:00"),
        ("2025-04-06", "03:00", "2025-04-05T15:00:00+00:00"),
        ("1900-01-01", "00:00", "1899-12-31T12:30:00+00:00"),
        ("9999-12-31", "23:59:59", "9999-12-31T10:59:59+00:00"),
    ],
)
def test_start_is_the_race_date_and_start_time_in_new_zealand(day: str, time: str, start: str) -> None:
    assert start_instant(race(day, time)).isoformat() == start


def test_advertised_start_goes_before_date_and_time() -> None:
    assert start_instant(race("2020-01-01", "01:00", 1752713400)) == START


def test_advertised_start_of_zero_is_none() -> None:
    assert start_instant(race(advertised_start=0)) == START


@pytest.mark.parametrize(
    ("minutes", "bucket", "interval_type"),
    [
        *[(65, 60, "5m"), (60, 60, "5m"), (59.999, 55, "5m"), (57, 55, "5m"), (30.001, 30, "5m"), (30, 30, "2m")],
        *[(12, 10, "2m"), (10, 10, "2m"), (9.999, 5, "2m"), (5.001, 5, "2m"), (5, 5, "30s"), (3.5, 3, "30s")],
        *[(1, 1, "30s"), (0.5, 0, "30s"), (0.001, 0, "30s"), (0, 0, "live"), (-0.001, -0.5, "live")],
        *[(-0.3, -0.5, "live"), (-0.5, -0.5, "live"), (-0.8, -1, "live"), (-2.2, -2.5, "live"), (-4.7, -5, "live")],
        *[(-5, -5, "live"), (-5.5, -5, "live"), (-6.1, -6, "live"), (-10, -10, "live"), (600, 60, "5m")],
    ],
)
def test_bucket_and_type_follow_from_the_minutes(minutes: float, bucket: float, interval_type: str) -> None:
    assert poll_time(START, START - timedelta(minutes=minutes)) == (minutes, bucket, interval_type)


@pytest.mark.parametrize(
    ("seconds_to_start", "minutes", "bucket", "interval_type"),
    [
        (0.029, 0.0, 0.0, "live"),
        (0.031, 0.001, 0.0, "30s"),
        (300.02, 5.0, 5.0, "30s"),
        (1800.029, 30.0, 30.0, "2m"),
        (59.971, 1.0, 1.0, "30s"),
        (20.0, 0.333, 0.0, "30s"),
    ],
)
def test_minutes_are_rounded_to_three_decimals_first(
    seconds_to_start: float, minutes: float, bucket: float, interval_type: str
) -> None:
    assert poll_time(START, START - timedelta(seconds=seconds_to_start)) == (minutes, bucket, interval_type)


def test_minutes_just_below_zero_are_zero_without_a_sign() -> None:
    time = poll_time(START, START + timedelta(microseconds=1))

    assert repr(time.time_to_start) == "0.0"
    assert (time.time_interval, time.interval_type) == (0, "live")


@given(st.integers(-120_000, 120_000))
def test_bucket_is_the_largest_of_the_list_that_is_not_above_the_minutes(thousandths: int) -> None:
    ladder = [60, 55, 50, 45, 40, 35, 30, 25, 20, 15, 10, 5, 4, 3, 2, 1, 0]
    ladder_and_halves = [*map(float, ladder), *(-half / 2 for half in range(1, 11))]

    time = poll_time(START, START - timedelta(milliseconds=60 * thousandths))

    assert time.time_to_start == thousandths / 1000
    if thousandths >= -5000:
        assert time.time_interval == max(bucket for bucket in ladder_and_halves if bucket * 1000 <= thousandths)
    else:
        assert time.time_interval == -(-thousandths // 1000)


@pytest.mark.parametrize(
    ("bucket", "bounds"),
    [
        (60, (60, inf)), (55, (55, 60)), (10, (10, 15)), (5, (5, 10)), (4, (4, 5)), (0, (0, 1)), (-0.5, (-0.5, 0)),
        (-4.5, (-4.5, -4)), (-5, (-6, -4.5)), (-6, (-7, -6)), (-60, (-61, -60)),
    ],
)  # fmt: skip
def test_bucket_reaches_to_the_next_one(bucket: float, bounds: tuple[float, float]) -> None:
    assert bucket_bounds(bucket) == bounds


@given(minutes=st.integers(-100_000, 200_000).map(lambda thousandths: thousandths / 1_000))
def test_every_minute_is_within_the_bounds_of_its_bucket(minutes: float) -> None:
    least, most = bucket_bounds(poll_time(START, START - timedelta(minutes=minutes)).time_interval)

    assert least <= minutes <= most
