"""`python -m tests.fuzzing --seconds 600`: attacks a pool of its own and prints the results."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles

import click
from rich.console import Console
from rich.table import Table

from racepool import ZmqPool
from tests.fuzzing import campaign
from tests.fuzzing.peer import PEERS
from tests.running import RACEPOOL, Running, environment


@contextmanager
def _pool() -> Iterator[Running]:
    with tempfile.TemporaryDirectory(prefix="rp-", dir="/tmp") as made:
        directory = Path(made)
        env = environment(directory, **campaign.SETTINGS)
        up = subprocess.Popen([RACEPOOL, "up"], env=env, stdout=subprocess.DEVNULL)
        try:
            with ZmqPool(f"ipc://{directory}/frontend.ipc") as pool:
                pool.wait_for_workers()
                yield Running(directory, env, pool, up.pid)
        finally:
            up.terminate()
            up.wait()


@click.command()
@click.option("--seconds", default=60.0, show_default=True, help="How long to attack.")
@click.option("--seed", default="", help="The same seed sends the same; default: another one each time.")
@click.option("--kind", "kinds", multiple=True, type=click.Choice(list(PEERS)), help="Only these; default: all.")
def main(seconds: float, seed: str, kinds: tuple[str, ...]) -> None:
    """Attack a pool of three workers on all its sockets, with legitimate traffic beside it."""
    seed = seed or str(time.time())
    with _pool() as running:
        outcome = campaign.run(running, seconds, seed, kinds or tuple(PEERS))
    _tell(outcome, f"seed {seed}, {seconds:g} s")
    sys.exit(bool(outcome.faults()))


def _tell(outcome: campaign.Outcome, how: str) -> None:
    tally, before, after = outcome.tally, outcome.before.broker, outcome.after.broker
    table = Table("legitimate tasks beside", "tasks", "p50 ms", "p99 ms", "max ms")
    for kind, latencies in [*outcome.latencies_ms.items(), ("all", tally.latencies_ms)]:
        if len(latencies) < 2:
            continue  # no task ended in this time
        parts = quantiles(latencies, n=100)
        table.add_row(kind, f"{len(latencies):,}", f"{parts[49]:.1f}", f"{parts[98]:.1f}", f"{max(latencies):.0f}")
    sent = ", ".join(f"{kind} {count:,}" for kind, count in sorted(outcome.sent.items()))
    memory = [f"{size / 2**20:.1f}" for size in (before.rss_bytes, outcome.peak_rss_bytes, after.rss_bytes)]
    lines = [
        f"{how}: {outcome.sent.total():,} hostile messages and connections: {sent}",
        f"counters: {outcome.after.counters.model_dump()}",
        f"broker's memory in MiB: {memory[0]} at first, {memory[1]} at most, {memory[2]} at last",
        f"tasks: {tally.resolved:,} resolved, {len(tally.wrong)} wrong, {tally.doubly} twice, {tally.unresolved} never",
        *(f"FAULT: {fault}" for fault in outcome.faults()),
    ]
    console = Console(width=120)
    console.print(table)
    console.print("\n".join(lines), markup=False, highlight=False)


if __name__ == "__main__":
    main()
