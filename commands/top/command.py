"""`racepool top`: the pool live in a terminal; elsewhere one picture of it."""

import time
from datetime import UTC, datetime

import click
from rich.console import Console

from racepool.client.monitoring import fetch_stats
from racepool.commands.dead.tasks import record_count
from racepool.commands.output import screen_of_stdout
from racepool.commands.top.loop import TopLoop
from racepool.commands.top.screen import View, snapshot
from racepool.commands.top.trend import PoolTrend
from racepool.protocol.settings import Settings

ASK_S = 1.0
SNAPSHOT_WIDTH = 240  # at most; the clock stands at its right edge
SNAPSHOT_S = 1.0  # between the two answers of the broker that a snapshot compares


@click.command()
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(0.1, 60),
    default=1.0,
    show_default=True,
    help="Seconds between two questions to the broker.",
)
def top(interval_s: float) -> None:
    """Show the pool live: its workers, its waiting tasks, its speed, and what went wrong.

    Keys: q or Ctrl-C ends it, p pauses it, s sorts the workers by another column. If the output is no terminal, it
    prints one picture after a second, and ends.
    """
    settings = Settings.load()
    screen = screen_of_stdout()
    if screen.is_terminal and not screen.is_dumb_terminal:
        TopLoop(settings, screen, interval_s).run()
    else:
        _print(settings, screen)


def _print(settings: Settings, screen: Console) -> None:
    trend = PoolTrend(time.monotonic())
    for wait_s in (0.0, SNAPSHOT_S):
        time.sleep(wait_s)
        trend.on_stats(fetch_stats(settings, ASK_S), time.monotonic(), datetime.now(UTC))
    endpoint = settings.stats_endpoint
    view = View(
        trend, time.monotonic(), datetime.now(UTC), endpoint, settings.remedy(endpoint), record_count(settings.dir)
    )
    screen.print(snapshot(view, min(screen.width, SNAPSHOT_WIDTH)))
