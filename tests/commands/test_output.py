"""Text from outside is shown escaped by each verb and in each table; all that is printed goes through one module."""

import ast
import io
import json
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console, RenderableType

from racepool.commands import output
from racepool.commands.dead.display import dead_details, dead_table
from racepool.commands.dead.tasks import DeadTask
from racepool.commands.display import race_table, stats_table
from racepool.commands.doctor import command as doctor
from racepool.commands.doctor.finding import Level, problem
from racepool.commands.group import VERBS, main
from racepool.commands.narrow_table import Column, NarrowTable
from racepool.commands.output import STAND_INS, say, say_json, screen_of_stdout, tell
from racepool.commands.top.screen import View, frame, snapshot
from racepool.commands.top.trend import PoolTrend
from racepool.protocol.flags import from_command_line
from racepool.protocol.messages import Id
from racepool.protocol.quarantine import LostAttempt, Record
from racepool.protocol.settings import Settings
from racepool.protocol.stats import Event
from racepool.races.race import RaceData
from racepool.races.transform import transform_race
from racepool.races.transformed_race import TransformedRace
from tests.commands.stats import NOON, broker, pool, worker
from tests.hostile import HOSTILE, is_harmless
from tests.running import ROOT

SAMPLE = (ROOT / "samples" / "harness.json").read_bytes()
COMMANDS = ROOT / "commands"
kinds = pytest.mark.parametrize("text", HOSTILE.values(), ids=list(HOSTILE))


def race(text: str) -> TransformedRace:
    """A race in which each text is this one."""
    plain = transform_race(RaceData.parse(SAMPLE), polled_at=datetime.now(UTC))
    assert plain.meeting
    assert plain.race_pools
    entrants = tuple(each.model_copy(update={"name": text}) for each in plain.entrants)
    return plain.model_copy(
        update={
            "race_name": text,
            "status": text,
            "meeting": plain.meeting.model_copy(update={"name": text}),
            "race": plain.race.model_copy(update={"start_time_nz": text}),
            "entrants": entrants,
            "race_pools": plain.race_pools.model_copy(update={"currency": text}),
            "warnings": (text,),
        }
    )


def tables(text: str) -> Iterator[RenderableType]:
    """Everything that is printed with rich, with this text wherever text comes from outside."""
    event = Event(at=NOON, event=text, worker=text, task_id=text, reason=text)
    stats = pool(worker(text, task_id=text), broker=broker(version=text), recent_events=[event])
    trend = PoolTrend(0.0)
    for number, each in enumerate((pool(worker("w"), worker(text)), stats)):
        trend.on_stats(each, float(number), NOON)
    view = View(trend, 3.0, NOON, text, text, 1)
    silent = PoolTrend(0.0)
    silent.on_silence(2.0)
    record = Record(Id(bytes(16)), 1_700_000_005_000, 7_500, (LostAttempt(text, text, 9, 0, 1),), 0, 0)
    task = DeadTask(Path("/x", text.replace("\0", "\1")), record, text, text)
    table = NarrowTable((Column("Name", least=5, wraps=True),))
    table.add(text)
    for plain in (True, False):
        yield race_table(race(text), plain=plain)
        yield stats_table(stats, plain=plain)
        yield dead_table([task], [text], plain=plain)
        yield dead_details(task, None, plain=plain)
    yield from (snapshot(view, 240), frame(view, 200, 40), snapshot(View(silent, 3.0, NOON, text, text, 1), 240))
    yield table


@kinds
def test_table_shows_text_from_outside_escaped(text: str) -> None:
    screen = Console(width=1_000, force_terminal=True, color_system=None, file=io.StringIO())

    for each in tables(text):
        with screen.capture() as captured:
            screen.print(each)
        assert is_harmless(captured.get())


@kinds
@pytest.mark.parametrize("is_terminal", [True, False])
def test_doctor_shows_text_from_outside_escaped(
    capsys: pytest.CaptureFixture[str], text: str, *, is_terminal: bool
) -> None:
    screen = Console(width=1_000, force_terminal=is_terminal, color_system=None)

    doctor._show([problem("keys", text, text)], Counter({Level.PROBLEM: 1}), screen)

    assert is_harmless(capsys.readouterr().out)


@pytest.mark.parametrize("verb", [None, *sorted({*VERBS} - {"broker", "worker"})])
def test_usage_error_shows_an_argument_escaped(verb: str | None) -> None:
    for text in HOSTILE.values():
        arguments = [f"--{text}", "x"] if verb is None else [verb, f"--{text}", "x"]

        done = CliRunner().invoke(main, arguments, prog_name="racepool")

        assert done.exit_code == 2
        assert is_harmless(done.stderr)


@kinds
def test_program_that_reads_its_own_flags_shows_an_argument_escaped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["broker", f"--{text}"])

    with pytest.raises(SystemExit):
        from_command_line(Settings, "racepool broker")

    assert is_harmless(capsys.readouterr().err)


@kinds
def test_line_shows_text_escaped(capsys: pytest.CaptureFixture[str], text: str) -> None:
    tell(text)
    say(text, text)

    shown = capsys.readouterr()
    assert is_harmless(shown.err)
    assert is_harmless(shown.out.replace("\t", " "))
    assert shown.err.count("racepool: ") <= 2


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_has_the_same_value_in_any_encoding(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", stream)

    say_json('{"name": "Mōkai \\u001b 語 \U0001f40e \x9b"}')

    shown = stream.buffer.getvalue().decode(encoding)
    assert shown.rstrip("\n").isprintable()
    assert json.loads(shown) == {"name": "Mōkai \x1b 語 \U0001f40e \x9b"}


@pytest.mark.parametrize("columns", ["0", "-1", "x", "20"])
def test_screen_is_as_wide_as_the_terminal_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes standard output for a terminal

    screen = screen_of_stdout()

    assert screen.width == (20 if columns == "20" else 80)
    assert screen.height > 0


def test_dumb_terminal_is_as_wide_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TERM": "dumb", "FORCE_COLOR": "1", "COLUMNS": "40"}.items():
        monkeypatch.setenv(name, value)

    assert screen_of_stdout().width == 40


@pytest.mark.parametrize("width", [20, 30, 80])
def test_narrow_terminal_still_shows_what_doctor_found(capsys: pytest.CaptureFixture[str], width: int) -> None:
    screen = Console(width=width, force_terminal=True, color_system=None)

    doctor._show([problem("run directory", "is full", "make room")], Counter({Level.PROBLEM: 1}), screen)

    assert "problem is full" in " ".join(capsys.readouterr().out.replace("run directory", "").split())


def printing(path: Path) -> list[int]:
    """The lines that print past the module for it."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    names = {"click.echo", "click.secho", "print", "Console", "sys.stdout.write", "sys.stderr.write"}
    return [call.lineno for call in calls if ast.unparse(call.func) in names]


def test_everything_is_printed_by_one_module() -> None:
    paths = [path for path in COMMANDS.rglob("*.py") if path != Path(output.__file__).resolve()]

    assert {str(path): lines for path in paths if (lines := printing(path))} == {}
    assert printing(COMMANDS / "output.py"), "the rule finds what it forbids"


def test_stand_in_has_the_width_of_what_it_stands_for() -> None:
    screen = Console(width=80)

    assert all(len(stand_in) == 1 == screen.measure(sign).maximum for sign, stand_in in STAND_INS.items())
    assert "".join(STAND_INS.values()).isascii()
