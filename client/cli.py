"""The command `racepool`: races from files, the pool itself, and a look at it."""

import fcntl
import json
import os
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from client.available_pool import available_pool
from client.chaos.command import chaos
from client.dead_command import dead
from client.display import result_json, screen_of_stdout, show_result, stats_table
from client.doctor.command import doctor
from client.exporter.command import exporter, require_extra
from client.keys_command import keygen, keys
from client.monitoring import fetch_stats, wait_for_workers
from client.pool_future import PoolFuture
from client.replay.command import replay
from client.replay.head import head_of
from client.supervision import STDOUT, child_environment, supervisord_command, write_configuration
from client.top.command import top
from client.zmq_pool import ZmqPool
from protocol import VERSION
from protocol.errors import BrokerUnavailableError, InvalidRaceError, PoolError, SettingsError
from protocol.exits import Exit
from protocol.keys import Role, broker_keys, peer_keys
from protocol.settings import MAX_SECONDS, Settings, variable
from protocol.transformed_race import TransformedRace

if TYPE_CHECKING:
    from client.album import Album

ASK_S = 1.0
OUTSTANDING_FILES = 64  # what is read ahead; more gains nothing, and a day of polls would not fit into memory
WATCH_S = 1.0
PROGRAM_CONTEXT = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


class _Group(click.Group):
    """Turns the pool's errors into one line and the documented exit code."""

    def invoke(self, context: click.Context) -> Any:  # noqa: ANN401  # as click has it
        try:
            return super().invoke(context)
        except PoolError as error:
            click.echo(f"racepool: {error}", err=True)
            context.exit(_exit_code(error))


def _exit_code(error: PoolError) -> int:
    match error:
        case SettingsError():
            return Exit.BAD_SETTINGS
        case BrokerUnavailableError():
            return Exit.NO_BROKER
        case _:
            return Exit.FAILURE


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, "-V", "--version", prog_name="racepool")
def main() -> None:
    """A worker pool that turns polls of the NZ tote into money-flow records, off your event loop.

    Settings come from RACEPOOL_... variables; `racepool config` shows them all.
    """


# --- races ------------------------------------------------------------------------------------------------------------


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


@main.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE…")
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
        with _told(out):
            out.mkdir(parents=True, exist_ok=True)
    album = None if plot is None else _album(plot)
    failures = 0
    screen = screen_of_stdout()
    with available_pool(Settings.load()) as pool, _progress(len(files), screen) as advance:
        for name, outcome in _results(pool, files, polled_at):
            advance()
            if isinstance(outcome, Exception):
                failures += 1
                click.echo(f"racepool: {name}: {outcome}", err=True)
                continue
            show_result(outcome, shape, screen)
            if out is not None:
                _write(outcome, out, name, shape)
            if album is not None and isinstance(outcome, TransformedRace):
                album.add(outcome)
    missing = [] if album is None else album.draw()
    for line in missing:
        click.echo(f"racepool: {line}", err=True)
    if failures:
        click.echo(f"racepool: {failures} of {len(files)} files failed", err=True)
    if failures or missing:
        context.exit(Exit.FAILURE)


def _album(target: Path) -> "Album":
    from client.album import Album  # noqa: PLC0415  # `racepool --help` is to start at once

    return Album(target)


def _results(
    pool: ZmqPool, files: Iterable[str], polled_at: datetime | None
) -> Iterator[tuple[str, TransformedRace | Exception]]:
    """Each file's result or error, in the order of the files."""
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
    """When the tote made this response; now, with a warning, where it does not say."""
    try:
        instant = head_of(body).generated_at
    except InvalidRaceError:  # the worker tells
        instant = None
    if instant is None:
        click.echo(f"racepool: {name}: has no header.generated_time; taking now (or give --polled-at)", err=True)
        return datetime.now(UTC)
    return instant


def _write(result: object, out: Path, name: str, shape: str) -> None:
    path = out / f"{_stem(name)}{'.ndjson' if shape == 'ndjson' else '.json'}"
    with _told(path):
        path.write_text(result_json(result, shape) + "\n", encoding="utf-8")


@contextmanager
def _told(target: Path) -> Iterator[None]:
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


