"""The money-flow transform: one poll of one race in, money amounts and records out.

Pure: the same input gives the same output; it reads no clock and does no I/O. It computes the result as one nested
mapping. The models are made from it when the result is first looked at.

What a poll does not tell is unknown, and not 0. So the result carries the baseline: the amounts of the last poll that
told them, for each entrant. The increments of the next poll count from it.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from racepool.protocol.errors import InvalidRaceError
from racepool.races.fields import STATUSES, UNKNOWN_STATUS, is_date
from racepool.races.money import Exact
from racepool.races.money_flow import Amounts, EntrantPoll, Money, Poll
from racepool.races.money_tracker import Percentages, add_up_entries
from racepool.races.parts import Meeting
from racepool.races.pools import MoneyPools, PoolReport, read_pools
from racepool.races.previous_amounts import LARGEST_AMOUNT, Previous, PreviousAmounts
from racepool.races.race import RaceData
from racepool.races.race_clock import poll_instant, poll_time
from racepool.races.start import start_instant
from racepool.races.transformed_race import TransformedRace
from racepool.races.unopened_race import unopened

_EXPECTED_HOLD: Final = 100  # percent; the sum of the holds of a race, about
_LEAST_HOLD: Final = 95  # percent; a sum of this or less is worth a warning
_MOST_HOLD: Final = 105  # percent; a sum of this or more, too
_NO_AMOUNTS: Final = (0, 0)
_KEPT: Final = "each runner keeps the amount of the last poll that told it"


def transform_race(race: RaceData, *, polled_at: datetime, previous: Previous = None) -> TransformedRace:
    """Computes from one poll of a race the money on each entrant, and the money-flow records.

    The tote does not tell the money on an entrant. It tells the pools, and for each entrant its hold: the percentage of
    the bets that are on it. So the amount of an entrant is round_half_up(pool * hold / 100), in cents, without any
    error of binary fractions.
    If the poll does not tell the holds or the pools, the result has no records, and keeps the baseline of `previous`.

    Args:
        race: the poll; `RaceData.parse` makes it from a mapping or from JSON.
        polled_at: the instant of the poll, timezone-aware.
        previous: the amounts, in cents, from which the increments of the records count. It may be the TransformedRace
            of the previous poll of the same race, its dump or its JSON; or money-flow records, or rows with the keys
            `race_id`, `entrant_id`, `win_pool_amount` and `place_pool_amount`, or such attributes. They may be of
            several polls: for each entrant, the record or row with the latest `polling_timestamp` counts. None for the
            first poll, whose increments count from 0.

    Returns:
        The transformed race. Its `warnings` tell what looks wrong but breaks no rule.

    Raises:
        InvalidRaceError: `race` is no RaceData; or `polled_at` is no datetime, has no time zone, or is not between the
            years 1 and 9999 in UTC; or `previous` is of another type or of another race, has a broken record, or has
            two records of one entrant at the same instant; or an amount of an entrant is above 2**63 - 1 cents.

    Example:
        >>> race = RaceData.parse(body)
        >>> result = transform_race(race, polled_at=datetime.now(UTC), previous=last_result)
        >>> [record.incremental_win_amount for record in result.money_flow_records]
        [1500, -200, 0]
    """
    if not isinstance(race, RaceData):
        raise InvalidRaceError(
            [("", f"must be a RaceData, as RaceData.parse makes it, but is a {type(race).__name__}")]
        )
    before = _amounts_before(race, previous)
    polled_at = poll_instant(polled_at)
    start = start_instant(race)
    report, pools = read_pools(race)
    poll = Poll(race.id, race.race_date_nz, polled_at, poll_time(start, polled_at), pools, is_baseline=not before)
    entries = race.money_tracker.entrants if race.money_tracker else ()
    holds, bets = add_up_entries(entries)
    entrants = _entrant_polls(race, holds, bets, pools, before)
    records = [record for entrant in entrants if (record := entrant.record_fields(poll))]
    told = {entrant.entrant.entrant_id: entrant.money[:2] for entrant in entrants if entrant.money}
    _refuse_endless_amounts(entrants)
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
                "hold_percentage_total": _number(holds.total),
                "bet_percentage_total": _number(bets.total),
            },
            "meeting": _meeting(race.meeting),
            "race": _race_info(race, start),
            "entrants": [entrant.entrant_fields(poll) for entrant in entrants],
            "money_flow_records": records,
            "race_pools": report and report.race_pools(race.id),
            "baseline": {**before, **told} or None,
            "warnings": tuple(_warnings(race, holds, report, pools, before)),
        }
    )


def _amounts_before(race: RaceData, previous: Previous) -> Mapping[str, Amounts]:
    before = PreviousAmounts.of(previous)
    if before.race_id not in (None, race.id):
        raise InvalidRaceError(
            [("previous", f"is of race {before.race_id!r}, not of {race.id!r}")], about=f"race {race.id}"
        )
    return before.amounts


def _entrant_polls(
    race: RaceData, holds: Percentages, bets: Percentages, pools: MoneyPools, before: Mapping[str, Amounts]
) -> list[EntrantPoll]:
    are_pools_told, is_any_pool = not pools.are_unknown, any(pools)
    polls = []
    for entrant in race.entrants:
        entrant_id = entrant.entrant_id
        hold, bet = holds.by_entrant.get(entrant_id), bets.by_entrant.get(entrant_id)
        amounts = before.get(entrant_id, _NO_AMOUNTS)
        money = Money.of(hold, pools, amounts) if hold is not None and are_pools_told else None
        has_money = money is not None and bool(hold) and (is_any_pool or any(money[:2]))  # 0 told, the other kept
        polls.append(EntrantPoll(entrant, _number(hold), _number(bet), amounts, money, has_money))
    return polls


def _refuse_endless_amounts(entrants: Iterable[EntrantPoll]) -> None:
    """Refuses amounts that a database cannot hold, and that could not be the `previous` of the next poll."""
    for entrant in entrants:
        if entrant.money and max(entrant.money[:3]) > LARGEST_AMOUNT:
            name, hold = entrant.entrant.entrant_id, entrant.hold_percentage
            rule = f"a hold of {hold:g} % of these pools gives entrant {name!r} more than {LARGEST_AMOUNT} cents"
            raise InvalidRaceError([("money_tracker", rule)])


def _meeting(meeting: Meeting | None) -> Meeting | None:
    if meeting is None or meeting.date is None or is_date(meeting.date):
        return meeting
    return meeting.model_copy(update={"date": None})


def _number(percentage: Exact | None) -> float | None:
    return None if percentage is None else float(percentage)


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
    race: RaceData, holds: Percentages, report: PoolReport | None, pools: MoneyPools, before: Mapping[str, Amounts]
) -> Iterator[str]:
    yield from _doubtful_fields(race)
    yield from _gaps(race, holds, pools, before)
    if holds.total is not None and not _LEAST_HOLD < holds.total < _MOST_HOLD:
        yield f"hold percentages add up to {float(holds.total):g}, not to about {_EXPECTED_HOLD}"
    for product_type in report.unrecognised if report else ():
        yield f"pool type {product_type!r} is not recognised; it counts as other"
    if race.entrants:
        yield from _strangers(race, holds, before)


def _doubtful_fields(race: RaceData) -> Iterator[str]:
    if race.status == UNKNOWN_STATUS:
        yield "the status of the race is not told"
    elif race.status not in STATUSES:
        yield f"status {race.status!r} is not one of {', '.join(STATUSES)}"
    if race.meeting and race.meeting.date and not is_date(race.meeting.date):
        yield f"the date of the meeting is {race.meeting.date!r}, which is no date; it is left out"
    for entrant in race.entrants:
        if not entrant.name:
            yield f"runner {entrant.runner_number} has no name"


def _gaps(race: RaceData, holds: Percentages, pools: MoneyPools, before: Mapping[str, Amounts]) -> Iterator[str]:
    """What the poll leaves out."""
    if not race.entrants:
        yield f"no runners are told: no records; {_KEPT}"
    if holds.total is None:
        yield f"no money tracker is told: no records; {_KEPT}"
    if pools.are_unknown:
        yield f"neither the win nor the place pool is told: no records; {_KEPT}"
        return
    for index, pool in enumerate(pools):
        if pool is None and any(amounts[index] for amounts in before.values()):
            yield f"the {pools._fields[index]} pool is not told; {_KEPT}"


def _strangers(race: RaceData, holds: Percentages, before: Mapping[str, Amounts]) -> Iterator[str]:
    """Ids with money that are not among the entrants."""
    listed: set[str | None] = {entrant.entrant_id for entrant in race.entrants}
    if listed.issuperset(holds.by_entrant) and listed.issuperset(before):
        return  # as most polls are
    for entrant_id, hold in holds.by_entrant.items():
        if hold and entrant_id not in listed:
            only = f"its hold of {float(hold):g} % counts in the total only"
            yield f"money tracker: id {entrant_id!r} is no entrant; {only}"
    for entrant_id, amounts in before.items():
        if entrant_id not in listed and any(amounts):
            yield f"previous: id {entrant_id!r} is no longer an entrant; its amounts are kept, for it may come back"
