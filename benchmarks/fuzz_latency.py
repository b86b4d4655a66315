"""`python -m benchmarks.fuzz_latency`: how much hostile messages delay valid tasks.

A peer process sends 2,000 messages a second through four sockets: broken messages to all sockets of the broker, or the
pings of clients. Meanwhile a race is submitted every 10 ms. Rounds of both kinds alternate. The result is the ratio of
their medians.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from random import Random
from statistics import median, quantiles

import click
import zmq
from rich.console import Console
from rich.table import Table

from racepool import ZmqPool, local_pool
from racepool.commands.chaos.corpus import real
from racepool.protocol.endpoints import SOCKETS, sockets_in
from racepool.protocol.frames import FROM_CLIENT, FROM_HEARTBEAT, FROM_WORKER, BadFrameError, Inlet, decode, encode
from racepool.protocol.messages import Hello, Payload, Ping
from racepool.protocol.sockets import Context, dealer, receive
from tests.fuzzing.corpus import any_frames
from tests.fuzzing.peer import turns

RATE = 2_000.0
PREPARED = 8_000
INTERVAL_S = 0.01
WARM_UP_S = 0.5
FOREVER_S = 3_600.0
BODY = (Path(__file__).parents[1] / "samples" / "scratched.json").read_bytes()
INLETS: tuple[Inlet[object], ...] = (FROM_CLIENT, FROM_WORKER, FROM_HEARTBEAT)  # type: ignore[assignment]  # for decode
KINDS = ("nothing", "pings", "broken messages")


def send(kind: str, directory: str) -> None:
    """What the peer does until it is killed."""
    dice = Random(7)  # noqa: S311  # no secret
    endpoints = sockets_in(Path(directory))
    context: Context = zmq.Context()
    is_hostile = kind == "broken messages"
    doors = list(SOCKETS) if is_hostile else ["endpoint"] * len(SOCKETS)
    sockets = [dealer(context, endpoints[door]) for door in doors]
    if not is_hostile:
        for socket in sockets:
            socket.send_multipart(encode(real(Hello, dice, session=1, held=0)))
    prepared = [_hostile(dice) if is_hostile else encode(Ping(0)) for _ in range(PREPARED)]
    print("ready", flush=True)  # noqa: T201  # the parent waits for this line
    for _, (frames, socket) in zip(turns(FOREVER_S, RATE), zip(cycle(prepared), cycle(sockets)), strict=False):
        socket.send_multipart(frames)
        while receive(socket) is not None:
            pass


def _hostile(dice: Random) -> list[Payload]:
    """Random frames that are not a message by chance: the broker would give tasks to a sender of READY."""
    while True:
        frames = any_frames(dice)
        if not any(_is_message(frames, inlet) for inlet in INLETS):
            return frames


def _is_message(frames: list[Payload], inlet: Inlet[object]) -> bool:
    try:
        decode(frames, inlet)
    except BadFrameError:
        return False
    return True


@contextmanager
def _peer(kind: str, directory: Path) -> Iterator[None]:
    if kind == "nothing":
        yield
        return
    command = [sys.executable, "-m", "benchmarks.fuzz_latency", "--peer", kind, "--dir", str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as peer:  # noqa: S603  # ourselves
        if peer.stdout is not None:
            peer.stdout.readline()
        yield
        peer.kill()


def _latencies_ms(pool: ZmqPool, seconds: float) -> list[float]:
    latencies = []
    for _ in turns(seconds, 1 / INTERVAL_S):
        submitted_at = time.perf_counter()
        pool.exec(BODY).result(30)
        latencies.append((time.perf_counter() - submitted_at) * 1000)
    return latencies


def _measure(rounds: int, seconds: float) -> dict[str, list[tuple[float, float]]]:
    """The p50 and p99 of each round, for each kind of peer that ran beside the tasks."""
    figures: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    local = local_pool(workers=3)
    with local as pool:
        directory = local._settings.dir  # noqa: SLF001  # a hostile peer does not ask for it
        for index in range(rounds):
            for kind in KINDS if index % 2 else KINDS[::-1]:
                with _peer(kind, directory):
                    _latencies_ms(pool, WARM_UP_S)
                    parts = quantiles(_latencies_ms(pool, seconds), n=100)
                figures[kind].append((parts[49], parts[98]))
    return figures


@click.command()
@click.option("--rounds", default=6, show_default=True, help="Interleaved rounds.")
@click.option("--seconds", default=5.0, show_default=True, help="Of each kind in a round.")
@click.option("--peer", type=click.Choice(KINDS), hidden=True)
@click.option("--dir", "directory", hidden=True)
def main(rounds: int, seconds: float, peer: str | None, directory: str | None) -> None:
    """Measure the latency of tasks beside hostile messages, and beside as many valid ones."""
    if peer and directory:
        send(peer, directory)
        return
    figures = _measure(rounds, seconds)
    table = Table("beside", "p50 ms", "p99 ms")
    medians = {kind: [median(part) for part in zip(*each, strict=True)] for kind, each in figures.items()}
    for kind, (p50, p99) in medians.items():
        table.add_row(kind, f"{p50:.2f}", f"{p99:.2f}")
    ratios = [hostile / valid for hostile, valid in zip(medians[KINDS[2]], medians[KINDS[1]], strict=True)]
    table.add_row("broken messages / pings", *(f"{ratio:.2f} x" for ratio in ratios))
    Console().print(table)


if __name__ == "__main__":
    main()
