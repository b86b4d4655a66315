"""The start of a race, from what a poll tells of it: an instant, or a local date and time. Reads no clock."""

from datetime import UTC, datetime, timedelta, timezone
from functools import cache, lru_cache
from typing import Final, Protocol, TypeVar
from zoneinfo import ZoneInfo

from pydantic_core import PydanticCustomError

_ZONES_OF_SUFFIXES: Final = {"NZST": timezone(timedelta(hours=12)), "NZDT": timezone(timedelta(hours=13))}


@cache
def _auckland() -> ZoneInfo:
    """Loaded at its first use: `racepool doctor` must be able to start without a zone database, and tell that."""
    return ZoneInfo("Pacific/Auckland")


class _Started(Protocol):
    @property
    def race_date_nz(self) -> str | None: ...
    @property
    def start_time_nz(self) -> str | None: ...
    @property
    def advertised_start(self) -> int | None: ...


S = TypeVar("S", bound=_Started)


def with_local_start(race: S) -> S:
    """The same race; a local date or time that is not told is derived from `advertised_start`.

    A derived time is `HH:MM:SS NZST` or `HH:MM:SS NZDT`.
    """
    if race.race_date_nz is not None and race.start_time_nz is not None:
        return race
    missing = [name for name in ("race_date_nz", "start_time_nz") if getattr(race, name) is None]
    if not race.advertised_start:
        if len(missing) == 1:
            raise PydanticCustomError("no_start", "is required, for advertised_start is not given", {"at": missing[0]})
        rule = "is required, or both race_date_nz and start_time_nz"
        raise PydanticCustomError("no_start", rule, {"at": "advertised_start"})
    try:
        local = datetime.fromtimestamp(race.advertised_start, UTC).astimezone(_auckland())
    except OverflowError:
        raise PydanticCustomError(
            "no_start", "is beyond the calendar in New Zealand", {"at": "advertised_start"}
        ) from None
    derived = {"race_date_nz": f"{local:%Y-%m-%d}", "start_time_nz": f"{local:%H:%M:%S %Z}"}
    vars(race).update((name, derived[name]) for name in missing)  # frozen for its users, but not complete yet
    return race


def start_instant(race: _Started) -> datetime:
    """The instant at which the race should start, UTC.

    `advertised_start` if it is given. In the NZ TAB's responses, 0 means that it is not given. Then the local date and
    time count, in the zone of the time's suffix (NZST, NZDT) or else in Pacific/Auckland. When clocks are set back, a
    local time comes twice: then the first instant counts. When they are set forward, a local time does not exist: it
    counts as if the clocks had not been set yet.
    """
    if race.advertised_start:
        return datetime.fromtimestamp(race.advertised_start, UTC)
    time = race.start_time_nz or ""
    # without the spaces before the suffix, of which there may be millions: the cache would keep them
    return _local_instant(race.race_date_nz, time[:8].rstrip(" NZSTD"), time[-4:])


@lru_cache(maxsize=1024)  # each poll of a race tells the same
def _local_instant(day: str | None, clock: str, suffix: str) -> datetime:
    zone = _ZONES_OF_SUFFIXES.get(suffix) or _auckland()
    return datetime.fromisoformat(f"{day}T{clock}").replace(tzinfo=zone).astimezone(UTC)
