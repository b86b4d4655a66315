"""The money on one entrant at one poll: its amounts, and the fields of its entrant and its record in the result."""

from datetime import datetime
from typing import Any, NamedTuple, Self

from racepool.races.money import Exact, percentage_of, shares_of
from racepool.races.parts import Entrant
from racepool.races.pools import MoneyPools
from racepool.races.race_clock import PollTime


class Poll(NamedTuple):
    """What all entrants of one poll have in common."""

    race_id: str
    polled_at: datetime  # UTC
    time: PollTime
    pools: MoneyPools


class Money(NamedTuple):
    """An entrant's part of the pools."""

    win: int  # cents
    place: int  # cents
    total: int  # cents; rounded from the sum of both pools, so not always win + place
    win_percentage: float | None  # `win` as a percentage of the win pool; None if that is 0
    place_percentage: float | None

    @classmethod
    def of(cls, hold: Exact | None, pools: MoneyPools) -> Self:
        """The part that belongs to this hold, in percent; 0 cents if there is no hold."""
        win, place, total = shares_of((pools.win, pools.place, pools.win + pools.place), hold) if hold else (0, 0, 0)
        return cls(win, place, total, percentage_of(pools.win, win), percentage_of(pools.place, place))


class EntrantPoll(NamedTuple):
    """One entrant at one poll. `money` is None if the hold is missing or 0, or if the win and the place pool are 0."""

    entrant: Entrant
    hold_percentage: float | None
    bet_percentage: float | None
    money: Money | None

    def entrant_fields(self, poll: Poll) -> dict[str, Any]:
        """The fields of a TransformedEntrant."""
        return {
            **vars(self.entrant),  # the fields of an Entrant have the same names
            "race_id": poll.race_id,
            "is_scratched": bool(self.entrant.is_scratched),
            "is_late_scratched": bool(self.entrant.is_late_scratched),
            "hold_percentage": self.hold_percentage,
            "bet_percentage": self.bet_percentage,
            "win_pool_percentage": self.money and self.money.win_percentage,
            "place_pool_percentage": self.money and self.money.place_percentage,
            "win_pool_amount": self.money and self.money.win,
            "place_pool_amount": self.money and self.money.place,
        }

    def record_fields(self, poll: Poll, before: tuple[int, int]) -> dict[str, Any] | None:
        """The fields of a MoneyFlowRecord; None for an entrant that has no money and had none before.

        Args:
            poll: the poll of the whole race.
            before: the entrant's win and place amounts at the previous poll, in cents; 0 and 0 before the first.
        """
        if self.money is None and not any(before):
            return None
        money = self.money or Money.of(None, poll.pools)
        return {
            "entrant_id": self.entrant.entrant_id,
            "race_id": poll.race_id,
            "time_to_start": poll.time.time_to_start,
            "time_interval": poll.time.time_interval,
            "interval_type": poll.time.interval_type,
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
            "fixed_win_odds": self.entrant.fixed_win_odds,
            "fixed_place_odds": self.entrant.fixed_place_odds,
            "pool_win_odds": self.entrant.pool_win_odds,
            "pool_place_odds": self.entrant.pool_place_odds,
        }
