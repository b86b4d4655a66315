"""The NZ TAB's response to a request for one event: the part of it that a normalised race needs.

Most of a response is form guides, which nobody needs here. pydantic parses all of a JSON text before it looks at the
keys. So msgspec reads the JSON: it skips unknown keys and makes no objects from them. Its result has the same
attributes as an EventResponse, and the fields are validated as those of RaceData. If a rule is broken, the whole text
is validated as an EventResponse, so that the error has the path in the response.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final

import msgspec
from pydantic import AfterValidator, BaseModel, model_validator

from racepool.races.fields import (
    UNKNOWN_STATUS,
    Barrier,
    Count,
    EpochSeconds,
    Flag,
    Identifier,
    Listed,
    Number,
    RaceDate,
    RunnerNumber,
    StartTime,
    Status,
    Text,
)
from racepool.races.parts import Dividend, MoneyTracker, TotePool, with_distinct_ids
from racepool.races.start import with_local_start


class _EventPart(BaseModel):
    """Read once and then dropped, so not frozen. Unknown keys are ignored."""


class _Odds(_EventPart):
    fixed_win: Number | None = None
    fixed_place: Number | None = None
    pool_win: Number | None = None
    pool_place: Number | None = None


class _Runner(_EventPart):
    entrant_id: Identifier
    runner_number: RunnerNumber
    name: Text | None = None
    barrier: Barrier = None
    barrier_position: Barrier = None
    is_scratched: Flag | None = None
    is_late_scratched: Flag | None = None
    jockey: Text | None = None
    trainer_name: Text | None = None
    silk_colours: Text | None = None
    favourite: Flag | None = None
    mover: Flag | None = None
    odds: _Odds | None = None


class _EventRace(_EventPart):
    event_id: Identifier
    description: Text
    status: Status = UNKNOWN_STATUS
    race_date_nz: RaceDate | None = None
    start_time_nz: StartTime | None = None
    advertised_start: EpochSeconds | None = None
    race_number: Count | None = None
    meeting_id: Text | None = None
    meeting_name: Text | None = None
    country: Text | None = None
    type: Text | None = None
    track_condition: Text | None = None

    _complete = model_validator(mode="after")(with_local_start)


class _EventData(_EventPart):
    race: _EventRace
    runners: Annotated[Listed[_Runner], AfterValidator(with_distinct_ids)] = ()
    entrants: Annotated[Listed[_Runner], AfterValidator(with_distinct_ids)] = ()
    money_tracker: MoneyTracker | None = None
    tote_pools: Listed[TotePool] = ()
    dividends: Listed[Dividend] = ()


class EventResponse(_EventPart):
    """The whole response. The race is under its key `data`."""

    data: _EventData


_NO_ODDS: Final = _Odds()


def race_fields(response: EventResponse) -> dict[str, Any]:
    """The fields of RaceData. pydantic makes models of this mapping faster than we can make them one by one."""
    data, race = response.data, response.data.race
    return {
        "id": race.event_id,
        "name": race.description,
        "status": race.status,
        "race_date_nz": race.race_date_nz,
        "start_time_nz": race.start_time_nz,
        "advertised_start": race.advertised_start,
        "race_number": race.race_number,
        "meeting_id": race.meeting_id,
        "entrants": [_entrant_fields(runner) for runner in data.runners or data.entrants or ()],
        "tote_pools": data.tote_pools,
        "dividends": data.dividends,
        "money_tracker": data.money_tracker,
        "meeting": _meeting_fields(race),
    }


def _entrant_fields(runner: _Runner) -> dict[str, Any]:
    odds = runner.odds or _NO_ODDS
    return {
        "entrant_id": runner.entrant_id,
        "runner_number": runner.runner_number,
        "name": runner.name,
        "barrier": runner.barrier,
        "barrier_position": runner.barrier_position,
        "is_scratched": runner.is_scratched,
        "is_late_scratched": runner.is_late_scratched,
        "fixed_win_odds": odds.fixed_win,
        "fixed_place_odds": odds.fixed_place,
        "pool_win_odds": odds.pool_win,
        "pool_place_odds": odds.pool_place,
        "jockey": runner.jockey,
        "trainer_name": runner.trainer_name,
        "silk_colours": runner.silk_colours,
        "favourite": runner.favourite,
        "mover": runner.mover,
    }


def _meeting_fields(race: _EventRace) -> dict[str, Any] | None:
    if race.meeting_id is None and race.meeting_name is None:
        return None
    return {
        "meeting_id": race.meeting_id,
        "name": race.meeting_name,
        "date": race.race_date_nz,
        "country": race.country,
        "category": race.type,
        "track_condition": race.track_condition,
    }


def read_response(text: bytes | str) -> tuple[bool, dict[str, Any] | None]:
    """Reads JSON without its form guides.

    Bytes that are not UTF-8 are not noticed in a part that is skipped.

    Returns:
        Whether the text may be a response; and its `race_fields`, not validated yet. They are None if the text is no
        response or is broken, or if a missing field can be derived only with the whole EventResponse.
    """
    try:
        response = _decoder.decode(text)
    except (ValueError, RecursionError):
        return True, None
    data = response.data
    if data is None:
        return False, None
    race = data.race
    is_whole = race and race.race_date_nz and race.start_time_nz and race.meeting_id  # nothing to derive
    is_usual = is_whole and not (data.runners and data.entrants)
    return True, race_fields(response) if is_usual else None


def _keys(model: type[BaseModel], nested: Mapping[str, Any] = MappingProxyType({})) -> Any:  # noqa: ANN401  # a class
    """A msgspec class with the keys of a model. A missing key becomes None, which means the same in these models."""
    return msgspec.defstruct(model.__name__, [(name, nested.get(name, Any), None) for name in model.model_fields])


def _all_keys() -> Any:  # noqa: ANN401  # a class
    runners = list[_keys(_Runner, {"odds": _keys(_Odds) | None})] | None  # type: ignore[valid-type, misc]  # made at run time
    data = _keys(_EventData, {"race": _keys(_EventRace) | None, "runners": runners, "entrants": runners})
    return _keys(EventResponse, {"data": data | None})


_decoder: Final = msgspec.json.Decoder(_all_keys())
