"""Adds up the money tracker: each entrant has many entries, and its percentage is their sum."""

from collections.abc import Iterable
from typing import NamedTuple

from racepool.races.money import Exact, add_up, exact_sum


class Percentages(NamedTuple):
    """The sums of one kind of percentage; entries without an entrant's id stand under None."""

    by_entrant: dict[str | None, Exact]
    total: Exact

    def of(self, entrant_id: str) -> float | None:
        """The entrant's sum as a float, None if it has no entries."""
        percentage = self.by_entrant.get(entrant_id)
        return None if percentage is None else float(percentage)


def add_up_entries(entries: Iterable[tuple[str | None, float | None]]) -> Percentages:
    """Sums up (entrant id, percentage) pairs; a null percentage counts as no entry."""
    numbers: dict[str | None, list[float]] = {}
    for entrant_id, percentage in entries:
        if percentage is not None:
            numbers.setdefault(entrant_id, []).append(percentage)
    by_entrant = {entrant_id: exact_sum(percentages) for entrant_id, percentages in numbers.items()}
    return Percentages(by_entrant, add_up(by_entrant.values()))
