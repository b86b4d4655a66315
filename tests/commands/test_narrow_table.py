"""No width cuts a figure: in the sample races, and in every other table of the command."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console, RenderableType

from racepool.commands.chaos.report import _fault_table
from racepool.commands.display import race_table, stats_table
from racepool.commands.narrow_table import Column, Look, NarrowTable, numbers
from racepool.commands.output import PLAIN_WIDTH
from racepool.races.race import RaceData
from racepool.races.transform import transform_race
from tests.commands.stats import pool, spread, worker
from tests.running import ROOT

WIDTHS = range(40, 201)
SAMPLES = sorted((ROOT / "samples").glob("*.json"))
NUMBER = re.compile(r"(?<![\w.,])-?\d[\d,.]*(?:\.\d+)?")
MILLISECONDS = {"p50": 1_234.5, "p90": 12_345.6, "max": 123_456.7}


def drawn(table: RenderableType, width: int) -> str:
    screen = Console(width=width, force_terminal=True, color_system=None)
    with screen.capture() as captured:
        screen.print(table)
    return captured.get()


def numbers_in(text: str) -> set[str]:
    return {number.rstrip(",.") for number in NUMBER.findall(text)}


def race(path: Path) -> RenderableType:
    polled_at = datetime(2025, 7, 17, 0, 47, tzinfo=UTC)
    return race_table(transform_race(RaceData.parse(path.read_bytes()), polled_at=polled_at))


def busy_pool() -> RenderableType:
    workers = [
        worker(
            f"worker-{index}", pid=4_100_000 + index, state="busy", task_id="deadbeef" * 4, busy_for_s=1_234.5,
            tasks_completed=12_345_678, tasks_failed=9_876,
        )
        for index in range(12)
    ]  # fmt: skip
    waits = spread(3, 2, 1, 0).model_copy(update={"p50": 1234.5, "p90": 23456.7, "p99": 345678.9, "max": 4567890.1})
    return stats_table(pool(*workers, queue_wait_ms=waits, run_ms=waits))


def faults() -> RenderableType:
    row = {
        "kind": "worker_killed_in_its_sleep", "injected": 1_234, "missed": [1] * 12, "longest_exec_s": 12.34,
        "detected": {"process_exit": 1_200, "silence": 22}, "detection_ms": MILLISECONDS, "recovery_ms": MILLISECONDS,
    }  # fmt: skip
    return _fault_table([row], plain=False)


@pytest.mark.parametrize(
    "table",
    [*(pytest.param(lambda path=path: race(path), id=path.stem) for path in SAMPLES), busy_pool, faults],
)
def test_every_figure_is_whole_at_every_width(table: Callable[[], RenderableType]) -> None:
    whole = numbers_in(drawn(table(), PLAIN_WIDTH))
    rounded = {f"{float(number.replace(',', '')):,.0f}" for number in whole if "." in number and number.count(".") == 1}

    for width in WIDTHS:
        text = drawn(table(), width)

        assert numbers_in(text) - whole - rounded == set(), width
        assert max(map(cell_len, text.splitlines())) <= width


def test_at_80_columns_a_race_shows_its_money_to_the_cent_and_says_what_it_left_out() -> None:
    text = drawn(race(ROOT / "samples" / "thoroughbred.json"), 80)

    assert "1,327.54" in text
    assert "no room for: Bet %, Fixed win, Tote win" in text


def test_cents_are_rounded_off_before_the_lines_go() -> None:
    table = NarrowTable((Column("Runner", least=6), numbers("Money", short=lambda money: money.partition(".")[0])))
    table.add("Paper Kettle", "1,234,567.89")

    assert [layout.is_short for layout in map(table.layout, (24, 25))] == [True, False]
    assert [layout.is_tight for layout in map(table.layout, (21, 22))] == [True, False]


def test_columns_go_by_their_rank_and_the_first_one_stays() -> None:
    table = NarrowTable((Column("Name", least=4), numbers("A", 1), numbers("B", 2), numbers("C")), "tight")
    table.add("worker-0", "1111", "2222", "3333")

    shown = [table.layout(width).shown for width in (19, 18, 14, 13, 8, 1)]

    assert shown == [(0, 1, 2, 3), (0, 1, 3), (0, 1, 3), (0, 3), (0,), (0,)]


def test_text_is_no_narrower_than_a_number_in_it() -> None:
    table = NarrowTable((Column("Text", least=4, wraps=True), numbers("Number", 1)), "tight")
    table.add("no more than 4294967296 bytes", "12")

    assert "4294967296" in drawn(table, 12)
    assert table.layout(12).shown == (0,)


@given(
    st.lists(st.tuples(st.text("abc 0", max_size=30), st.integers(0, 10**9), st.integers(0, 10**6)), min_size=1),
    st.integers(1, 120),
    st.sampled_from(["lines", "plain", "tight"]),
)
def test_no_line_is_wider_than_the_screen_and_no_number_is_cut(
    rows: list[tuple[str, int, int]], width: int, look: Look
) -> None:
    table = NarrowTable((Column("Name", least=5), numbers("Optional", 1), numbers("Needed")), look)
    for name, *amounts in rows:
        table.add(name, *(f"{amount:,}" for amount in amounts))
    layout = table.layout(width)

    text = drawn(table, width)

    assert max(map(cell_len, text.splitlines())) <= width
    for index in set(layout.shown) - {0}:
        assert all(re.search(rf"(?<![\d,]){row[index]:,}(?![\d,…])", text) for row in rows)


def test_what_a_program_reads_is_whole() -> None:
    table = NarrowTable((Column("Name", least=4), Column("Text", least=4, wraps=True)), "plain")
    table.add("n" * 500, "word " * 500)

    (_, line) = drawn(table, PLAIN_WIDTH).splitlines()

    assert line.split() == ["n" * 500, *["word"] * 500]
