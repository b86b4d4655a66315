"""What the polls of a race tell of the win money, and what each time bucket brought; pure."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

from racepool.races.bucket_flow import bucket_flows
from racepool.races.money_row import MoneyRow, PollRows
from racepool.races.race_clock import poll_time

Told: TypeAlias = dict[datetime, dict[str, int]]
"""The win money that polls tell: instant of the poll -> entrant id -> cents."""


def told_by(polls: Sequence[PollRows]) -> Told:
    """The win money that these polls tell.

    Args:
        polls: of one race, in the order of time. Of two polls at the same instant, the later one counts.

    Returns:
        Each instant, in the order of time. An entrant is missing where the poll does not tell its money.
    """
    told: Told = {}
    for poll in polls:
        told.setdefault(poll.polled_at, {}).update(_told(poll))
    return told


def flows_by_bucket(race_id: str, start: datetime, told: Told) -> dict[float, dict[str, int]]:
    """What each time bucket brought: bucket -> entrant id -> cents, in the order of time.

    The first money that was told is no flow: it had come in before. What came in while a poll told nothing is in the
    bucket of the poll that tells money again.

    Args:
        race_id: of the race.
        start: the start as last known, from which the time axis counts, too.
        told: as `told_by` returns it.
    """
    flows: dict[float, dict[str, int]] = {}
    for flow in bucket_flows(_records(race_id, start, told)):
        came_in = flow.incremental_win_amount - flow.baseline_win_amount
        flows.setdefault(flow.time_interval, {})[flow.entrant_id] = came_in
    return flows


def _told(poll: PollRows) -> dict[str, int]:
    """The win money that one poll tells: entrant id -> cents.

    An entrant without a row has no money if its baseline is 0. If its baseline is not 0, the poll did not tell its
    money, because that would have given a row. If the poll has no row at all and any baseline is not 0, it told no
    money of anybody.
    """
    baseline = poll.baseline or {}
    without_money = [entrant_id for entrant_id, amounts in baseline.items() if not any(amounts)]
    is_told = _tell_win(poll.rows) if poll.rows else len(without_money) == len(baseline)
    if not is_told:
        return {}
    return dict.fromkeys(without_money, 0) | {row.entrant_id: row.win_pool_amount for row in poll.rows}


def _tell_win(rows: Sequence[MoneyRow]) -> bool:
    """Whether the poll of these rows told the win pool.

    If it did not, there is no win percentage, and each amount is that of an earlier poll, or 0 if no earlier poll told
    it. A win pool of 0 gives no percentage either, but then all amounts are 0.
    """
    if any(row.win_pool_percentage is not None for row in rows):
        return True
    return not any(row.win_pool_amount or row.is_baseline for row in rows)


def _records(race_id: str, start: datetime, told: Mapping[datetime, Mapping[str, int]]) -> Iterator[dict[str, Any]]:
    """What `bucket_flows` needs of each record.

    The increments are counted here, and not taken from the rows: `racepool transform` gives no poll a previous one.
    The buckets are counted here because the start may have been moved after a poll.
    """
    before: dict[str, int] = {}
    for polled_at, amounts in told.items():
        time_interval = poll_time(start, polled_at).time_interval
        for entrant_id, cents in amounts.items():
            yield {
                "race_id": race_id,
                "entrant_id": entrant_id,
                "time_interval": time_interval,
                "polling_timestamp": polled_at,
                "is_baseline": not before,
                "win_pool_amount": cents,
                "place_pool_amount": 0,
                "incremental_win_amount": cents - before.get(entrant_id, 0),
                "incremental_place_amount": 0,
            }
        before |= amounts
