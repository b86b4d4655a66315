"""The money-flow transform: one poll of one race in, money amounts and records out.

Pure: the same input gives the same output; it reads no clock and does no I/O. It computes the result as one nested
mapping. The models are made of it when somebody looks at it.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from racepool.protocol.errors import InvalidRaceError
from racepool.races.money_flow import EntrantPoll, Money, Poll
from racepool.races.money_tracker import Percentages, add_up_entries
from racepool.races.pools import MoneyPools, PoolReport, money_pools, report_pools
from racepool.races.previous_amounts import Previous, PreviousAmounts
from racepool.races.race import RaceData
from racepool.races.race_clock import poll_time, start_instant
from racepool.races.transformed_race import TransformedRace
from racepool.races.unopened_race import unopened

_EXPECTED_HOLD: Final = 100  # percent; the sum of the holds of a race, about
_LEAST_HOLD: Final = 95  # percent; a sum of this or less is worth a warning
_MOST_HOLD: Final = 105  # percent; a sum of this or more, too
_NO_AMOUNTS: Final = (0, 0)


def transform_race(race: RaceData, *, polled_at: datetime, previous: Previous = None) -> TransformedRace:
    """Computes, of one poll of a race, the money on each entrant and a money-flow record for each.

    The amount of an entrant is round_half_up(pool * hold / 100). The tote tells the pools, and for each entrant its
    hold, the percentage of the bets that are on it. Amounts are computed exactly, in cents.

    Args:
        race: the poll; `RaceData.parse` makes it of a mapping or of JSON.
        polled_at: the instant of the poll, timezone-aware.
        previous: the previous poll of the same race. The increments of the records count from it. It may be its
            TransformedRace, its money-flow records, or rows with the keys `race_id`, `entrant_id`, `win_pool_amount`
            and `place_pool_amount`. None for the first poll, whose increments count from 0.

    Returns:
        The transformed race. Its `warnings` tell what looks wrong but breaks no rule.

    Raises:
        InvalidRaceError: `polled_at` has no time zone, or is not between the years 1 and 9999 in UTC; or `previous` is
            of another race, has a broken record, or has two records of one entrant.

    Example:
        >>> race = RaceData.parse(body)
        >>> result = transform_race(race, polled_at=datetime.now(UTC), previous=last_result)
        >>> [record.incremental_win_amount for record in result.money_flow_records]
        [1500, -200, 0]
    """
    before = _amounts_before(race, previous)
    polled_at = _in_utc(polled_at)
    start = start_instant(race)
    report = report_pools(race)
    poll = Poll(race.id, polled_at, poll_time(start, polled_at), money_pools(race, report))
    entries = race.money_tracker.entrants if race.money_tracker else ()
    holds = add_up_entries([(entry.entrant_id, entry.hold_percentage) for entry in entries])
    bets = add_up_entries([(entry.entrant_id, entry.bet_percentage) for entry in entries])
    entrants = _entrant_polls(race, holds, bets, poll.pools)
    rows = [entrant.record_fields(poll, before.get(entrant.entrant.entrant_id, _NO_AMOUNTS)) for entrant in entrants]
    records = [record for record in rows if record]
    return unopened(
        {
            "race_id": race.id,
            "race_name": race.name,
            "status": race.status,
            "transformed_at": polled_at,
            "metrics": {
                "entrant_count": len(entrants),
                "pool_field_count": report.field_count if report else 0,
                "money_flow_record_count": len(records),
                "hold_percentage_total": float(holds.total),
                "bet_percentage_total": float(bets.total),
            },
            "meeting": race.meeting,
            "race": _race_info(race, start),
            "entrants": [entrant.entrant_fields(poll) for entrant in entrants],
            "money_flow_records": records,
            "race_pools": report and report.race_pools(),
            "warnings": tuple(_warnings(race, holds, bets, report, before)),
        }
    )


def _in_utc(polled_at: datetime) -> datetime:
    if polled_at.utcoffset() is None:
        raise InvalidRaceError([("polled_at", "must be timezone-aware, such as datetime.now(UTC)")])
    try:
        return polled_at.astimezone(UTC)
    except OverflowError:
        raise InvalidRaceError([("polled_at", "must lie between the years 1 and 9999 in UTC")]) from None


def _amounts_before(race: RaceData, previous: Previous) -> Mapping[str, tuple[int, int]]:
    before = PreviousAmounts.of(previous)
    if before.race_id not in (None, race.id):
        raise InvalidRaceError(
            [("previous", f"is of race {before.race_id!r}, not of {race.id!r}")], about=f"race {race.id}"
        )
    return before.amounts


def _entrant_polls(race: RaceData, holds: Percentages, bets: Percentages, pools: MoneyPools) -> list[EntrantPoll]:
    polls = []
    for entrant in race.entrants:
        hold = holds.by_entrant.get(entrant.entrant_id)
        money = Money.of(hold, pools) if hold and any(pools) else None
        polls.append(EntrantPoll(entrant, holds.of(entrant.entrant_id), bets.of(entrant.entrant_id), money))
    return polls


def _race_info(race: RaceData, start: datetime) -> dict[str, Any]:
    return {
        "race_id": race.id,
        "name": race.name,
        "status": race.status,
        "race_number": race.race_number,
        "race_date_nz": race.race_date_nz,
        "start_time_nz": race.start_time_nz,
        "start_time": start,
        "meeting_id": race.meeting_id,
    }


def _warnings(
    race: RaceData, holds: Percentages, bets: Percentages, report: PoolReport | None, before: Mapping[str, object]
) -> Iterator[str]:
    if not _LEAST_HOLD < holds.total < _MOST_HOLD:
        yield f"hold percentages add up to {float(holds.total):g}, not to about {_EXPECTED_HOLD}"
    listed = {entrant.entrant_id for entrant in race.entrants}
    for entrant_id in holds.by_entrant | bets.by_entrant:
        if entrant_id not in listed:
            hold = float(holds.by_entrant.get(entrant_id, 0))
            yield f"money tracker: id {entrant_id!r} is no entrant; its hold of {hold:g} % counts in the total only"
    for product_type in report.unrecognised if report else ():
        yield f"pool type {product_type!r} is not recognised; it counts as other"
    for entrant_id in before:
        if entrant_id not in listed:
            yield f"previous: id {entrant_id!r} is no longer an entrant; its increments end there"
