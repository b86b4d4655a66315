"""`racepool chaos`: runs the crash lab and shows its findings."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import randbelow
from typing import Any

import click
from rich.text import Text

from racepool.commands.chaos import lab, plot, report
from racepool.commands.chaos.kinds import KINDS, Kind, UnknownKindError, chosen
from racepool.commands.chaos.plan import Plan
from racepool.commands.output import say, screen_of_stderr, screen_of_stdout, tell
from racepool.protocol.errors import PoolError
from racepool.protocol.exits import Exit
from racepool.protocol.extras import require
from racepool.protocol.settings import MAX_SECONDS
from racepool.protocol.visible import visible

SEEDS = 10**6
PLAIN_EVERY = 10


_WIDTH = max(map(len, KINDS))
_LINES = [f"  {name:{_WIDTH}}  {kind.about}" for name, kind in KINDS.items()]
_TABLE = "\n".join(["\b", "Kinds of faults:", *_LINES])  # \b: click does not wrap this paragraph


class _Kinds(click.ParamType[tuple[Kind, ...]]):
    name = "kinds"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> tuple[Kind, ...]:  # noqa: ANN401  # as click has it
        try:
            return tuple(chosen(value))
        except UnknownKindError as error:
            self.fail(str(error), param, context)


def _writable(_context: click.Context, _param: click.Parameter, path: Path | None) -> Path | None:
    """Refuses a file that cannot be written before the run starts, not at its end."""
    if path is not None:
        try:
            path.open("ab").close()
        except OSError as error:
            raise click.BadParameter(f"{path}: {error.strerror}") from None
    return path


_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(epilog=_TABLE)
@click.option(
    "--seconds", type=click.FloatRange(5, MAX_SECONDS), default=30.0, show_default=True, help="Length of the load."
)
@click.option("--rate", type=click.FloatRange(1, 1_000), default=40.0, show_default=True, help="Submissions a second.")
@click.option(
    "--every",
    "every_s",
    type=click.FloatRange(0.2, 3_600),
    default=1.5,
    show_default=True,
    help="Seconds from fault to fault, on average.",
)
@click.option(
    "--faults",
    "kinds",
    type=_Kinds(),
    default="all",
    show_default=True,
    help="Kinds, such as worker-kill,broker-kill or all,-poison.",
)
@click.option("--seed", type=click.IntRange(min=0), help="The same seed gives the same schedule. [default: a new one]")
@click.option(
    "--transform", metavar="M:F", help="The transform, as package.module:function. [default: RACEPOOL_TRANSFORM]"
)
@click.option("--workers", type=click.IntRange(2, 64), default=3, show_default=True, help="How many worker processes.")
@click.option("--json", "json_file", type=_FILE, callback=_writable, help="Write all results to this file.")
@click.option("--plot", "picture", type=_FILE, callback=_writable, help="Draw the memory over time to this file (PNG).")
@click.option("--keep", is_flag=True, help="Keep the run directory even if nothing broke.")
@click.pass_context
def chaos(  # noqa: PLR0913  # options are arguments
    context: click.Context,
    *,
    seconds: float,
    rate: float,
    every_s: float,
    kinds: tuple[Kind, ...],
    seed: int | None,
    transform: str | None,
    workers: int,
    json_file: Path | None,
    picture: Path | None,
    keep: bool,
) -> None:
    """Break a private pool under load in many ways, and check whether it keeps its promises.

    Workers, broker, supervisord and clients are killed and frozen. Races hang or kill their workers. Broken messages
    arrive at every socket. Each result is compared with the right one, which was computed before. The exit code is 0 if
    nothing broke, and 1 if a promise broke (then logs and records are kept) or if no fault could be done. Ctrl-C ends
    the run early and shows the findings so far.
    """
    try:
        if picture is not None:
            require("matplotlib", extra="plot", purpose="--plot")
        plan = Plan(randbelow(SEEDS) if seed is None else seed, seconds, rate, kinds, every_s, workers)
        with _progress() as show:
            findings = lab.Lab(plan, transform, show).run(keep=keep)
    except lab.LabError as error:
        tell(error)
        context.exit(Exit.FAILURE)
    screen = screen_of_stdout()
    screen.print(report.report(findings, plain=not screen.is_terminal))
    try:
        if json_file is not None:
            json_file.write_text(json.dumps(report.as_json(findings), indent=2) + "\n", encoding="utf-8")
        if picture is not None:
            plot.plot(findings, picture)
    except OSError as error:
        raise PoolError(f"the findings cannot be written: {error.strerror}") from None
    if keep and findings.holds:
        say(f"logs and records are in {findings.directory}")
    if not findings.holds:
        context.exit(Exit.FAILURE)
    if not findings.is_whole:
        context.exit(Exit.INTERRUPTED)
    if not findings.tried:
        context.exit(Exit.FAILURE)


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """On a terminal, one line that changes. Elsewhere, every new text, and the count every ten seconds."""
    if sys.stderr.isatty():
        with screen_of_stderr().status("") as status:
            yield lambda line: status.update(Text(visible(line)))
        return
    yield _PlainLines()


class _PlainLines:
    """Prints a count only every PLAIN_EVERY seconds, and any other line at once."""

    def __init__(self) -> None:
        self._said_at = -PLAIN_EVERY

    def __call__(self, line: str) -> None:
        counted = line.partition(" of ")[0].strip()
        if counted.isdecimal():
            if int(counted) < self._said_at + PLAIN_EVERY:
                return
            self._said_at = int(counted)
        tell(line)
