"""The money on one entrant at one poll: its amounts, and the fields of its entrant and its record in the result."""

from datetime import datetime
from typing import Any, NamedTuple, Self, TypeAlias

from racepool.races.money import Exact, percentage_of, shares_of
from racepool.races.parts import Entrant
from racepool.races.pools import MoneyPools
from racepool.races.race_clock import PollTime

Amounts: TypeAlias = tuple[int, int]
"""The win and the place money on an entrant, in cents."""


class Poll(NamedTuple):
    """What all entrants of one poll have in common."""

    race_id: str
    race_date_nz: str
    polled_at: datetime  # UTC
    time: PollTime
    pools: MoneyPools
    is_baseline: bool  # no earlier poll told money


class Money(NamedTuple):
    """The money on one entrant. The amount of a pool that is not told is that of the last poll that told it."""

    win: int  # cents
    place: int  # cents
    total: int  # cents; if both pools are told, rounded from their sum, so not always win + place
    win_percentage: float | None  # `win` as a percentage of the win pool; None if that is 0 or not told
    place_percentage: float | None

    @classmethod
    def of(cls, hold: Exact, pools: MoneyPools, before: Amounts) -> Self:
        """The money for this hold, in percent. `before` has the amounts of the last poll that told them."""
        win_pool, place_pool = pools
        if win_pool is not None and place_pool is not None:
            win, place, total = shares_of((win_pool, place_pool, win_pool + place_pool), hold)
            win_percentage = 100 * win / win_pool if win_pool else None  # percentage_of, without the two calls
            place_percentage = 100 * place / place_pool if place_pool else None
            return cls(win, place, total, win_percentage, place_percentage)
        win, win_percentage = _share(win_pool, hold, before[0])
        place, place_percentage = _share(place_pool, hold, before[1])
        return cls(win, place, win + place, win_percentage, place_percentage)


def _share(pool_cents: int | None, hold: Exact, before: int) -> tuple[int, float | None]:
    if pool_cents is None:
        return before, None
    [amount] = shares_of((pool_cents,), hold)
    return amount, percentage_of(pool_cents, amount)


class EntrantPoll(NamedTuple):
    """One entrant at one poll.

    Attributes:
        before: its amounts at the last poll that told them; 0 and 0 if none did.
        money: None if this poll does not tell the entrant's money.
        has_money: whether this poll tells a positive hold, and a pool is not 0 or keeps an amount from before.
    """

    entrant: Entrant
    hold_percentage: float | None
    bet_percentage: float | None
    before: Amounts
    money: Money | None
    has_money: bool

    def entrant_fields(self, poll: Poll) -> dict[str, Any]:
        """The fields of a TransformedEntrant."""
        money = self.money if self.has_money else None
        fields = {
            **vars(self.entrant),  # the fields of an Entrant have the same names
            "race_id": poll.race_id,
            "is_scratched": bool(self.entrant.is_scratched),
            "is_late_scratched": bool(self.entrant.is_late_scratched),
            "hold_percentage": self.hold_percentage,
            "bet_percentage": self.bet_percentage,
            "win_pool_percentage": money and money.win_percentage,
            "place_pool_percentage": money and money.place_percentage,
            "win_pool_amount": money and money.win,
            "place_pool_amount": money and money.place,
        }
        del fields["barrier_position"]
        return fields

    def record_fields(self, poll: Poll) -> dict[str, Any] | None:
        """The fields of a MoneyFlowRecord. None if its money is not told, or is 0 now and was 0 before."""
        money = self.money
        if money is None or not (self.has_money or any(self.before)):
            return None
        entrant, time, before = self.entrant, poll.time, self.before
        return {
            "entrant_id": entrant.entrant_id,
            "runner_number": entrant.runner_number,
            "runner_name": entrant.name,
            "race_id": poll.race_id,
            "race_date_nz": poll.race_date_nz,
            "is_baseline": poll.is_baseline,
            "time_to_start": time.time_to_start,
            "time_interval": time.time_interval,
            "interval_type": time.interval_type,
            "polling_timestamp": poll.polled_at,
            "hold_percentage": self.hold_percentage,
            "bet_percentage": self.bet_percentage,
            "win_pool_percentage": money.win_percentage,
            "place_pool_percentage": money.place_percentage,
            "win_pool_amount": money.win,
            "place_pool_amount": money.place,
            "total_pool_amount": money.total,
            "incremental_win_amount": money.win - before[0],
            "incremental_place_amount": money.place - before[1],
            "fixed_win_odds": entrant.fixed_win_odds,
            "fixed_place_odds": entrant.fixed_place_odds,
            "pool_win_odds": entrant.pool_win_odds,
            "pool_place_odds": entrant.pool_place_odds,
        }
