"""The result of one task: the transformed race.

The names of the fields are a contract with the database into which the records go. Amounts are integers, in cents;
percentages are floats from 0 to 100; instants are timezone-aware, in UTC. The transform makes only valid results, so a
client of the same version does not validate them again.
"""

from typing import Literal, TypeAlias

from pydantic import AwareDatetime, BaseModel, ConfigDict

from racepool.races.fields import RaceStatus
from racepool.races.parts import Meeting

IntervalType: TypeAlias = Literal["5m", "2m", "30s", "live"]


class _ResultPart(BaseModel):
    model_config = ConfigDict(frozen=True)


class Metrics(_ResultPart):
    """Counts and sums that show at a glance whether a poll was complete.

    Attributes:
        entrant_count: how many entrants the race has, the scratched ones included.
        pool_field_count: how many `*_pool_total` fields of `race_pools` are not 0.
        money_flow_record_count: how many money-flow records the result has.
        hold_percentage_total: the sum of all holds in the money tracker, about 100; ids that are no entrants included.
        bet_percentage_total: the sum of all bet percentages in the money tracker, about 100; ids that are no entrants
            included.
    """

    entrant_count: int
    pool_field_count: int
    money_flow_record_count: int
    hold_percentage_total: float
    bet_percentage_total: float


class RaceInfo(_ResultPart):
    """The race itself. `start_time` is the instant at which it should start; the other fields are those of RaceData."""

    race_id: str
    name: str
    status: RaceStatus
    race_number: int | None
    race_date_nz: str
    start_time_nz: str
    start_time: AwareDatetime
    meeting_id: str | None


class TransformedEntrant(_ResultPart):
    """One entrant, with the money on it.

    The money fields are null if the entrant has no positive hold, or if the win and the place pool are 0. The fields of
    the same names in MoneyFlowRecord explain them. Odds are the dollars that are paid for a bet of one dollar. All
    other fields are as in the input.
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

    An entrant has a record if there is money on it now, or if there was some at the previous poll. All amounts are in
    cents and are rounded half up. All percentages are from 0 to 100.

    Attributes:
        entrant_id: the entrant's id at the tote.
        race_id: the race's id at the tote.
        time_to_start: minutes from the poll to the start, negative after it; rounded to 3 decimals.
        time_interval: the bucket of `time_to_start`, in minutes. From -5 on, it is the largest of 60, 55, 50 ... 10, 5,
            4, 3, 2, 1, 0, -0.5, -1, -1.5 ... -5 that is not above `time_to_start`. Below -5, it is `time_to_start`
            rounded towards 0 to whole minutes.
        interval_type: the phase before the start: `5m` if `time_to_start` is above 30, `2m` if it is above 5, `30s` if
            it is above 0, else `live`.
        polling_timestamp: the instant of the poll, UTC.
        hold_percentage: the sum of the entrant's hold percentages in the money tracker; null if it has none.
        bet_percentage: the sum of the entrant's bet percentages in the money tracker; null if it has none.
        win_pool_percentage: 100 * win_pool_amount / win pool, not rounded; null if the win pool is 0.
        place_pool_percentage: 100 * place_pool_amount / place pool, not rounded; null if the place pool is 0.
        win_pool_amount: round_half_up(win pool * hold_percentage / 100).
        place_pool_amount: round_half_up(place pool * hold_percentage / 100).
        total_pool_amount: round_half_up((win pool + place pool) * hold_percentage / 100). It is rounded once, so it
            can differ from the sum of the two amounts by a cent.
        incremental_win_amount: `win_pool_amount` less that of the previous poll, negative if money was withdrawn. At
            the first poll it is the whole amount.
        incremental_place_amount: `place_pool_amount` less that of the previous poll, negative if money was withdrawn.
            At the first poll it is the whole amount.
        fixed_win_odds: as in the input: the dollars that are paid for a bet of one dollar.
        fixed_place_odds: as in the input: the dollars that are paid for a bet of one dollar.
        pool_win_odds: as in the input: the dollars that are paid for a bet of one dollar.
        pool_place_odds: as in the input: the dollars that are paid for a bet of one dollar.
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
    """The pools of the race, in cents. A pool that was not reported is 0.

    Attributes:
        multi_leg_pool_total: all pools of bets on several races, such as doubles and quaddies.
        other_pool_total: all pools of types that are not recognised.
        total_race_pool: the sum of all pools.
        data_quality_score: from 100 down to 0: 5 less for each unrecognised type of pool, 30 less if the win or the
            place pool is 0 or missing.
        extracted_pools: how many pools of the input were read.
    """

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
        status: open, closed, interim, final or abandoned.
        transformed_at: the instant of the poll, UTC; not the time at which a worker ran the transform.
        metrics: counts and sums that show whether the poll was complete.
        meeting: the meeting, as in the input.
        race: the race itself, with the instant of its start.
        entrants: all entrants, in the order of the input.
        money_flow_records: the records of those entrants that have or had money, in the same order.
        race_pools: the pools; null if the input tells none.
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
