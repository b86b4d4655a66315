"""The race as every program sees it, and the one way in: `RaceData.parse`.

A race comes as a normalised race or as an NZ TAB event response, as a mapping or as JSON. A response is read without
the form guides that fill most of it; what is no valid one is left to pydantic's compiled core, which tries both shapes
on the same parsed text.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, TypeAlias

from pydantic import AfterValidator, Field, Tag, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from racepool.protocol.errors import InvalidRaceError
from racepool.races.event_response import EventResponse, response_in
from racepool.races.fields import Count, EpochSeconds, Identifier, Listed, RaceDate, StartTime, Status, Text, told
from racepool.races.parts import Entrant, Meeting, MoneyTracker, Pools, RacePart, TotePool, distinct

RaceInput: TypeAlias = "RaceData | Mapping[str, Any] | bytes | bytearray | memoryview | str"

_NORMALISED: Final = "normalised race"
_EVENT: Final = "NZ TAB event response"


class RaceData(RacePart):
    """One poll of one race, valid and normalised; the same race is equal however it came in.

    `RaceData.parse(race.model_dump_json())` and `RaceData.parse(race.model_dump())` give the race back.
    """

    id: Identifier
    name: Text
    status: Status
    race_date_nz: RaceDate
    start_time_nz: StartTime
    advertised_start: EpochSeconds | None = None
    race_number: Count | None = None
    meeting_id: Text | None = None
    entrants: Annotated[Listed[Entrant], AfterValidator(distinct)] = ()
    pools: Pools | None = None
    tote_pools: Listed[TotePool] = ()
    money_tracker: MoneyTracker | None = None
    meeting: Meeting | None = None

    @staticmethod
    def parse(race: RaceInput) -> "RaceData":
        """Validates a race of either shape.

        Args:
            race: a RaceData (returned as is), a mapping, or JSON text: a normalised race, or an NZ TAB event
                response, which has its race under `data`.

        Returns:
            The race, normalised.

        Raises:
            InvalidRaceError: it is no JSON, of neither shape, or breaks a rule of its shape; names each path as it
                stands in the input.

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
# The response first: the shape that fails is handed its input for the error, and that of a normalised race is small.
# A callable discriminator would be handed all of it as Python objects, each time.
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
    """The errors of the shape that the top-level keys speak for, each at its path in the input."""
    by_shape: dict[str, list[ErrorDetails]] = {}
    for error in errors:
        by_shape.setdefault(str(error["loc"][0]) if error["loc"] else "", []).append(error)
    if "" in by_shape:
        return [("", told(error)) for error in by_shape[""]]
    if all(error["loc"] == (shape,) for shape, broken in by_shape.items() for error in broken):
        return [("", "must be a JSON object")]
    missing = {
        shape: {error["loc"][1:] for error in broken if error["type"] == "missing"}
        for shape, broken in by_shape.items()
    }
    if ("data",) in missing[_EVENT] and missing[_NORMALISED] >= _REQUIRED:
        return [("", "is neither a normalised race (id, name, status, ...) nor an NZ TAB event response (data)")]
    shape = _NORMALISED if ("data",) in missing[_EVENT] or not _REQUIRED & missing[_NORMALISED] else _EVENT
    return [(_path(error), told(error)) for error in by_shape[shape]]


def _path(error: ErrorDetails) -> str:
    index = error.get("ctx", {}).get("index")
    return ".".join(map(str, (*error["loc"][1:], *(() if index is None else (index,)))))
