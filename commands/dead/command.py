"""`racepool dead`: shows dead tasks, tries them again, removes them."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import click

from racepool.client.engine import Engine, started
from racepool.client.monitoring import fetch_stats
from racepool.commands.dead.display import dead_details, dead_table, facts_of, request_facts
from racepool.commands.dead.tasks import DeadTask, DeadTasks
from racepool.commands.display import show_result
from racepool.commands.output import say, say_json, screen_of_stdout, tell
from racepool.protocol.errors import PoolError
from racepool.protocol.exits import Exit
from racepool.protocol.parcel import Parcel
from racepool.protocol.settings import MAX_SECONDS, Settings
from racepool.races.payloads import Request, unpack_request

ASK_S = 1.0
IDS = "TASK is a task's id, or as much of its beginning as no other dead task has."
NOTHING = "no dead tasks"

T = TypeVar("T")

_names = click.argument("names", nargs=-1, metavar="[TASK]...")
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def dead() -> None:
    """Look at dead tasks, and try them again.

    The broker gave them up because their workers died. It keeps the latest in the run directory
    (RACEPOOL_DIR), with all that their clients submitted.
    """


@dead.command("list")
@_as_json
def list_(*, as_json: bool) -> None:
    """List all dead tasks, the latest first."""
    found = _found()
    _tell_unread(found)
    if as_json:
        say_json(json.dumps([facts_of(task) for task in found.tasks], indent=2))
    elif not found.tasks:
        say(NOTHING)
    else:
        screen = screen_of_stdout()
        plain = not screen.is_terminal
        names = [task.task_id if plain else found.short_id(task) for task in found.tasks]
        screen.print(dead_table(found.tasks, names, plain=plain))


@dead.command(epilog=IDS)
@click.argument("name", metavar="TASK")
@_as_json
@click.option(
    "--body",
    type=click.Path(dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Write its race there, and nothing else (- is standard output).",
)
def show(name: str, *, as_json: bool, body: str | None) -> None:
    """Show a dead task: its race, its attempts, what was submitted.

    With --body the race is written byte for byte as it was fetched, so that `racepool transform FILE` can try it alone.
    One that was submitted as a mapping is written as JSON.
    """
    task = _found().named(name)
    payload = task.payload()
    if body is not None:
        _write(_body_of(task, payload), body)
    elif as_json:
        say_json(json.dumps(facts_of(task) | request_facts(_request_in(payload)), indent=2))
    else:
        screen = screen_of_stdout()
        screen.print(dead_details(task, _request_in(payload), plain=not screen.is_terminal))


@dead.command(epilog=IDS)
@_names
@click.option("--all", "is_all", is_flag=True, help="All of them, the oldest first.")
@click.option(
    "--run-timeout",
    "run_timeout_s",
    type=click.FloatRange(0, MAX_SECONDS, min_open=True),
    help="Seconds that an attempt may take. [default: as before]",
)
@click.option("--keep", is_flag=True, help="Keep the record of a task that succeeds now.")
@click.pass_context
def retry(
    context: click.Context, names: tuple[str, ...], *, is_all: bool, run_timeout_s: float | None, keep: bool
) -> None:
    """Submit dead tasks again, one after the other, to the running broker.

    The result is printed, and the record removed. A task that still kills its workers does so in the pool that is in
    use. Exits with 1 if any task failed; its record is kept.
    """
    found = _found()
    if is_all:
        _tell_unread(found)
    tasks = _chosen(names, found.tasks[::-1] if is_all else None, found.named)
    if not tasks:
        say(NOTHING)
        return
    failures = 0
    with _client() as client:
        for task in tasks:
            try:
                _retry(task, client, run_timeout_s)
                if not keep:
                    task.remove()
            except PoolError as error:
                failures += 1
                tell(error)
    if failures:
        tell(f"{failures} of {len(tasks)} dead tasks failed, and are kept")
        context.exit(Exit.FAILURE)


@dead.command(epilog=IDS)
@_names
@click.option("--all", "is_all", is_flag=True, help="All of them.")
def remove(names: tuple[str, ...], *, is_all: bool) -> None:
    """Remove dead tasks; damaged records, too."""
    found = _found()
    chosen = _chosen(names, found.records if is_all else None, found.record_named)
    for each in chosen:
        each.remove()
    say(f"{len(chosen)} removed" if chosen else NOTHING)


def _found() -> DeadTasks:
    """The dead tasks in the run directory.

    Raises:
        SettingsError: the run directory is another user's, or others may enter it.
    """
    settings = Settings.load()
    if settings.dir.exists():
        settings.private_dir()
    return DeadTasks(settings.dir)


def _tell_unread(found: DeadTasks) -> None:
    for each in found.unread:
        tell(f"{each.path}: {each.reason}; skipped")


def _chosen(names: Iterable[str], everything: list[T] | None, named: Callable[[str], T]) -> list[T]:
    """The named ones, each once; or `everything`, if it is given."""
    chosen = list(dict.fromkeys(named(name) for name in names))
    if bool(chosen) is (everything is not None):
        raise click.UsageError("name one task or more, or give --all")
    return chosen if everything is None else everything


def _request_in(payload: bytes) -> Request | None:
    """The request; None if the payload is no request."""
    try:
        return unpack_request(payload)
    except ValueError:
        return None


def _body_of(task: DeadTask, payload: bytes) -> bytes:
    request = _request_in(payload)
    match request and request.race:
        case bytes() as body:
            return body
        case dict() as race:
            try:
                return json.dumps(race, default=str).encode()
            except (TypeError, ValueError) as error:
                raise PoolError(f"task {task.task_id}: its race cannot be written as JSON: {error}") from None
        case _:
            raise PoolError(f"task {task.task_id}: its payload is no request of this racepool's; {task.path} has it")


def _write(body: bytes, file: str) -> None:
    if file == "-":
        sys.stdout.buffer.write(body)
        sys.stdout.buffer.flush()
        return
    try:
        Path(file).write_bytes(body)
    except OSError as error:
        raise PoolError(f"{file}: {error.strerror}") from None


@contextmanager
def _client() -> Iterator[Engine]:
    """A client of the running broker.

    Raises:
        BrokerUnavailableError: no broker answered within a second. The connect timeout would be a long wait.
    """
    settings = Settings.load()
    fetch_stats(settings, ASK_S)
    settings.guard(settings.endpoint)
    client = started(settings)
    try:
        yield client
    finally:
        client.cancel_all()  # the task that was interrupted
        client.close()
        client.join()


def _retry(task: DeadTask, client: Engine, run_timeout_s: float | None) -> None:
    """Submits the task under its own id, and prints the result. If the broker gives it up again, the record is new."""
    settings = client.settings
    timeout_s = run_timeout_s or min(task.record.run_timeout_ms / 1000, MAX_SECONDS)
    longest_s = settings.queue_timeout + settings.max_attempts * (timeout_s + 2 * settings.liveness)
    with task.claimed():
        parcel = Parcel.of(task.payload())
        future = client.submit(parcel, settings.queue_timeout, timeout_s, task.record.task_id)
        try:
            result = future.result(longest_s)
        except PoolError:
            raise
        except TimeoutError:  # the broker has this task from another client
            future.cancel()
            raise PoolError(f"task {task.task_id}: no answer within {longest_s:g} s; look for it in the logs") from None
        show_result(result, "table", screen_of_stdout())
