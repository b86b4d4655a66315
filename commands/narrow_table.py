"""Tables that fit into any width without cutting a figure. Knows no screen: rich draws what is laid out here.

If the width is too small, this is done, in this order: names become shorter and texts wrap, down to their `least`;
optional columns go; figures take their short form (money loses its cents); lines and padding go; the other columns go,
the last one first. A column of figures is shown whole or not at all, and the table says which columns it left out.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

from rich.box import ROUNDED
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from racepool.protocol.visible import visible

NUMBER = re.compile(r"\(?[-+]?\d[\d.,:]*[);]*")  # a word that is nothing but a number

Cell: TypeAlias = str | Text
Look: TypeAlias = Literal["lines", "plain", "tight"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        heading: may have several lines.
        least: None for figures, which are never cut; else how short a name or text may become.
        wraps: a text, which goes on in the next line; a name that is too long ends in an ellipsis.
        optional: 0 for a column that is needed; of the others the highest goes first.
        floor: the least width of a column that is not shortened, so that a live table does not jump.
        short: a cell's form where there is little room.
    """

    heading: str = ""
    least: int | None = None
    wraps: bool = False
    optional: int = 0
    justify: Literal["left", "right"] = "left"
    floor: int = 0
    style: str = ""
    short: Callable[[str], str] | None = None


def numbers(heading: str, optional: int = 0, *, floor: int = 0, short: Callable[[str], str] | None = None) -> Column:
    """A column of numbers."""
    return Column(heading, optional=optional, justify="right", floor=floor, short=short)


class Layout(NamedTuple):
    """How a table looks at one width.

    Attributes:
        shown: the columns' indices.
        widths: of those columns, without padding.
        is_short: whether cells take their short form.
        is_tight: whether there are neither lines nor padding, but one space between two columns.
    """

    shown: tuple[int, ...]
    widths: tuple[int, ...]
    is_short: bool
    is_tight: bool


@dataclass(frozen=True, slots=True)
class NarrowTable:
    """A table that rich can print. A row is one cell for each column, and its style.

    Attributes:
        look: `lines` around all cells, `plain` without lines, `tight` with one space between two columns.
    """

    columns: Sequence[Column]
    look: Look = "lines"
    rows: list[tuple[Sequence[Cell], str]] = field(default_factory=list)

    def add(self, *cells: Cell, style: str = "") -> None:
        """Appends a row. A string is shown without markup, and what is not printable is escaped."""
        self.rows.append(([cell if isinstance(cell, Text) else visible(cell) for cell in cells], style))

    def layout(self, width: int) -> Layout:
        """The first of all layouts, the fullest first, that fits into this width."""
        whole, short = (
            [self._natural(index, is_short) for index in range(len(self.columns))] for is_short in (False, True)
        )
        for shown, is_short, is_tight in self._candidates():
            natural = [(short if is_short else whole)[index] for index in shown]
            least = [self._least(index, size) for index, size in zip(shown, natural, strict=True)]
            spare = width - self._chrome(len(shown), is_tight=is_tight) - sum(least)
            if spare >= 0:
                return Layout(shown, tuple(_spread(spare, least, natural)), is_short, is_tight)
        return Layout((0,), (max(min(short[0], width), 1),), is_short=True, is_tight=True)

    def lines(self, width: int) -> list[Text]:
        """The headings and each row as exactly one line, for a screen that counts its lines. The look must be tight."""
        layout = self.layout(width)
        headings = [Text(column.heading, style="bold") for column in self.columns]
        lines = []
        for row in (headings, *(cells for cells, _ in self.rows)):
            cells = self.cells(row, layout)
            for cell, index, size in zip(cells, layout.shown, layout.widths, strict=True):
                cell.truncate(size, overflow="ellipsis")
                cell.align(self.columns[index].justify, size)
            lines.append(Text(" ").join(cells))
        return lines

    def cells(self, row: Sequence[Cell], layout: Layout) -> list[Text]:
        """The cells of a row that are shown."""
        return [self._cell(index, row[index], layout.is_short) for index in layout.shown]

    def left_out(self, layout: Layout) -> list[str]:
        """The headings of the columns that are not shown."""
        headings = (column.heading for index, column in enumerate(self.columns) if index not in layout.shown)
        return [" ".join(heading.split()) for heading in headings if heading]

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        layout = self.layout(options.max_width)
        is_tight = layout.is_tight
        table = Table(
            box=ROUNDED if self.look == "lines" and not is_tight else None,
            padding=(0, 1, 0, 0) if is_tight else (0, 1),
            pad_edge=not is_tight,
            show_header=any(column.heading for column in self.columns),
        )
        for index, width in zip(layout.shown, layout.widths, strict=True):
            column = self.columns[index]
            table.add_column(
                Text(column.heading), justify=column.justify, style=column.style, width=width,
                no_wrap=not column.wraps, overflow="fold" if column.wraps else "ellipsis",
            )  # fmt: skip
        for cells, style in self.rows:
            table.add_row(*self.cells(cells, layout), style=style)
        yield table
        left_out = self.left_out(layout)
        if left_out:
            yield Text(f"no room for: {', '.join(left_out)}", style="dim")

    def _candidates(self) -> Iterator[tuple[tuple[int, ...], bool, bool]]:
        """Which columns, whether short, whether tight: from the fullest to the narrowest."""
        columns = range(len(self.columns))
        optional = sorted((index for index in columns if self.columns[index].optional), key=self._goes_first)
        needed = [index for index in columns[:0:-1] if index not in optional]
        tight = self.look == "tight"

        def without(count: int) -> tuple[int, ...]:
            gone = [*optional, *needed][:count]
            return tuple(index for index in columns if index not in gone)

        for count in range(len(optional) + 1):
            yield without(count), False, tight
        yield without(len(optional)), True, tight
        for count in range(len(optional), len(optional) + len(needed) + 1):
            yield without(count), True, True

    def _goes_first(self, index: int) -> int:
        return -self.columns[index].optional

    def _chrome(self, count: int, *, is_tight: bool) -> int:
        """The width of lines and padding."""
        if is_tight:
            return count - 1
        return 3 * count + 1 if self.look == "lines" else 2 * count

    def _natural(self, index: int, is_short: bool) -> int:  # noqa: FBT001  # as the layout has it
        column = self.columns[index]
        cells = (self._cell(index, row[index], is_short).plain for row, _ in self.rows)
        return max(column.floor, *map(cell_len, column.heading.split("\n")), *map(cell_len, cells))

    def _least(self, index: int, natural: int) -> int:
        """A text wraps between words, but it may be no narrower than a number in it."""
        column = self.columns[index]
        if column.least is None:
            return natural
        texts = (str(row[index]) for row, _ in self.rows) if column.wraps else ()
        numbers_in_it = (len(word) for text in texts for word in text.split() if NUMBER.fullmatch(word))
        return max(min(column.least, natural), *numbers_in_it, 0)

    def _cell(self, index: int, cell: Cell, is_short: bool) -> Text:  # noqa: FBT001  # as the layout has it
        short = self.columns[index].short
        if isinstance(cell, Text):
            return cell.copy()
        return Text(short(cell) if is_short and short else cell)


def _spread(spare: int, least: Sequence[int], natural: Sequence[int]) -> Iterator[int]:
    """What is left goes to the columns that could use it, from the left."""
    for lower, upper in zip(least, natural, strict=True):
        width = min(upper, lower + spare)
        spare -= width - lower
        yield width
