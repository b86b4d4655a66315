"""The command line of the benchmarks."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.contenders.registry import CONTENDERS, OURS, Contender
from benchmarks.machine import machine, versions
from benchmarks.measured import Measured
from benchmarks.process_tree import counts_run_time
from benchmarks.races import write_loads
from benchmarks.run import Run
from benchmarks.scale.measurement import cases, measure, steps
from racepool.protocol.exits import Exit
from racepool.protocol.extras import remedy

FOLDER = Path(__file__).parent / "report"
QUICK = {"only": ("ppe",), "rounds": 1, "scale": 0.02}
KEYS = click.Choice([key for key in CONTENDERS if key != OURS])

COLUMNS = (
    BarColumn(),
    TaskProgressColumn(),
    TimeElapsedColumn(),
    TimeRemainingColumn(),
    TextColumn("{task.description}"),
)
console = Console(stderr=True)
out_option = click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=FOLDER, help="Where the report goes."
)


@click.group(invoke_without_command=True)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="Rounds, after one to warm up.")
@click.option("--workers", type=click.IntRange(1), default=3, show_default=True, help="Workers of each pool.")
@click.option("--scale", type=click.FloatRange(0.001), default=1.0, show_default=True, help="Multiplies the tasks.")
@click.option("--only", type=KEYS, multiple=True, help="Beside this peer; several times for several.")
@click.option("--skip", type=KEYS, multiple=True, help="Not beside this one.")
@click.option("--quick", is_flag=True, help="A round of few tasks beside ProcessPoolExecutor, to see that all works.")
@out_option
@click.pass_context
def main(context: click.Context, /, *, quick: bool, **options: Any) -> None:  # noqa: ANN401  # click has checked them
    """Measure racepool beside its peers: the same races, the same transform, in interleaved rounds."""
    if find_spec("matplotlib") is None:
        raise click.ClickException(f"the report's pictures need matplotlib: {remedy('peers')}")
    if not counts_run_time():
        raise click.ClickException("this kernel tells no run time of threads (/proc/PID/schedstat); use a usual Linux")
    if context.invoked_subcommand is None:
        options |= QUICK if quick else {}
        contenders = _chosen(options.pop("only"), options.pop("skip"))
        try:
            side_by_side(contenders, options.pop("out"), options)
        except KeyboardInterrupt:
            console.print("interrupted; nothing was written")
            sys.exit(Exit.INTERRUPTED)


def _chosen(only: Sequence[str], skip: Sequence[str]) -> list[Contender]:
    others = only or [key for key in CONTENDERS if key not in skip]
    return [contender for key, contender in CONTENDERS.items() if key == OURS or key in others]


def side_by_side(contenders: Sequence[Contender], out: Path, numbers: Mapping[str, Any]) -> None:
    """Runs, and writes the report; exits with 1 if a contender failed."""
    absences = {contender.key: contender.absence() for contender in contenders}
    skipped = {key: why for key, why in absences.items() if why}
    for key, why in skipped.items():
        console.print(f"{CONTENDERS[key].title} is skipped: {why}", markup=False)
    present = [contender for contender in contenders if contender.key not in skipped]
    measured = Measured(at=datetime.now(UTC), machine=machine(), versions=versions(present), skipped=skipped, **numbers)
    _perform(present, measured)
    measured.save(_made(out))
    _publish(out)
    for failure in measured.failed.values():
        console.print(failure, style="red", markup=False)
    sys.exit(Exit.FAILURE if measured.failed else Exit.OK)


@main.command()
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Rounds of all cases.")
@click.option("--scale", type=click.FloatRange(0.001), default=1.0, show_default=True, help="Multiplies the tasks.")
@out_option
def scale(*, rounds: int, scale: float, out: Path) -> None:
    """Measure what a task costs the broker, by queued tasks, workers and clients."""
    all_cases = cases(scale)
    try:
        with Progress(*COLUMNS, console=console) as progress:
            task = progress.add_task("", total=steps(all_cases, rounds))
            measure(all_cases, rounds, lambda what: progress.update(task, advance=1, description=what))
    except KeyboardInterrupt:
        console.print("interrupted; nothing was written")
        sys.exit(Exit.INTERRUPTED)
    all_cases.save(_made(out))
    _publish(out)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _publish(out: Path) -> None:
    from benchmarks.publication import publish  # noqa: PLC0415  # matplotlib is of an extra

    publish(out, Console())


def _perform(contenders: Sequence[Contender], measured: Measured) -> None:
    with ExitStack() as stack:
        loads = Path(stack.enter_context(TemporaryDirectory(prefix="benchmarks-")))
        progress = stack.enter_context(Progress(*COLUMNS, console=console))
        task = progress.add_task("writing the races")
        write_loads(loads)
        run = Run(contenders, loads, measured, lambda what: progress.update(task, advance=1, description=what))
        progress.update(task, total=run.steps())
        run.perform()
        progress.update(task, completed=run.steps(), description="done")
