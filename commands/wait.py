"""`racepool wait`: returns when enough workers are ready."""

import click

from racepool.client.monitoring import wait_for_workers
from racepool.commands.output import say, tell
from racepool.protocol.exits import Exit
from racepool.protocol.settings import MAX_SECONDS, Settings


@click.command()
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
        stats = wait_for_workers(Settings.load(), workers, timeout_s)
    except TimeoutError as error:
        tell(str(error))
        context.exit(Exit.FAILURE)
    say(f"{stats.total_workers} workers are ready")
