"""`racepool stats`: the broker's stats, once or every second."""

import time
from contextlib import nullcontext

import click
from rich.live import Live

from racepool.client.monitoring import fetch_stats
from racepool.commands.display import stats_table
from racepool.commands.output import say_json, screen_of_stdout
from racepool.protocol.settings import Settings

ASK_S = 1.0
WATCH_S = 1.0


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the stats as JSON.")
@click.option("--watch", is_flag=True, help="Show them again every second, until Ctrl-C.")
def stats(*, as_json: bool, watch: bool) -> None:
    """Show worker states, queue depth and counters, from the stats socket."""
    settings = Settings.load()
    screen = screen_of_stdout()
    current = fetch_stats(settings, ASK_S)
    is_live = watch and screen.is_terminal and not (screen.is_dumb_terminal or as_json)
    live = Live(console=screen, auto_refresh=False, screen=True) if is_live else None
    with live or nullcontext():
        while True:
            if as_json:
                say_json(current.model_dump_json(indent=None if watch else 2))
            elif live is not None:
                live.update(stats_table(current), refresh=True)
            else:
                screen.print(stats_table(current, plain=not screen.is_terminal))
            if not watch:
                return
            time.sleep(WATCH_S)
            current = fetch_stats(settings, ASK_S)
