"""Tables and numbers in Markdown."""

from collections.abc import Iterable, Sequence

from benchmarks.figures import Spread


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, others: str = "---:") -> str:
    """A table. Its first column is text; the others are numbers, if not marked otherwise."""
    marks = ["---", *[others] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, marks, *rows)) + "\n"


def number(value: float) -> str:
    """The number with as few digits as its noise allows."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def with_quartiles(figures: Spread | None) -> str:
    """The median, and the quartiles where there is more than one figure."""
    if figures is None:
        return "-"
    if figures.low == figures.high:
        return number(figures.middle)
    return f"{number(figures.middle)} ({number(figures.low)}-{number(figures.high)})"
