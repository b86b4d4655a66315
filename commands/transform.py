"""`racepool transform`: polls from files to tables, JSON or NDJSON."""

import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from racepool.client.future import PoolFuture
from racepool.client.zmq_pool import ZmqPool
from racepool.commands.available_pool import available_pool
from racepool.commands.display import result_json, show_result
from racepool.commands.output import moving_bar, screen_of_stderr, screen_of_stdout, tell
from racepool.commands.replay.head import head_of
from racepool.protocol.errors import InvalidRaceError, PoolError
from racepool.protocol.exits import Exit
from racepool.protocol.settings import Settings
from racepool.races.json_text import json_text
from racepool.races.transformed_race import TransformedRace

if TYPE_CHECKING:
    from racepool.commands.pictures.album import Album

OUTSTANDING_FILES = 64  # files read ahead; more gains nothing, and a day of polls does not fit into memory


class _Instant(click.ParamType[datetime]):
    name = "instant"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> datetime:  # noqa: ANN401  # as click has it
        try:
            instant = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no instant such as 2025-07-17T00:45:00Z", param, context)
        if instant.tzinfo is None:
            self.fail(f"{value!r} has no time zone; append Z or +12:00", param, context)
        return instant


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Write each result there, as NAME.json.")
@click.option(
    "--format", "shape", type=click.Choice(["table", "json", "ndjson"]), default="table", show_default=True,
    help="What to print: a table, or a TransformedRace each as indented JSON or as one line.",
)  # fmt: skip
@click.option(
    "--polled-at", type=_Instant(), help="When the races were polled; default: the response's generated_time."
)
@click.option(
    "--plot", type=click.Path(path_type=Path), metavar="FILE|DIR",
    help="Draw the money on each runner over the polls: one race as NAME.png, or each race into a folder.",
)  # fmt: skip
@click.pass_context
def transform(  # noqa: PLR0913  # options are arguments
    context: click.Context,
    *,
    files: tuple[str, ...],
    out: Path | None,
    shape: str,
    polled_at: datetime | None,
    plot: Path | None,
) -> None:
    """Transform polls of races: NZ TAB responses or normalised races, as JSON files (- is standard input).

    Uses the running broker, else a local pool of its own. Exits with 1 if any file failed.
    """
    if out is not None:
        _refuse_equal_names(files)
        _refuse_to_overwrite_polls(files, out, shape)
        with _write_errors(out):
            out.mkdir(parents=True, exist_ok=True)
    album = _album(plot)
    failures = 0
    screen = screen_of_stdout()
    with available_pool(Settings.load()) as pool, _progress(len(files), screen) as advance:
        for name, outcome in _results(pool, files, polled_at):
            advance()
            if isinstance(outcome, Exception):
                failures += 1
                tell(f"{name}: {outcome}")
                continue
            show_result(outcome, shape, screen)
            if out is not None:
                _write(outcome, out, name, shape)
            if album is not None and isinstance(outcome, TransformedRace):
                album.add(outcome)
    missing = [] if album is None else album.draw()
    for line in missing:
        tell(line)
    if failures:
        tell(f"{failures} of {len(files)} files failed")
    if failures or missing:
        context.exit(Exit.FAILURE)


def _album(plot: Path | None) -> "Album | None":
    if plot is None:
        return None
    from racepool.commands.pictures.album import Album  # noqa: PLC0415  # `racepool --help` must start quickly

    return Album(plot)


def _results(
    pool: ZmqPool, files: Iterable[str], polled_at: datetime | None
) -> Iterator[tuple[str, TransformedRace | Exception]]:
    """The result or error of each file, in the order of the files."""
    outstanding: deque[tuple[str, PoolFuture[TransformedRace] | Exception]] = deque()
    for name in files:
        outstanding.append((name, _submitted(pool, name, polled_at)))
        if len(outstanding) >= OUTSTANDING_FILES:
            yield _settled(*outstanding.popleft())
    while outstanding:
        yield _settled(*outstanding.popleft())


def _submitted(pool: ZmqPool, name: str, polled_at: datetime | None) -> PoolFuture[TransformedRace] | Exception:
    try:
        body = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return pool.exec(body, polled_at=polled_at or _generated_time(body, name))
    except (OSError, PoolError) as error:
        return OSError(error.strerror) if isinstance(error, OSError) and error.strerror else error


def _settled(name: str, outcome: PoolFuture[TransformedRace] | Exception) -> tuple[str, TransformedRace | Exception]:
    if isinstance(outcome, Exception):
        return name, outcome
    try:
        return name, outcome.result()
    except PoolError as error:
        return name, error


def _generated_time(body: bytes, name: str) -> datetime:
    """When the tote made this response; if the response does not say, now, with a warning."""
    try:
        instant = head_of(json_text(body)).generated_at
    except InvalidRaceError:  # the worker reports that
        instant = None
    if instant is None:
        tell(f"{name}: has no header.generated_time; taking now (or give --polled-at)")
        return datetime.now(UTC)
    return instant


def _write(result: object, out: Path, name: str, shape: str) -> None:
    path = _place(out, name, shape)
    with _write_errors(path):
        path.write_text(result_json(result, shape) + "\n", encoding="utf-8")


def _place(out: Path, name: str, shape: str) -> Path:
    return out / f"{_stem(name)}{'.ndjson' if shape == 'ndjson' else '.json'}"


@contextmanager
def _write_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PoolError(f"--out {target}: {error.strerror}") from None


def _stem(name: str) -> str:
    return "stdin" if name == "-" else Path(name).stem


def _refuse_equal_names(files: Iterable[str]) -> None:
    name, count = Counter(_stem(file) for file in files).most_common(1)[0]
    if count > 1:
        raise click.UsageError(f"{count} of the files are called {name}; with --out, one would overwrite the other")


def _refuse_to_overwrite_polls(files: Iterable[str], out: Path, shape: str) -> None:
    """Results have the names of the polls, so they need another folder."""
    for name in files:
        with suppress(OSError):  # one of them does not exist
            if name != "-" and _place(out, name, shape).samefile(name):
                raise click.UsageError(f"--out {out}: the result of {name} would overwrite it; name another folder")


@contextmanager
def _progress(total: int, screen: Console) -> Iterator[Any]:
    """A bar below the results, for several files on a terminal. Gives what advances it."""
    from rich.progress import (  # noqa: PLC0415  # as above
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("races"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = screen if screen.is_terminal else screen_of_stderr()
    is_hidden = total == 1 or not console.is_terminal
    bar = moving_bar(console, *columns, is_hidden=is_hidden)
    with bar:
        task = bar.add_task("races", total=total)
        yield lambda: bar.advance(task)
