"""Adds up the money tracker.

An entrant has many entries there, most of the last ones 0, and its percentage is their sum. To take the last entry
alone would give 0 for every entrant.
"""

from collections.abc import Iterable
from typing import NamedTuple

from racepool.races.money import Exact, add_up, exact_sum
from racepool.races.parts import MoneyTrackerEntry


class Percentages(NamedTuple):
    """The sums of one kind of percentage: of the holds, or of the bets."""

    by_entrant: dict[str | None, Exact]  # entries without an entrant's id are under None
    total: Exact | None  # of all entries; None if there is no entry


def add_up_entries(entries: Iterable[MoneyTrackerEntry]) -> tuple[Percentages, Percentages]:
    """The sums of the holds, and those of the bets. A percentage that is None is ignored."""
    holds: dict[str | None, list[float]] = {}
    bets: dict[str | None, list[float]] = {}
    for entry in entries:  # one loop: a race has a hundred entries
        entrant_id, hold, bet = entry.entrant_id, entry.hold_percentage, entry.bet_percentage
        if hold is not None:
            holds.setdefault(entrant_id, []).append(hold)
        if bet is not None:
            bets.setdefault(entrant_id, []).append(bet)
    return _percentages(holds), _percentages(bets)


def _percentages(numbers: dict[str | None, list[float]]) -> Percentages:
    by_entrant = {entrant_id: exact_sum(percentages) for entrant_id, percentages in numbers.items()}
    return Percentages(by_entrant, add_up(by_entrant.values()) if by_entrant else None)
