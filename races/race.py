"""The normalised race, and the only way to make one from input: `RaceData.parse`.

A race comes as a normalised race or as an NZ TAB event response; each of them as a mapping or as JSON. A response in
JSON is read first without the form guides, which are most of it. If that fails, pydantic's compiled core parses all of
the text, and tries both shapes on it.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Annotated, Any, Final, TypeAlias

from pydantic import AfterValidator, Field, Tag, TypeAdapter, ValidationError, model_validator
from pydantic_core import ErrorDetails, from_json

from racepool.protocol.errors import InvalidRaceError
from racepool.protocol.nesting import TooDeepError, are_stacks_small, check_json_nesting
from racepool.races.event_response import EventResponse, race_fields, read_response
from racepool.races.fields import (
    UNKNOWN_STATUS,
    Count,
    EpochSeconds,
    Identifier,
    Listed,
    LocalDate,
    LocalTime,
    Status,
    Text,
    rule_text,
)
from racepool.races.json_text import LIMIT_BYTES, body_fault, json_text
from racepool.races.parts import Dividend, Entrant, Meeting, MoneyTracker, Pools, RacePart, TotePool, completed
from racepool.races.plain_values import plain_copy
from racepool.races.start import with_local_start

RaceInput: TypeAlias = "RaceData | Mapping[str, Any] | bytes | bytearray | memoryview | str"

_NORMALISED: Final = "normalised race"
_EVENT: Final = "NZ TAB event response"
LONGEST_QUOTE: Final = 200  # characters of the tote's own words in an error


class RaceData(RacePart):
    """One poll of one race, valid and normalised. The same race in two shapes gives two equal RaceData.

    Immutable. `RaceData.parse(race.model_dump_json())` and `RaceData.parse(race.model_dump())` give an equal race.

    Attributes:
        id: the race's id at the tote.
        name: its name.
        status: as the tote tells it, in lower case: open, closed, interim, final, abandoned, live, or another text;
            `unknown` if it is not told.
        race_date_nz: the day of the race in New Zealand, YYYY-MM-DD. If it is not told, it is that of
            `advertised_start`.
        start_time_nz: the local time of the start in New Zealand: HH:MM or HH:MM:SS, with or without NZST or NZDT. If
            it is not told, it is that of `advertised_start`.
        advertised_start: the instant of the start, in seconds since 1970 UTC. If it is None or 0, `race_date_nz` and
            `start_time_nz` tell the start.
        race_number: the number of the race in its meeting.
        meeting_id: the id of the meeting.
        entrants: the horses. Their ids differ.
        pools: the win and place pools that the service keeps, in dollars.
        tote_pools: the pools as the tote reports them, in dollars.
        dividends: what the pools pay, with the sizes of the pools in dollars; a size counts if `pools` and `tote_pools`
            do not tell that pool.
        money_tracker: the shares of the bets on each entrant, in percent.
        meeting: the meeting that the race belongs to.
    """

    id: Identifier
    name: Text
    status: Status = UNKNOWN_STATUS
    race_date_nz: LocalDate
    start_time_nz: LocalTime
    advertised_start: EpochSeconds | None = None
    race_number: Count | None = None
    meeting_id: Text | None = None
    entrants: Annotated[Listed[Entrant], AfterValidator(completed)] = ()
    pools: Pools | None = None
    tote_pools: Listed[TotePool] = ()
    dividends: Listed[Dividend] = ()
    money_tracker: MoneyTracker | None = None
    meeting: Meeting | None = None

    _complete = model_validator(mode="after")(with_local_start)

    @staticmethod
    def parse(race: RaceInput, *, limit_bytes: int = LIMIT_BYTES) -> "RaceData":
        """Validates a race, and normalises it.

        Args:
            race: a RaceData, which is returned as it is; or a mapping, or JSON as text or as UTF-8 bytes. Bytes may
                be a gzip file of the text, and a byte order mark is skipped. A mapping or JSON has one of two shapes:
                the fields of RaceData, with keys in snake_case or camelCase; or the NZ TAB's response to a request
                for one event, with the race under `data`. Unknown keys are ignored. A mapping may also hold
                Decimals, numbers of numpy, UUIDs, dates, times and Enums; each counts as its number or text.
            limit_bytes: how many bytes the text of a gzip file may have when it is unpacked; 16 MiB by default.

        Returns:
            The race, normalised.

        Raises:
            InvalidRaceError: `race` is of another type; or is no JSON in UTF-8; or is a gzip file that is broken, or
                larger than `limit_bytes` when it is unpacked; or has neither shape; or has a field that breaks its
                rule; or is an answer of the tote with an error instead of a race. `errors` has each broken rule, with
                the path of the field in the input.

        Example:
            >>> RaceData.parse(await response.read()).status
            'open'
        """
        return valid_race(plain_copy(race) if isinstance(race, Mapping) else race, limit_bytes)


def valid_race(race: RaceInput, limit_bytes: int = LIMIT_BYTES) -> RaceData:
    """As `RaceData.parse`, but a mapping must have values of JSON alone, as one has that was packed."""
    if isinstance(race, RaceData):
        return race
    text = _text_of(race, limit_bytes)
    try:
        if not isinstance(text, Mapping) and are_stacks_small():
            check_json_nesting(text)
        shape = _validated(text)
    except TooDeepError as error:
        raise InvalidRaceError([("", str(error))]) from None
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        broken = _nesting_fault(text) or _tote_error(text) or _body_fault(text) or _broken_rules(details)
        raise InvalidRaceError(broken) from None
    return shape if isinstance(shape, RaceData) else RaceData.model_validate(race_fields(shape))


_REQUIRED: Final = {(name,) for name, field in RaceData.model_fields.items() if field.is_required()}
# The response comes first. If a shape fails, pydantic keeps its input as Python objects, for the error; the input of a
# normalised race is small. A callable discriminator would get the whole input as Python objects each time.
_SHAPES: Final[TypeAdapter[RaceData | EventResponse]] = TypeAdapter(
    Annotated[
        Annotated[EventResponse, Tag(_EVENT)] | Annotated[RaceData, Tag(_NORMALISED)],
        Field(union_mode="left_to_right"),
    ]
)


def _text_of(race: object, limit_bytes: int) -> str | bytes | Mapping[str, Any]:
    match race:
        case str():
            return race.removeprefix("\ufeff")
        case bytes() | bytearray() | memoryview():
            return json_text(bytes(race), limit_bytes)
        case Mapping():
            return race
        case _:
            rule = f"must be a RaceData, a mapping, or JSON as bytes or str, but is a {type(race).__name__}"
            raise InvalidRaceError([("", rule)])


def _validated(race: str | bytes | Mapping[str, Any]) -> RaceData | EventResponse:
    with suppress(ValidationError):  # then the validation of both shapes tells the errors
        if isinstance(race, Mapping):
            if "data" not in race:
                return RaceData.model_validate(race)
        else:
            may_be_response, fields = read_response(race)
            if fields is not None:
                return RaceData.model_validate(fields)
            if not may_be_response:
                return RaceData.model_validate_json(race)
    return _SHAPES.validate_python(race) if isinstance(race, Mapping) else _SHAPES.validate_json(race)


def _tote_error(race: str | bytes | Mapping[str, Any]) -> list[tuple[str, str]]:
    """The words of the tote, where it answers with an error instead of a race."""
    try:
        answer = race if isinstance(race, Mapping) else from_json(race)
        header, data = (answer.get(key) if isinstance(answer, Mapping) else None for key in ("header", "data"))
        if isinstance(data, Mapping) and data.get("race") is not None:
            return []  # there is a race, so its own faults are told
        told = {"header.error": header, "data.error": data}
        return [
            (path, f"the tote sent an error instead of a race: {str(part['error'])[:LONGEST_QUOTE]!r}")
            for path, part in told.items()
            if isinstance(part, Mapping) and part.get("error")
        ]
    except (TypeError, ValueError):  # no JSON, or a lone surrogate
        return []


def _nesting_fault(race: str | bytes | Mapping[str, Any]) -> list[tuple[str, str]]:
    try:
        if not isinstance(race, Mapping):
            check_json_nesting(race)
    except TooDeepError as error:
        return [("", str(error))]
    return []


def _body_fault(race: str | bytes | Mapping[str, Any]) -> list[tuple[str, str]]:
    fault = None if isinstance(race, Mapping) else body_fault(race)
    return [("", fault)] if fault else []


def _broken_rules(errors: Iterable[ErrorDetails]) -> list[tuple[str, str]]:
    """The errors of one shape, each with its path in the input. The top-level keys tell which shape is meant."""
    by_shape: dict[str, list[ErrorDetails]] = {}
    for error in errors:
        by_shape.setdefault(str(error["loc"][0]) if error["loc"] else "", []).append(error)
    if "" in by_shape:
        return [("", rule_text(error)) for error in by_shape[""]]
    if all(
        error["loc"] == (shape,) and error["type"] == "model_type"
        for shape, broken in by_shape.items()
        for error in broken
    ):
        return [("", "must be a JSON object")]
    missing = {
        shape: {error["loc"][1:] for error in broken if error["type"] == "missing"}
        for shape, broken in by_shape.items()
    }
    is_no_event, is_no_race = ("data",) in missing[_EVENT], missing[_NORMALISED] >= _REQUIRED
    if is_no_event and is_no_race:
        return [("", "is neither a normalised race (id, name, status, ...) nor an NZ TAB event response (data)")]
    shape = _NORMALISED if is_no_event or not _REQUIRED & missing[_NORMALISED] else _EVENT
    return [(_path(error), rule_text(error)) for error in by_shape[shape]]


def _path(error: ErrorDetails) -> str:
    """The path of a field. A rule about several fields or entrants says by `at` where it is broken."""
    at = error.get("ctx", {}).get("at")
    return ".".join(map(str, (*error["loc"][1:], *(() if at is None else (at,)))))
