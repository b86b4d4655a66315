"""The options of `racepool replay`."""

from pathlib import Path
from typing import Any

import click

from racepool.commands.output import tell
from racepool.commands.replay.outputs import SCHEMES
from racepool.commands.replay.replay_run import Errand, ReplayRun
from racepool.protocol.errors import PoolError
from racepool.protocol.exits import Exit
from racepool.protocol.settings import Settings


class _FileOrDatabase(click.Path):
    """A file's path as Path, or the URL of a database as text."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """See click.ParamType."""
        is_url = isinstance(value, str) and value.startswith(SCHEMES)
        return value if is_url else super().convert(value, param, ctx)


@click.command()
@click.argument(
    "paths", nargs=-1, required=True, metavar="DIR|FILE...", type=click.Path(exists=True, readable=True, path_type=Path)
)
@click.option(
    "--out",
    type=_FileOrDatabase(dir_okay=False, allow_dash=True, path_type=Path),
    metavar="FILE|URL",
    help="Write the rows to this file: NAME.parquet, NAME.ndjson, or - for NDJSON on standard output; "
    "or into a PostgreSQL database: postgresql://USER@HOST/NAME.",
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="FILE|DIR",
    help="Draw the money on each runner: one race to NAME.png (.svg, .pdf), or each race into a folder.",
)
@click.option(
    "--race", "races", multiple=True, help="Only this race: R7, or the beginning of its id. May be given again."
)
@click.option(
    "--workers",
    type=click.IntRange(1, 1_000),
    help="How many workers to keep busy, and to start if no broker runs. [default: RACEPOOL_WORKERS, else 3]",
)
@click.option("--overwrite", is_flag=True, help="Replace a file that exists, and a checkpoint of other polls.")
@click.pass_context
def replay(  # noqa: PLR0913  # options are arguments
    context: click.Context,
    *,
    paths: tuple[Path, ...],
    out: Path | str | None,
    plot: Path | None,
    races: tuple[str, ...],
    workers: int | None,
    overwrite: bool,
) -> None:
    """Replay captured polls: those of a race one after the other, each compared with the one before.

    Takes files, and all .json and .json.gz files in folders and their subfolders: NZ TAB responses or normalised races.
    Uses the running broker, or else starts a local pool. Writes a row for each money-flow record. If
    it is stopped, the same command continues. The exit code is 1 if a poll failed; its race continues without it.
    """
    if out is None and plot is None:
        raise click.UsageError("the result has no place to go; give --out FILE, --plot FILE, or both")
    settings = Settings.load(**({} if workers is None else {"workers": workers}))

    replay_run = ReplayRun(Errand(paths, out, plot, races, overwrite), settings)
    try:
        is_whole = replay_run.run()
    except KeyboardInterrupt:
        tell(replay_run.standing)
        context.exit(Exit.INTERRUPTED)
    except PoolError:
        if replay_run.is_begun:
            tell(replay_run.standing)
        raise
    if not is_whole:
        context.exit(Exit.FAILURE)
