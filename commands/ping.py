"""`racepool ping`: whether the broker answers, and how fast."""

import time

import click

from racepool.client.monitoring import fetch_stats
from racepool.commands.output import say
from racepool.protocol.settings import Settings

ASK_S = 1.0


@click.command()
def ping() -> None:
    """Ask the broker for a sign of life."""
    asked_at = time.perf_counter()
    broker = fetch_stats(Settings.load(), ASK_S).broker
    took_ms = (time.perf_counter() - asked_at) * 1000
    say(f"broker {broker.version} (pid {broker.pid}, up {broker.uptime_s:.0f} s) answered in {took_ms:.1f} ms")
