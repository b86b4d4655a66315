"""The head of a captured poll: its race, and when it was made. Pure; the worker reads the rest."""

import re
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from pydantic import BaseModel, ValidationError

from racepool.protocol.errors import InvalidRaceError
from racepool.races.fields import Identifier, rule_text

_INSTANT = re.compile(r"(?<!\d)\d{4}-?\d{2}-?\d{2}T\d{2}[:-]?\d{2}[:-]?\d{2}(?:[.,]\d+)?(?:Z|[+-]\d{2}:?\d{2})(?!\d)")
_DATE_AND_TIME = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})T(\d{2})[:-]?(\d{2})[:-]?(\d{2})(.*)")
_NEITHER = "is neither an NZ TAB event response (data.race.event_id) nor a normalised race (id)"


class Head(NamedTuple):
    """The facts that give a poll its place in the day."""

    race_id: str
    race_number: int | None
    generated_at: datetime | None  # from the response; None without one, or without a time zone


class _ResponseRace(msgspec.Struct):
    event_id: Annotated[str, msgspec.Meta(min_length=1)]
    race_number: Any = None


class _ResponseData(msgspec.Struct):
    race: _ResponseRace


class _Response(msgspec.Struct):
    """A response. As in `RaceData.parse`, msgspec skips all other fields without checking them."""

    data: _ResponseData
    header: Any = None


_response: Final = msgspec.json.Decoder(_Response)


class _Race(BaseModel):
    event_id: Identifier
    race_number: Any = None


class _Data(BaseModel):
    race: _Race


class _Captured(BaseModel):
    """A poll of either shape. Other fields are not turned into Python objects."""

    header: Any = None
    data: _Data | None = None
    id: Identifier | None = None
    race_number: Any = None


def head_of(body: bytes) -> Head:
    """Reads the head of a poll, an NZ TAB event response or a normalised race.

    Raises:
        InvalidRaceError: the body is no JSON, or has neither shape.
    """
    with suppress(ValueError, RecursionError):  # pydantic has the better error texts
        response = _response.decode(body)
        found = response.data.race
        return Head(found.event_id, _whole(found.race_number), _generated_at(response.header))
    try:
        captured = _Captured.model_validate_json(body)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        raise InvalidRaceError([(".".join(map(str, each["loc"])), rule_text(each)) for each in details]) from None
    if captured.data is not None:
        race = captured.data.race
        return Head(race.event_id, _whole(race.race_number), _generated_at(captured.header))
    if captured.id is None:
        raise InvalidRaceError([("", _NEITHER)])
    return Head(captured.id, _whole(captured.race_number), _generated_at(captured.header))


def instant_in(name: str) -> datetime | None:
    """The first instant with a time zone in a file's name, such as 20250717T001500Z or 2025-07-17T12-15-00+1200."""
    found = _INSTANT.search(name)
    if found is None:
        return None
    try:
        return datetime.fromisoformat(_DATE_AND_TIME.sub(r"\1-\2-\3T\4:\5:\6\7", found[0]))
    except ValueError:
        return None


def _generated_at(header: Any) -> datetime | None:  # noqa: ANN401  # any JSON value
    text = header.get("generated_time") if isinstance(header, dict) else None
    try:
        instant = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return instant if instant is not None and instant.utcoffset() is not None else None


def _whole(number: object) -> int | None:
    return number if isinstance(number, int) and not isinstance(number, bool) else None
