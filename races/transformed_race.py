"""What one task computes: the transformed race, and what the next poll needs of it.

Field names are a contract with the database that the records go into. Amounts are integers of cents, percentages
floats from 0 to 100, instants timezone-aware UTC. Valid by construction: the worker builds it, the client reads it.
"""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from pydantic import AwareDatetime, BaseModel, ConfigDict

from racepool.protocol.errors import InvalidRaceError
from racepool.races.fields import RaceStatus
from racepool.races.parts import Meeting

IntervalType: TypeAlias = Literal["5m", "2m", "30s", "live"]
Previous: TypeAlias = "TransformedRace | Iterable[MoneyFlowRecord | Mapping[str, Any]] | PreviousAmounts | None"

LARGEST_AMOUNT: Final = 2**63 - 1  # cents; what msgpack and an integer column can hold


class _ResultPart(BaseModel):
    model_config = ConfigDict(frozen=True)


class Metrics(_ResultPart):
    """Counts and totals that tell at a glance whether a poll was whole.

    Attributes:
        pool_field_count: how many `*_pool_total` fields of the race's pools are neither absent nor 0.
        hold_percentage_total: of all money-tracker entries, those for ids that are no entrants included.
        bet_percentage_total: likewise.
    """

    entrant_count: int
    pool_field_count: int
    money_flow_record_count: int
    hold_percentage_total: float
    bet_percentage_total: float


class RaceInfo(_ResultPart):
    """The race itself; `start_time` is the instant at which it is to start."""

    race_id: str
    name: str
    status: RaceStatus
    race_number: int | None
    race_date_nz: str
    start_time_nz: str
    start_time: AwareDatetime
    meeting_id: str | None


class TransformedEntrant(_ResultPart):
    """One entrant with its share of the bets; the money fields are null without a positive hold or without pools."""

    entrant_id: str
    race_id: str
    runner_number: int
    name: str
    barrier: int | None
    is_scratched: bool
    is_late_scratched: bool
    fixed_win_odds: float | None
    fixed_place_odds: float | None
    pool_win_odds: float | None
    pool_place_odds: float | None
    hold_percentage: float | None
    bet_percentage: float | None
    win_pool_percentage: float | None
    place_pool_percentage: float | None
    win_pool_amount: int | None
    place_pool_amount: int | None
    jockey: str | None
    trainer_name: str | None
    silk_colours: str | None
    favourite: bool | None
    mover: bool | None


class MoneyFlowRecord(_ResultPart):
    """The money on one entrant at one poll.

    Attributes:
        time_to_start: minutes from the poll to the start, negative after it.
        time_interval: the bucket of `time_to_start`, in minutes.
        incremental_win_amount: this poll's win amount less the previous poll's; the first poll counts from zero.
        incremental_place_amount: likewise.
    """

    entrant_id: str
    race_id: str
    time_to_start: float
    time_interval: float
    interval_type: IntervalType
    polling_timestamp: AwareDatetime
    hold_percentage: float | None
    bet_percentage: float | None
    win_pool_percentage: float | None
    place_pool_percentage: float | None
    win_pool_amount: int
    place_pool_amount: int
    total_pool_amount: int
    incremental_win_amount: int
    incremental_place_amount: int
    fixed_win_odds: float | None
    fixed_place_odds: float | None
    pool_win_odds: float | None
    pool_place_odds: float | None


class RacePools(_ResultPart):
    """The race's pools in cents; a pool that was not reported is 0."""

    win_pool_total: int
    place_pool_total: int
    quinella_pool_total: int
    trifecta_pool_total: int
    exacta_pool_total: int
    first4_pool_total: int
    multi_leg_pool_total: int
    other_pool_total: int
    total_race_pool: int
    currency: Literal["NZD"]
    data_quality_score: int
    extracted_pools: int


