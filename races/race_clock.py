"""Where a poll stands in time: the start instant, the minutes to it and their bucket. Is given every instant."""

from bisect import bisect_right
from datetime import UTC, datetime, timedelta, timezone
from math import trunc
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from racepool.races.race import RaceData
from racepool.races.transformed_race import IntervalType

_AUCKLAND: Final = ZoneInfo("Pacific/Auckland")
_ZONES_OF_SUFFIXES: Final = {"NZST": timezone(timedelta(hours=12)), "NZDT": timezone(timedelta(hours=13))}
_MINUTE: Final = timedelta(minutes=1)
_BUCKETS: Final = (
    *(half_minutes / 2 for half_minutes in range(-10, 0)),
    *(float(minutes) for minutes in (0, 1, 2, 3, 4, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60)),
)


class PollTime(NamedTuple):
    """Minutes from the poll to the start, their bucket and its kind."""

    time_to_start: float
    time_interval: float
    interval_type: IntervalType


def start_instant(race: RaceData) -> datetime:
    """The instant at which the race is to start, UTC.

    `advertised_start` when given; 0 is how the NZ TAB's responses say "not given". Of a local time that a switch of
    daylight saving time repeats, the first counts; one that it skips counts as if the switch had not been yet.
    """
    if race.advertised_start:
        return datetime.fromtimestamp(race.advertised_start, UTC)
    clock = race.start_time_nz.removesuffix("NZST").removesuffix("NZDT").rstrip()
    zone = _ZONES_OF_SUFFIXES.get(race.start_time_nz[-4:], _AUCKLAND)
    return datetime.fromisoformat(f"{race.race_date_nz}T{clock}").replace(tzinfo=zone).astimezone(UTC)


def poll_time(start: datetime, polled_at: datetime) -> PollTime:
    """Where the poll stands before or after the start."""
    minutes = round((start - polled_at) / _MINUTE, 3) + 0.0  # -0.0 + 0.0 is 0.0
    return PollTime(minutes, _bucket(minutes), _interval_type(minutes))


def _bucket(minutes: float) -> float:
    return _BUCKETS[bisect_right(_BUCKETS, minutes) - 1] if minutes >= _BUCKETS[0] else float(trunc(minutes))


def _interval_type(minutes: float) -> IntervalType:
    if minutes > 30:
        return "5m"
    if minutes > 5:
        return "2m"
    return "30s" if minutes > 0 else "live"
