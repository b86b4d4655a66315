"""The time of a poll: the instant of the start, the minutes from the poll to it, and their bucket. Reads no clock."""

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
_BUCKETS: Final = (  # lower bounds in minutes, from -5; a contract with the table into which the records go
    *(half_minutes / 2 for half_minutes in range(-10, 0)),
    *(float(minutes) for minutes in (0, 1, 2, 3, 4, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60)),
)


class PollTime(NamedTuple):
    """How far a poll is from the start. The fields of a MoneyFlowRecord of the same names explain each."""

    time_to_start: float  # minutes, to 3 decimals; negative after the start
    time_interval: float  # minutes
    interval_type: IntervalType


def start_instant(race: RaceData) -> datetime:
    """The instant at which the race should start, UTC.

    `advertised_start` if it is given. In the NZ TAB's responses, 0 means that it is not given. Then the local date and
    time count, in the zone of the time's suffix (NZST, NZDT) or else in Pacific/Auckland. When clocks are set back, a
    local time comes twice: then the first instant counts. When they are set forward, a local time does not exist: it
    counts as if the clocks had not been set yet.
    """
    if race.advertised_start:
        return datetime.fromtimestamp(race.advertised_start, UTC)
    clock = race.start_time_nz.removesuffix("NZST").removesuffix("NZDT").rstrip()
    zone = _ZONES_OF_SUFFIXES.get(race.start_time_nz[-4:], _AUCKLAND)
    return datetime.fromisoformat(f"{race.race_date_nz}T{clock}").replace(tzinfo=zone).astimezone(UTC)


def poll_time(start: datetime, polled_at: datetime) -> PollTime:
    """How far the poll is from the start.

    The minutes are rounded to 3 decimals first, and both bucket and type follow from the rounded number.
    """
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
