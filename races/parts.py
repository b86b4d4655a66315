"""The parts of a normalised race. Knows nothing of the race as a whole."""

from typing import Annotated, Protocol, TypeVar

from pydantic import AfterValidator, AliasChoices, AliasGenerator, BaseModel, ConfigDict, Field, GetPydanticSchema
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from racepool.races.fields import Barrier, Flag, Identifier, Listed, Number, RunnerNumber, Text


class RacePart(BaseModel):
    """Immutable. Each key may be snake_case or camelCase; unknown keys are ignored."""

    model_config = ConfigDict(
        frozen=True, alias_generator=AliasGenerator(validation_alias=lambda name: AliasChoices(name, to_camel(name)))
    )


class _CamelPart(RacePart):
    """A part whose keys are camelCase in most services. So an error names the key in camelCase."""

    model_config = ConfigDict(
        alias_generator=AliasGenerator(validation_alias=lambda name: AliasChoices(to_camel(name), name))
    )


class Entrant(_CamelPart):
    """One horse of the race. Odds are the dollars that are paid for a bet of one dollar.

    A reserve may have no name: then it is empty. `barrier_position` is only read: if it is given, it goes to `barrier`.
    In the entrants of a RaceData, a barrier of 0 is None.
    """

    entrant_id: Identifier
    runner_number: RunnerNumber
    name: Annotated[str, GetPydanticSchema(lambda _type, handler: handler(Text | None))] = ""
    barrier: Barrier = None
    barrier_position: Barrier = Field(None, exclude=True, repr=False)
    is_scratched: Flag | None = None
    is_late_scratched: Flag | None = None
    fixed_win_odds: Number | None = None
    fixed_place_odds: Number | None = None
    pool_win_odds: Number | None = None
    pool_place_odds: Number | None = None
    jockey: Text | None = None
    trainer_name: Text | None = None
    silk_colours: Text | None = None
    favourite: Flag | None = None
    mover: Flag | None = None


class MoneyTrackerEntry(RacePart):
    """A part of one entrant's share of the bets, in percent. An entrant has many entries; its share is their sum."""

    entrant_id: Text | None = None
    hold_percentage: Number | None = None
    bet_percentage: Number | None = None


class MoneyTracker(RacePart):
    """All entries of the race, in the order of the input."""

    entrants: Listed[MoneyTrackerEntry] = ()


class Pools(_CamelPart):
    """The pools that a service keeps itself, in dollars. `total_pool` is read but not used."""

    win_pool: Number | None = None
    place_pool: Number | None = None
    total_pool: Number | None = None


class TotePool(RacePart):
    """One pool as the tote reports it; `total` is in dollars. `product_type` is the kind of bet, such as Win."""

    product_type: Text | None = None
    total: Number | None = None


class Dividend(RacePart):
    """What one pool pays, after the race; `pool_size` is the pool in dollars. `product_name` is such as Pool Win."""

    product_name: Text | None = None
    pool_size: Number | None = None


class Meeting(RacePart):
    """The meeting that the race belongs to: one day's races at one place.

    `date` is the text of the input, its first ten characters. It only decorates: nothing is computed from it. So it may
    be no date; then the transform leaves it out, with a warning.
    """

    meeting_id: Text | None = Field(None, validation_alias=AliasChoices("meeting", "meetingId", "meeting_id"))
    name: Text | None = None
    date: Annotated[Text, AfterValidator(lambda text: text[:10])] | None = None
    country: Text | None = None
    category: Text | None = None
    track_condition: Text | None = None
    tote_status: Text | None = None


def completed(entrants: tuple[Entrant, ...]) -> tuple[Entrant, ...]:
    """The entrants, each with the barrier from `barrier_position` if that is given, and with text as its name.

    Raises:
        PydanticCustomError: two ids are equal.
    """
    for entrant in entrants:  # frozen for its users, but not complete yet
        if entrant.barrier_position is not None:
            vars(entrant).update(barrier=entrant.barrier_position or None, barrier_position=None)
        elif entrant.barrier == 0:
            vars(entrant).update(barrier=None)
        if not entrant.name:
            vars(entrant).update(name="")
    return with_distinct_ids(entrants)


class _Identified(Protocol):
    @property
    def entrant_id(self) -> str: ...


_I = TypeVar("_I", bound=_Identified)


def with_distinct_ids(entrants: tuple[_I, ...]) -> tuple[_I, ...]:
    """The entrants, if all ids differ. If two are equal, `at` in the error's context is the place of the second."""
    if len({entrant.entrant_id for entrant in entrants}) < len(entrants):
        first: dict[str, int] = {}
        for index, entrant in enumerate(entrants):
            if first.setdefault(entrant.entrant_id, index) != index:
                raise PydanticCustomError(
                    "duplicate_entrant",
                    "has the id {entrant_id} of the entrant at {first}; ids must differ",
                    {"entrant_id": repr(entrant.entrant_id), "first": first[entrant.entrant_id], "at": index},
                )
    return entrants
