"""Statistics of repeated measurements: medians, quartiles, percentiles, and ratios within rounds."""

from collections.abc import Sequence
from math import ceil
from statistics import median, quantiles
from typing import NamedTuple


class Spread(NamedTuple):
    """The middle of some figures, and the quartiles around it."""

    low: float
    middle: float
    high: float


def spread(figures: Sequence[float]) -> Spread:
    """The median and the quartiles; of a single figure, that figure."""
    if len(figures) == 1:
        return Spread(figures[0], figures[0], figures[0])
    low, _, high = quantiles(figures, n=4, method="inclusive")
    return Spread(low, median(figures), high)


def percentile(figures: Sequence[float], percent: float) -> float:
    """The smallest figure that `percent` percent of the figures do not exceed."""
    ordered = sorted(figures)
    return ordered[max(0, ceil(len(ordered) * percent / 100) - 1)]


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """The ratio of ours to theirs in each round: what disturbed a round disturbed both."""
    return [mine / other for mine, other in zip(ours, theirs, strict=False)]
