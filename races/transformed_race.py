"""The result of one task: the transformed race.

Field names are a contract with the database that the records go into. Amounts are integers of cents, percentages
floats from 0 to 100, instants timezone-aware UTC. Valid by construction: the worker builds it, the client reads it.
"""

from typing import Literal, TypeAlias

from pydantic import AwareDatetime, BaseModel, ConfigDict

from racepool.races.fields import RaceStatus
from racepool.races.parts import Meeting

IntervalType: TypeAlias = Literal["5m", "2m", "30s", "live"]


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
