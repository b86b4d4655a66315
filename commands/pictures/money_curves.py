"""What a picture of a race's money shows: a curve for each runner, what each poll brought, the words around; pure."""

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
    """A race of which no picture can be made; the text says why."""


@dataclass(frozen=True, slots=True)
class Curve:
    """The money on one runner, in dollars, at each poll of the race; 0 where no record tells of any."""

    runner_number: int
    name: str
    dollars: tuple[float, ...]

    @property
    def increments(self) -> tuple[float, ...]:
        """What each poll but the first brought, in dollars; negative where money went."""
        return tuple(after - before for before, after in pairwise(self.dollars))


@dataclass(frozen=True, slots=True)
class Curves:
    """The money of one race over time.

    Attributes:
        name: number and name of the race.
        title: name, place and time.
        minutes: of each poll, to the start as last known: negative before it, positive after it.
        curves: by the number of the runner, without those that were scratched.
    """

    race_id: str
    name: str
    title: str
    minutes: tuple[float, ...]
    curves: tuple[Curve, ...]

    @property
    def dollars(self) -> float:
        """All that lies on the runners at the last poll."""
        return sum(curve.dollars[-1] for curve in self.curves)


def curves_of(rows: Iterable[MoneyRow]) -> Curves:
    """The win money of one race.

    Args:
        rows: of one race, of any number of polls in any order.

    Raises:
        NothingToShowError: no runner has money, or there is one poll only.
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
        raise NothingToShowError(f"there is one poll only of {race.race_name}, and no time passes in it")
    minutes = tuple((polled_at - race.start_time) / _MINUTE for polled_at in amounts)
    return Curves(race.race_id, _name(race), _title(race), minutes, tuple(shown))


def spread(heights: Sequence[float], gap: float, floor: float) -> list[float]:
    """Places for labels at these heights: in their order, `gap` apart, none below `floor`, else as near as may be."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    groups: list[tuple[float, int]] = []  # the middle of labels that touch, and how many they are
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
