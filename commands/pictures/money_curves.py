"""What a picture of a race's money shows: a curve for each runner, a bar for each bucket, the title; pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate, groupby
from math import inf, isnan, nan
from typing import Final
from zoneinfo import ZoneInfo

from racepool.commands.pictures.told_money import flows_by_bucket, told_by
from racepool.protocol.visible import visible
from racepool.races.money_row import MoneyRow, PollRows
from racepool.races.race_clock import bucket_bounds

_AUCKLAND: Final = ZoneInfo("Pacific/Auckland")
LONGEST_TEXT: Final = 40
_MINUTE: Final = timedelta(minutes=1)


class NothingToShowError(Exception):
    """No picture of this race is possible; the text says why."""


@dataclass(frozen=True, slots=True)
class Curve:
    """The win money on one runner, in dollars, at each poll of the race; NaN where the poll does not tell it."""

    runner_number: int
    name: str
    dollars: tuple[float, ...]

    @property
    def last_told(self) -> float:
        """The money on the runner at the last poll that tells it."""
        return next(dollars for dollars in reversed(self.dollars) if not isnan(dollars))

    @property
    def lone_polls(self) -> list[int]:
        """The polls that tell the runner's money while neither the poll before nor the poll after does."""
        is_gap = [True, *map(isnan, self.dollars), True]
        return [index for index in range(len(self.dollars)) if is_gap[index : index + 3] == [True, False, True]]


@dataclass(frozen=True, slots=True)
class Bar:
    """What one time bucket brought.

    Attributes:
        left: where the bucket begins, in minutes from the start; negative before the start.
        right: where it ends.
        dollars: what came in on each runner, in the order of the curves; negative if its money became less.
    """

    left: float
    right: float
    dollars: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Curves:
    """The win money of one race over time.

    Attributes:
        name: number and name of the race.
        title: name, place and time.
        minutes: of each poll, counted from the start as last known: negative before the start, positive after it.
        curves: sorted by the runner's number, without scratched runners.
        bars: in the order of time.
    """

    race_id: str
    name: str
    title: str
    minutes: tuple[float, ...]
    curves: tuple[Curve, ...]
    bars: tuple[Bar, ...]

    @property
    def dollars(self) -> float:
        """The money on all runners, of each at the last poll that tells it."""
        return sum(curve.last_told for curve in self.curves)

    @property
    def silent_polls(self) -> list[int]:
        """The polls that tell the money of no runner."""
        return [index for index, untold in enumerate(self._untold()) if untold == len(self.curves)]

    @property
    def silences(self) -> list[tuple[float, float]]:
        """The times without told money: each from the last poll that tells money to the next one, in minutes."""
        silent, end = set(self.silent_polls), len(self.minutes) - 1
        runs = [list(run) for is_silent, run in groupby(range(end + 1), silent.__contains__) if is_silent]
        return [(self.minutes[max(run[0] - 1, 0)], self.minutes[min(run[-1] + 1, end)]) for run in runs]

    @property
    def is_any_runner_left_out(self) -> bool:
        """Whether a poll tells the money of some runners, but not of all."""
        return any(0 < untold < len(self.curves) for untold in self._untold())

    @property
    def extent(self) -> tuple[float, float]:
        """The first and the last minute to show.

        A poll may be at the very instant at which its bucket begins. Then the picture goes on to the end of the bucket.
        """
        last = self.minutes[-1]
        return self.minutes[0], max([last, *(bar.right for bar in self.bars if bar.left >= last)])

    def _untold(self) -> list[int]:
        """At each poll, how many runners it does not tell."""
        return [sum(map(isnan, at_poll)) for at_poll in zip(*(curve.dollars for curve in self.curves), strict=True)]


def curves_of(polls: Iterable[PollRows]) -> Curves:
    """The win money of one race.

    Args:
        polls: of one race, at least one, in any order.

    Raises:
        NothingToShowError: no runner has money, or there is only one poll.
    """
    in_order = sorted(polls, key=lambda poll: poll.polled_at)
    race_id, start = in_order[-1].race_id, in_order[-1].start_time
    told = told_by(in_order)
    latest = {row.entrant_id: row for poll in in_order for row in poll.rows}
    runners = sorted(
        (
            row
            for row in latest.values()
            if not row.is_scratched and any(at.get(row.entrant_id) for at in told.values())
        ),
        key=lambda row: row.runner_number,
    )
    if not runners:
        raise NothingToShowError(f"no poll of race {race_id} tells win money on a runner")
    race = max(latest.values(), key=lambda row: row.polling_timestamp)
    if len(told) == 1:
        raise NothingToShowError(f"there is only one poll of {race.race_name}; a picture needs two")
    minutes = tuple((polled_at - start) / _MINUTE for polled_at in told)
    curves = tuple(
        Curve(
            row.runner_number, _shown(row.runner_name), tuple(_dollars(at.get(row.entrant_id)) for at in told.values())
        )
        for row in runners
    )
    bars = tuple(
        _bar(time_interval, minutes[0], [flows.get(row.entrant_id, 0) for row in runners])
        for time_interval, flows in flows_by_bucket(race_id, start, told).items()
    )
    return Curves(race_id, _name(race), _title(race, start), minutes, curves, bars)


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


def _dollars(cents: int | None) -> float:
    return nan if cents is None else cents / 100


def _bar(time_interval: float, first_poll: float, flows: Sequence[int]) -> Bar:
    """The bar of a bucket. The bucket that holds all early polls begins with the first poll."""
    least, most = bucket_bounds(time_interval)
    return Bar(first_poll if most == inf else -most, -least, tuple(map(_dollars, flows)))


def _shown(text: str) -> str:
    """A text as a picture shows it: on one line, and not so long that no room is left for the curves."""
    text = visible(text)
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"


def _name(race: MoneyRow) -> str:
    return _shown(race.race_name if race.race_number is None else f"R{race.race_number} {race.race_name}")


def _title(race: MoneyRow, start: datetime) -> str:
    where = f"{_shown(race.meeting_name)}, " if race.meeting_name else ""
    local = start.astimezone(_AUCKLAND)
    return f"{_name(race)}  ·  {where}{local:%d %B %Y, %H:%M} {local.tzname()}"