class TransformedRace(_ResultPart):
    """One poll of one race, ready to be stored; equal to itself after a round trip through its JSON.

    Attributes:
        transformed_at: the poll's instant.
        warnings: what an operator should look at, as text; empty if all is well.
    """

    race_id: str
    race_name: str
    status: RaceStatus
    transformed_at: AwareDatetime
    metrics: Metrics
    meeting: Meeting | None
    race: RaceInfo
    entrants: tuple[TransformedEntrant, ...]
    money_flow_records: tuple[MoneyFlowRecord, ...]
    race_pools: RacePools | None
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PreviousAmounts:
    """How many cents lay on each entrant at the previous poll of one race; empty before the first.

    Attributes:
        race_id: the race; None if nothing named one.
        amounts: entrant id -> (win cents, place cents).
    """

    race_id: str | None = None
    amounts: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @staticmethod
    def of(previous: Previous) -> "PreviousAmounts":
        """Takes the amounts out of whatever a caller keeps of the last poll.

        Args:
            previous: the last poll's TransformedRace; or its money-flow records, as such or as rows that have
                `race_id`, `entrant_id`, `win_pool_amount` and `place_pool_amount`; or None before the first poll.

        Raises:
            InvalidRaceError: a record is broken or of another race than the first, or an entrant has two.
        """
        match previous:
            case None:
                return PreviousAmounts()
            case PreviousAmounts():
                return previous
            case TransformedRace():
                return PreviousAmounts(previous.race_id, _of_records(previous.money_flow_records).amounts)
            case _:
                return _of_records(previous)

    def to_wire(self) -> list[Any]:
        """The amounts as msgpack can hold them: `[race_id, {entrant_id: [win, place]}]`."""
        return [self.race_id, {entrant_id: list(amounts) for entrant_id, amounts in self.amounts.items()}]

    @staticmethod
    def from_wire(wire: object) -> "PreviousAmounts":
        """Reads what `to_wire` wrote.

        Raises:
            InvalidRaceError: it is anything else.
        """
        match wire:
            case [None | str() as race_id, dict() as amounts]:
                return PreviousAmounts(race_id, {key: _pair(key, pair) for key, pair in amounts.items()})
            case _:
                raise InvalidRaceError([("previous", "must be a race id and the amounts of its entrants")])


_RECORD_KEYS: Final = ("race_id", "entrant_id", "win_pool_amount", "place_pool_amount")
_RECORD_RULE: Final = f"must be a money-flow record, or a row with {', '.join(_RECORD_KEYS)}"
_AMOUNT_RULE: Final = f"must be a whole number of cents from 0 to {LARGEST_AMOUNT}"


def _is_amount(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST_AMOUNT


def _pair(entrant_id: object, pair: object) -> tuple[int, int]:
    match pair:
        case [int() as win, int() as place] if isinstance(entrant_id, str) and _is_amount(win) and _is_amount(place):
            return win, place
        case _:
            raise InvalidRaceError(
                [(f"previous.{entrant_id}", f"must be two amounts of an entrant; each {_AMOUNT_RULE}")]
            )


def _of_records(records: object) -> PreviousAmounts:
    if not isinstance(records, Iterable):
        rule = f"must be a TransformedRace or money-flow records, but is a {type(records).__name__}"
        raise InvalidRaceError([("previous", rule)])
    race_id: str | None = None
    amounts: dict[str, tuple[int, int]] = {}
    broken: list[tuple[str, str]] = []
    for index, record in enumerate(records):
        try:
            row: Any = vars(record) if isinstance(record, MoneyFlowRecord) else record
            values = [row[key] for key in _RECORD_KEYS]
        except (KeyError, IndexError, TypeError):  # what the rows of database drivers raise for a key they lack
            broken.append((f"previous.{index}", _RECORD_RULE))
            continue
        if faults := list(_faults(values, race_id, amounts)):
            broken += [(f"previous.{index}.{key}", rule) for key, rule in faults]
        else:
            race_id, entrant_id, win, place = values
            amounts[entrant_id] = (win, place)
    if broken:
        raise InvalidRaceError(broken)
    return PreviousAmounts(race_id, amounts)


def _faults(values: Sequence[object], race_id: str | None, seen: Container[str]) -> Iterator[tuple[str, str]]:
    record_race_id, entrant_id, win, place = values
    if not isinstance(record_race_id, str):
        yield "race_id", "must be text"
    elif race_id not in (None, record_race_id):
        yield "race_id", f"is {record_race_id!r}, but the records before are of race {race_id!r}"
    if not isinstance(entrant_id, str):
        yield "entrant_id", "must be text"
    elif entrant_id in seen:
        yield "entrant_id", f"{entrant_id!r} has a record already"
    if not _is_amount(win):
        yield "win_pool_amount", _AMOUNT_RULE
    if not _is_amount(place):
        yield "place_pool_amount", _AMOUNT_RULE
