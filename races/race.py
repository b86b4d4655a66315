"""The normalised race, and the only way to make one from input: `RaceData.parse`.

A race comes as a normalised race or as an NZ TAB event response; each of them as a mapping or as JSON. A response in
JSON is read first without the form guides, which are most of it. If that fails, pydantic's compiled core parses all of
the text, and tries both shapes on it.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, TypeAlias

from pydantic import AfterValidator, Field, Tag, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from racepool.protocol.errors import InvalidRaceError
from racepool.races.event_response import EventResponse, response_in
from racepool.races.fields import Count, EpochSeconds, Identifier, Listed, RaceDate, StartTime, Status, Text, rule_text
from racepool.races.parts import Entrant, Meeting, MoneyTracker, Pools, RacePart, TotePool, with_distinct_ids

RaceInput: TypeAlias = "RaceData | Mapping[str, Any] | bytes | bytearray | memoryview | str"

_NORMALISED: Final = "normalised race"
_EVENT: Final = "NZ TAB event response"


class RaceData(RacePart):
    """One poll of one race, valid and normalised. The same race in two shapes gives two equal RaceData.

    Immutable. `RaceData.parse(race.model_dump_json())` and `RaceData.parse(race.model_dump())` give an equal race.

    Attributes:
        id: the race's id at the tote.
        name: its name.
        status: open, closed, interim, final or abandoned.
        race_date_nz: the day of the race in New Zealand, YYYY-MM-DD.
        start_time_nz: the local time of the start in New Zealand: HH:MM or HH:MM:SS, with or without NZST or NZDT.
        advertised_start: the instant of the start, in seconds since 1970 UTC. If it is None or 0, date and time count.
        race_number: the number of the race in its meeting.
        meeting_id: the id of the meeting.
        entrants: the horses. Their ids differ.
        pools: the win and place pools that the service keeps, in dollars.
        tote_pools: the pools as the tote reports them, in dollars.
        money_tracker: the shares of the bets on each entrant, in percent.
        meeting: the meeting that the race belongs to.
    """

    id: Identifier
    name: Text
    status: Status
    race_date_nz: RaceDate
    start_time_nz: StartTime
    advertised_start: EpochSeconds | None = None
    race_number: Count | None = None
    meeting_id: Text | None = None
    entrants: Annotated[Listed[Entrant], AfterValidator(with_distinct_ids)] = ()
    pools: Pools | None = None
    tote_pools: Listed[TotePool] = ()
    money_tracker: MoneyTracker | None = None
    meeting: Meeting | None = None

    @staticmethod
    def parse(race: RaceInput) -> "RaceData":
        """Validates a race, and normalises it.

        Args:
            race: a RaceData, which is returned as it is; or a mapping, or JSON as text or as UTF-8 bytes. A mapping or
                JSON has one of two shapes: the fields of RaceData, with keys in snake_case or camelCase; or the NZ
                TAB's response to a request for one event, with the race under `data`. Unknown keys are ignored.

        Returns:
            The race, normalised.

        Raises:
            InvalidRaceError: `race` is of another type; or is no JSON; or has neither shape; or a field breaks its
                rule. `errors` has each broken rule, with the path of the field in the input.

        Example:
            >>> RaceData.parse(await response.read()).status
            'open'
        """
        if isinstance(race, RaceData):
            return race
        try:
            shape = _validated(race)
        except ValidationError as error:
            raise InvalidRaceError(_broken_rules(error.errors(include_url=False, include_input=False))) from None
        return shape if isinstance(shape, RaceData) else RaceData.model_validate(shape.race())


_REQUIRED: Final = {(name,) for name, field in RaceData.model_fields.items() if field.is_required()}
# The response comes first. If a shape fails, pydantic keeps its input as Python objects, for the error; the input of a
# normalised race is small. A callable discriminator would get the whole input as Python objects each time.
_SHAPES: Final[TypeAdapter[RaceData | EventResponse]] = TypeAdapter(
    Annotated[
        Annotated[EventResponse, Tag(_EVENT)] | Annotated[RaceData, Tag(_NORMALISED)],
        Field(union_mode="left_to_right"),
    ]
)


def _validated(race: object) -> RaceData | EventResponse:
    match race:
        case str() | bytes() | bytearray():
            return response_in(race) or _SHAPES.validate_json(race)
        case memoryview():
            return _validated(race.tobytes())
        case Mapping():
            return _SHAPES.validate_python(race)
        case _:
            rule = f"must be a RaceData, a mapping, or JSON as bytes or str, but is a {type(race).__name__}"
            raise InvalidRaceError([("", rule)])


def _broken_rules(errors: Iterable[ErrorDetails]) -> list[tuple[str, str]]:
    """The errors of one shape, each with its path in the input. The top-level keys tell which shape is meant."""
    by_shape: dict[str, list[ErrorDetails]] = {}
    for error in errors:
        by_shape.setdefault(str(error["loc"][0]) if error["loc"] else "", []).append(error)
    if "" in by_shape:
        return [("", rule_text(error)) for error in by_shape[""]]
    if all(error["loc"] == (shape,) for shape, broken in by_shape.items() for error in broken):
        return [("", "must be a JSON object")]
    missing = {
        shape: {error["loc"][1:] for error in broken if error["type"] == "missing"}
        for shape, broken in by_shape.items()
    }
    if ("data",) in missing[_EVENT] and missing[_NORMALISED] >= _REQUIRED:
        return [("", "is neither a normalised race (id, name, status, ...) nor an NZ TAB event response (data)")]
    shape = _NORMALISED if ("data",) in missing[_EVENT] or not _REQUIRED & missing[_NORMALISED] else _EVENT
    return [(_path(error), rule_text(error)) for error in by_shape[shape]]


def _path(error: ErrorDetails) -> str:
    index = error.get("ctx", {}).get("index")
    return ".".join(map(str, (*error["loc"][1:], *(() if index is None else (index,)))))