@contextmanager
def _progress(total: int, screen: Console) -> Iterator[Any]:
    """A bar on a terminal, below what is printed there; nothing off it."""
    columns = (TextColumn("races"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = screen if screen.is_terminal else Console(stderr=True)
    bar = Progress(*columns, console=console, transient=True, disable=total == 1 or not console.is_terminal)
    with bar:
        task = bar.add_task("races", total=total)
        yield lambda: bar.advance(task)


# --- the pool ---------------------------------------------------------------------------------------------------------


@main.command()
@click.option("--workers", type=int, help="How many worker processes. [default: RACEPOOL_WORKERS, else 3]")
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="The run directory. [default: RACEPOOL_DIR]")
@click.option("--stdout", "to_stdout", is_flag=True, help="Log to standard output, not to files; for containers.")
@click.option("--exporter", "with_exporter", is_flag=True, help="Run `racepool exporter` beside them.")
@click.pass_context
def up(
    context: click.Context, *, workers: int | None, directory: Path | None, to_stdout: bool, with_exporter: bool
) -> None:
    """Run broker and workers under supervisord, in the foreground; Ctrl-C stops them all."""
    if to_stdout:
        _refuse_output_that_cannot_be_opened()
    if with_exporter:
        require_extra()
    given = {"workers": workers, "dir": directory and directory.absolute()}
    settings = Settings.load(**{name: value for name, value in given.items() if value is not None})
    broker_keys(settings)  # what the programs would say in their logs only, again and again
    peer_keys(settings, Role.WORKER, settings.backend, settings.heartbeat_endpoint)
    peer_keys(settings, Role.CLIENT, settings.stats_endpoint)  # the watchdog's
    holder = _lock_holder(settings.private_dir() / "broker.lock")
    if holder is not None:
        click.echo(f"racepool: another broker (pid {holder}) runs in {settings.dir}; stop it, or set --dir", err=True)
        context.exit(Exit.LOCK_TAKEN)
    where = "here" if to_stdout else f"in {settings.dir}/log"
    click.echo(f"racepool: a broker and {settings.workers} workers in {settings.dir}, logs {where}", err=to_stdout)
    hint = "racepool: Ctrl-C stops them; `racepool stats --watch` in another terminal shows them at work"
    click.echo(hint, err=to_stdout)
    _open_standard_descriptors()
    os.umask(0o077)  # logs and sockets are for this user alone
    configuration = write_configuration(settings, to_stdout=to_stdout, exporter=with_exporter)
    command = supervisord_command(configuration)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # a Ctrl-C waits until supervisord can take it
    os.execve(command[0], command, child_environment(settings))  # noqa: S606  # our own interpreter and file


def _open_standard_descriptors() -> None:
    """Of a shell that closed them (`>&-`), lest supervisord's files take their numbers."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number is the one that is free


def _refuse_output_that_cannot_be_opened() -> None:
    """The logs of its programs are opened by supervisord by their path, which a socket has not."""
    try:
        os.close(os.open(STDOUT, os.O_WRONLY | os.O_NOCTTY))
    except OSError as error:
        raise click.UsageError(
            f"--stdout: standard output cannot be opened by supervisord ({error.strerror}): it is a socket, as that of "
            "systemd's journal is, or another user's; leave --stdout out, and the logs are files in the run directory"
        ) from None


def _lock_holder(path: Path) -> str | None:
    """Who holds the broker's lock, None if nobody does."""
    try:
        with path.open("r+", encoding="utf-8") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except (BlockingIOError, PermissionError):
        return path.read_text(encoding="utf-8").strip() or "unknown"
    return None


def _program(name: str) -> click.Command:
    @click.pass_context
    def run(context: click.Context) -> None:
        command = [sys.executable, "-P", "-m", name, *context.args]
        os.execv(command[0], command)  # noqa: S606  # our own interpreter

    return click.Command(
        name, callback=run, context_settings=dict(PROGRAM_CONTEXT), add_help_option=False,
        help=f"Run one {name} in the foreground; `racepool {name} --help` lists its flags.",
    )  # fmt: skip


main.add_command(_program("broker"))
main.add_command(_program("worker"))
main.add_command(dead)
main.add_command(keygen)
main.add_command(keys)
main.add_command(chaos)
main.add_command(replay)
main.add_command(top)
main.add_command(doctor)
main.add_command(exporter)


# --- a look at it -----------------------------------------------------------------------------------------------------


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option("--watch", is_flag=True, help="Show them anew every second, until Ctrl-C.")
def stats(*, as_json: bool, watch: bool) -> None:
    """Show worker states, queue depth and counters, from the stats socket."""
    settings = Settings.load()
    screen = screen_of_stdout()
    figures = fetch_stats(settings, ASK_S)
    live = (
        Live(console=screen, auto_refresh=False, screen=True) if watch and screen.is_terminal and not as_json else None
    )
    with live or nullcontext():
        while True:
            if as_json:
                click.echo(figures.model_dump_json(indent=None if watch else 2))
            elif live is not None:
                live.update(stats_table(figures), refresh=True)
            else:
                screen.print(stats_table(figures, plain=not screen.is_terminal))
            if not watch:
                return
            time.sleep(WATCH_S)
            figures = fetch_stats(settings, ASK_S)


@main.command()
@click.option("--workers", type=click.IntRange(min=0), help="How many. [default: as many as the broker expects]")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0, MAX_SECONDS),
    default=30.0,
    show_default=True,
    help="Seconds to wait.",
)
@click.pass_context
def wait(context: click.Context, workers: int | None, timeout_s: float) -> None:
    """Return as soon as the workers are ready: for start-up scripts."""
    try:
        figures = wait_for_workers(Settings.load(), workers, timeout_s)
    except TimeoutError as error:
        click.echo(f"racepool: {error}; look at the workers' logs", err=True)
        context.exit(Exit.FAILURE)
    click.echo(f"{figures.total_workers} workers are ready")


@main.command()
def ping() -> None:
    """Ask the broker for a sign of life."""
    asked_at = time.perf_counter()
    broker = fetch_stats(Settings.load(), ASK_S).broker
    took_ms = (time.perf_counter() - asked_at) * 1000
    click.echo(f"broker {broker.version} (pid {broker.pid}, up {broker.uptime_s:.0f} s) answered in {took_ms:.1f} ms")


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print the settings as JSON.")
def config(*, as_json: bool) -> None:
    """Show every setting, its value, and where that came from."""
    settings = Settings.load()
    rows = [
        (variable(name), getattr(settings, name), settings.origin(name), field.description or "")
        for name, field in Settings.model_fields.items()
    ]
    if as_json:
        click.echo(
            json.dumps({name: {"value": value, "origin": origin} for name, value, origin, _ in rows}, default=str)
        )
    else:
        screen = screen_of_stdout()
        table = Table("Variable", "Value", "From", "Meaning", box=None)
        for name, value, origin, meaning in rows:
            shown = "" if value is None else escape(str(value))
            table.add_row(name, shown, origin, meaning, style="bold" if origin != "default" else "")
        screen.print(table)
    for name in Settings.unknown_variables():
        click.echo(f"racepool: {name} is set but is no setting", err=True)
