"""The result of one task: the transformed race.

The names of the fields are a contract with the database into which the records go. Amounts are integers, in cents;
percentages are floats from 0 to 100; instants are timezone-aware, in UTC. The transform makes only valid results, so a
client of the same version does not validate them again.
"""

from typing import Annotated, Literal, TypeAlias

from pydantic import AwareDatetime, BaseModel, ConfigDict, GetPydanticSchema
from pydantic_core import core_schema

from racepool.races.parts import Meeting

IntervalType: TypeAlias = Literal["5m", "2m", "30s", "live"]

_DATE_COLUMN = core_schema.no_info_after_validator_function(
    lambda date: date.isoformat(), core_schema.date_schema(strict=True)
)
DateText: TypeAlias = Annotated[
    str, GetPydanticSchema(lambda _type, _handler: core_schema.union_schema([core_schema.str_schema(), _DATE_COLUMN]))
]
"""YYYY-MM-DD. A `date`, as a driver returns it for our column of that type, becomes its text."""


class _ResultPart(BaseModel):
    model_config = ConfigDict(frozen=True)


class Metrics(_ResultPart):
    """Counts and sums that show at a glance whether a poll was complete.

    Attributes:
        entrant_count: how many entrants the race has, the scratched ones included.
        pool_field_count: how many `*_pool_total` fields of `race_pools` are not 0.
        money_flow_record_count: how many money-flow records the result has.
        hold_percentage_total: the sum of all holds in the money tracker, about 100; ids that are no entrants included.
            Null if the poll tells none.
        bet_percentage_total: the sum of all bet percentages in the money tracker, about 100; ids that are no entrants
            included. Null if the poll tells none.
    """

    entrant_count: int
    pool_field_count: int
    money_flow_record_count: int
    hold_percentage_total: float | None
    bet_percentage_total: float | None


class RaceInfo(_ResultPart):
    """The race itself. `start_time` is the instant at which it should start; the other fields are those of RaceData."""

    race_id: str
    name: str
    status: str
    race_number: int | None
    race_date_nz: str
    start_time_nz: str
    start_time: AwareDatetime
    meeting_id: str | None


class TransformedEntrant(_ResultPart):
    """One entrant, with the money on it.

    The money fields (`win_pool_amount`, `place_pool_amount` and their percentages) are null if the entrant has no
    positive hold, if the win and the place pool are 0, or if the poll does not tell them. MoneyFlowRecord explains the
    fields of the same names. Odds are the dollars that are paid
    for a bet of one dollar. All other fields are as in the input.
    """

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
    """The money on one entrant at one poll: a row for a database.

    An entrant has a record if the poll tells its money, and there is money on it now or at the last poll that told it.
    All amounts are in cents and are rounded half up. All percentages are from 0 to 100.

    Attributes:
        entrant_id: the entrant's id at the tote.
        runner_number: the number of the runner.
        runner_name: its name; empty for a reserve without a name.
        race_id: the race's id at the tote.
        race_date_nz: the day of the race in New Zealand, YYYY-MM-DD, by which a database can partition.
        is_baseline: whether this is the first poll that tells the money of this race, as far as `previous` says. Then
            the increments are the whole amounts, which may have come in long before. Amounts of 0 count as told.
        time_to_start: minutes from the poll to the start, negative after it; rounded to 3 decimals.
        time_interval: the time bucket, in minutes. If `time_to_start` is -5 or more, the bucket is the largest of 60,
            55, 50 ... 10, 5, 4, 3, 2, 1, 0, -0.5, -1, -1.5 ... -5 that is not above `time_to_start`. Below -5, it is
            `time_to_start` rounded towards 0 to whole minutes.
        interval_type: the phase before the start: `5m` if `time_to_start` is above 30, `2m` if it is above 5, `30s` if
            it is above 0, else `live`.
        polling_timestamp: the instant of the poll, UTC.
        hold_percentage: the sum of the entrant's hold percentages in the money tracker; null if it has none.
        bet_percentage: the sum of the entrant's bet percentages in the money tracker; null if it has none.
        win_pool_percentage: 100 * win_pool_amount / win pool, not rounded; null if the win pool is 0 or not told.
        place_pool_percentage: 100 * place_pool_amount / place pool, not rounded; null if the place pool is 0 or not
            told.
        win_pool_amount: round_half_up(win pool * hold_percentage / 100). If the poll tells only the place pool, it is
            the amount of the last poll that told the win pool, or 0 if none did.
        place_pool_amount: round_half_up(place pool * hold_percentage / 100). If the poll tells only the win pool, it is
            the amount of the last poll that told the place pool, or 0 if none did.
        total_pool_amount: round_half_up((win pool + place pool) * hold_percentage / 100). It is rounded once, so it
            can differ from the sum of the two amounts by a cent. If the poll tells only one pool, it is the sum of the
            two amounts.
        incremental_win_amount: `win_pool_amount` minus the amount of the last poll that told it; negative if money was
            withdrawn. If no earlier poll told it, the increment is the whole amount.
        incremental_place_amount: `place_pool_amount` minus the amount of the last poll that told it; negative if money
            was withdrawn. If no earlier poll told it, the increment is the whole amount.
        fixed_win_odds: as in the input: the dollars that are paid for a bet of one dollar.
        fixed_place_odds: as in the input: the dollars that are paid for a bet of one dollar.
        pool_win_odds: as in the input: the dollars that are paid for a bet of one dollar.
        pool_place_odds: as in the input: the dollars that are paid for a bet of one dollar.
    """

    entrant_id: str
    runner_number: int
    runner_name: str
    race_id: str
    race_date_nz: DateText
    is_baseline: bool
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
    """The pools of the race, in cents. A pool that was not reported is 0.

    Attributes:
        race_id: the race's id at the tote.
        multi_leg_pool_total: all pools of bets on several races, such as doubles and quaddies.
        other_pool_total: all pools of types that are not recognised.
        total_race_pool: the sum of all pools.
        data_quality_score: from 100 down to 0: 5 less for each unrecognised type of pool, 30 less if the win or the
            place pool is 0 or missing.
        extracted_pools: how many pools of the input were read.
    """

    race_id: str
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
    """One poll of one race, ready to be stored. It equals the race that is read back from its JSON.

    Attributes:
        race_id: the race's id at the tote.
        race_name: its name.
        status: open, closed, interim, final, abandoned, live, or another text of the tote; `unknown` if the poll does
            not tell it.
        transformed_at: the instant of the poll, UTC; not the time at which a worker ran the transform.
        metrics: counts and sums that show whether the poll was complete.
        meeting: the meeting, as in the input; null if the input has none.
        race: the race itself, with the instant of its start.
        entrants: all entrants, in the order of the input.
        money_flow_records: the records, in the same order. MoneyFlowRecord says which entrants have one.
        race_pools: the pools; null if the input tells none.
        baseline: entrant id -> its win and its place amount in cents, as of the last poll that told them, this one
            included; also of entrants that are not listed any more. Null until any poll told money. The increments of
            the next poll count from it.
        warnings: what an operator should look at, as text; empty if all is well.
    """

    race_id: str
    race_name: str
    status: str
    transformed_at: AwareDatetime
    metrics: Metrics
    meeting: Meeting | None
    race: RaceInfo
    entrants: tuple[TransformedEntrant, ...]
    money_flow_records: tuple[MoneyFlowRecord, ...]
    race_pools: RacePools | None
    baseline: dict[str, tuple[int, int]] | None
    warnings: tuple[str, ...]

    def __hash__(self) -> int:
        """Equal races have equal hashes; the baseline, a dict, has none."""
        return hash((self.race_id, self.transformed_at))
