"""What a picture of a race's money shows: a curve for each runner, the increments, the title; pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate, pairwise
from typing import Final
from zoneinfo import ZoneInfo

from racepool.races.money_row import MoneyRow

_AUCKLAND: Final = ZoneInfo("Pacific/Auckland")
_MINUTE: Final = timedelta(minutes=1)


class NothingToShowError(Exception):
    """No picture of this race is possible; the text says why."""


@dataclass(frozen=True, slots=True)
class Curve:
    """The money on one runner, in dollars, at each poll of the race; 0 where the poll has no record of it."""

    runner_number: int
    name: str
    dollars: tuple[float, ...]

    @property
    def increments(self) -> tuple[float, ...]:
        """What each poll except the first added, in dollars; negative if money was taken away."""
        return tuple(after - before for before, after in pairwise(self.dollars))


@dataclass(frozen=True, slots=True)
class Curves:
    """The money of one race over time.

    Attributes:
        name: number and name of the race.
        title: name, place and time.
        minutes: of each poll, counted from the start as last known: negative before the start, positive after it.
        curves: sorted by the runner's number, without scratched runners.
    """

    race_id: str
    name: str
    title: str
    minutes: tuple[float, ...]
    curves: tuple[Curve, ...]

    @property
    def dollars(self) -> float:
        """The money on all runners at the last poll."""
        return sum(curve.dollars[-1] for curve in self.curves)


def curves_of(rows: Iterable[MoneyRow]) -> Curves:
    """The win money of one race.

    Args:
        rows: of one race, from any number of polls, in any order.

    Raises:
        NothingToShowError: no runner has money, or there is only one poll.
    """
    in_order = sorted(rows, key=lambda row: row.polling_timestamp)
    amounts: dict[datetime, dict[str, int]] = {}
    for row in in_order:
        amounts.setdefault(row.polling_timestamp, {})[row.entrant_id] = row.win_pool_amount
    curves = [
        Curve(row.runner_number, row.runner_name, tuple(at.get(entrant_id, 0) / 100 for at in amounts.values()))
        for entrant_id, row in {row.entrant_id: row for row in in_order}.items()
        if not row.is_scratched
    ]
    shown = sorted((curve for curve in curves if any(curve.dollars)), key=lambda curve: curve.runner_number)
    if not shown:
        raise NothingToShowError("no runner has any money in its win pool")
    race = in_order[-1]
    if len(amounts) == 1:
        raise NothingToShowError(f"there is only one poll of {race.race_name}; a picture needs two")
    minutes = tuple((polled_at - race.start_time) / _MINUTE for polled_at in amounts)
    return Curves(race.race_id, _name(race), _title(race), minutes, tuple(shown))


def spread(heights: Sequence[float], gap: float, floor: float) -> list[float]:
    """Places for labels near these heights: in the same order, at least `gap` apart, none below `floor`."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    groups: list[tuple[float, int]] = []  # labels that touch: their middle, and how many
    for index in order:
        middle, count = heights[index], 1
        while groups and middle - groups[-1][0] < gap * (count + groups[-1][1]) / 2:
            below, others = groups.pop()
            middle, count = (middle * count + below * others) / (count + others), count + others
        groups.append((middle, count))
    apart = [middle + gap * (place - (count - 1) / 2) for middle, count in groups for place in range(count)]
    raised = accumulate(apart, lambda below, place: max(place, below + gap), initial=floor - gap)
    places = dict(zip(order, list(raised)[1:], strict=True))
    return [places[index] for index in range(len(heights))]


def _name(race: MoneyRow) -> str:
    return race.race_name if race.race_number is None else f"R{race.race_number} {race.race_name}"


def _title(race: MoneyRow) -> str:
    where = f"{race.meeting_name}, " if race.meeting_name else ""
    start = race.start_time.astimezone(_AUCKLAND)
    return f"{_name(race)}  ·  {where}{start:%d %B %Y, %H:%M} {start.tzname()}"
