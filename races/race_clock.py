"""The time of a poll: the minutes to the start, and their bucket. Reads no clock."""

from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from math import inf, trunc
from typing import Final, NamedTuple

from racepool.protocol.errors import InvalidRaceError
from racepool.races.transformed_race import IntervalType

_MINUTE: Final = timedelta(minutes=1)
_BUCKETS: Final = (  # lower bounds in minutes, from -5; a contract with the table into which the records go
    *(half_minutes / 2 for half_minutes in range(-10, 0)),
    *(float(minutes) for minutes in (0, 1, 2, 3, 4, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60)),
)


class PollTime(NamedTuple):
    """How far a poll is from the start. The fields of a MoneyFlowRecord of the same names explain each."""

    time_to_start: float  # minutes, to 3 decimals; negative after the start
    time_interval: float  # minutes
    interval_type: IntervalType


def poll_instant(polled_at: object) -> datetime:
    """The instant of a poll in UTC, from what a caller gave as `polled_at`.

    Raises:
        InvalidRaceError: it is no datetime, has no time zone, or is not between the years 1 and 9999 in UTC.
    """
    if not isinstance(polled_at, datetime) or polled_at.utcoffset() is None:
        raise InvalidRaceError([("polled_at", "must be a timezone-aware datetime, such as datetime.now(UTC)")])
    try:
        return polled_at.astimezone(UTC)
    except OverflowError:
        raise InvalidRaceError([("polled_at", "must lie between the years 1 and 9999 in UTC")]) from None


def poll_time(start: datetime, polled_at: datetime) -> PollTime:
    """How far the poll is from the start.

    The minutes are rounded to 3 decimals first, and both bucket and type follow from the rounded number.
    """
    minutes = round((start - polled_at) / _MINUTE, 3) + 0.0  # -0.0 + 0.0 is 0.0
    return PollTime(minutes, _bucket(minutes), _interval_type(minutes))


def bucket_bounds(time_interval: float) -> tuple[float, float]:
    """The least and the most minutes to the start that this bucket holds; infinity for the bucket of all earlier polls.

    Two buckets that follow each other have one bound in common, so that there is no room between them.
    """
    if time_interval < _BUCKETS[0]:
        return time_interval - 1, time_interval
    least = time_interval if time_interval > _BUCKETS[0] else trunc(_BUCKETS[0]) - 1.0
    later = bisect_right(_BUCKETS, time_interval)
    return least, _BUCKETS[later] if later < len(_BUCKETS) else inf


def _bucket(minutes: float) -> float:
    return _BUCKETS[bisect_right(_BUCKETS, minutes) - 1] if minutes >= _BUCKETS[0] else float(trunc(minutes))


def _interval_type(minutes: float) -> IntervalType:
    if minutes > 30:
        return "5m"
    if minutes > 5:
        return "2m"
    return "30s" if minutes > 0 else "live"
