"""`python -m benchmarks`: racepool against ProcessPoolExecutor, same transform, same payloads, interleaved rounds.

Absolute figures belong to the machine and the moment; read the ratios. Each cell is the median over the rounds.
"""

import asyncio
import gc
import json
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from client import TransformedRace, ZmqPool, local_pool
from protocol.race import RaceData
from worker.transform import transform_race

POLLED_AT = datetime(2025, 7, 17, 0, 12, tzinfo=UTC)
BURST = 5
TICK_S = 0.001
SETTLE_S = 0.05
RAW_BYTES = 410_000
SAMPLES = Path(__file__).parents[1] / "samples"


@dataclass(frozen=True)
class Load:
    """One kind of task: its payload, and how many make a round."""

    name: str
    body: bytes
    tasks: int


@dataclass(frozen=True)
class Contender:
    """A pool under test: `submit` gives something that can be awaited."""

    name: str
    submit: Callable[[bytes], Any]


def transform_body(body: bytes) -> TransformedRace:
    """What a service would hand to an executor."""
    return transform_race(RaceData.parse(body), polled_at=POLLED_AT)


def _loads(scale: float) -> list[Load]:
    small = (SAMPLES / "scratched.json").read_bytes()
    large = _inflated((SAMPLES / "thoroughbred.json").read_bytes())
    return [Load("normalised", small, round(1000 * scale)), Load("raw 410 KB", large, round(300 * scale))]


def _inflated(body: bytes) -> bytes:
    """The response with as much form guide as the real ones carry."""
    response = json.loads(body)
    response["data"]["form_guides"] = []
    guide = response["data"]["runners"][0]
    while len(json.dumps(response)) < RAW_BYTES - len(json.dumps(guide)):
        response["data"]["form_guides"] += [guide] * 10
    return json.dumps(response).encode()


async def _throughput(contender: Contender, load: Load) -> float:
    started_at = time.perf_counter()
    await asyncio.gather(*(contender.submit(load.body) for _ in range(load.tasks)))
    return load.tasks / (time.perf_counter() - started_at)


async def _burst_ms(contender: Contender, load: Load) -> float:
    started_at = time.perf_counter()
    await asyncio.gather(*(contender.submit(load.body) for _ in range(BURST)))
    return (time.perf_counter() - started_at) * 1000


async def _submit_us(contender: Contender, load: Load) -> float:
    """What one submission takes of the caller's thread, on an idle pool."""
    started_at = time.perf_counter()
    future = contender.submit(load.body)
    took_us = (time.perf_counter() - started_at) * 1e6
    await future
    return took_us


async def _stall_ms(contender: Contender, load: Load) -> float:
    """The longest gap of a 1 ms ticker on the loop that submits and gathers 100 tasks."""
    worst_s, is_over = 0.0, False

    async def tick() -> None:
        nonlocal worst_s
        while not is_over:
            before = time.perf_counter()
            await asyncio.sleep(TICK_S)
            worst_s = max(worst_s, time.perf_counter() - before - TICK_S)

    ticker = asyncio.create_task(tick())
    await asyncio.sleep(10 * TICK_S)
    await asyncio.gather(*(contender.submit(load.body) for _ in range(100)))
    is_over = True
    await ticker
    return worst_s * 1000


Measure = Callable[[Contender, Load], Coroutine[Any, Any, float]]
MEASURES: list[tuple[str, Measure, bool]] = [
    ("tasks a second", _throughput, True),
    ("burst of five, ms", _burst_ms, False),
    ("submit, µs of the caller", _submit_us, False),
    ("loop stall in 100 tasks, ms", _stall_ms, False),
]


async def _measure(contenders: list[Contender], loads: list[Load], rounds: int) -> dict[tuple[str, str, str], float]:
    """The median of each cell; in each round every contender has its turn, first one then the other in front."""
    cells: dict[tuple[str, str, str], list[float]] = {}
    for index in range(rounds + 1):
        for load in loads:
            for name, measure, _ in MEASURES:
                for contender in contenders if index % 2 else contenders[::-1]:
                    gc.collect()
                    await asyncio.sleep(SETTLE_S)  # what the last one left behind is freed by the loop's next turn
                    figure = await measure(contender, load)
                    if index:  # the first round warms up
                        cells.setdefault((load.name, name, contender.name), []).append(figure)
    return {cell: median(figures) for cell, figures in cells.items()}


def _contenders(pool: ZmqPool, executor: Executor) -> list[Contender]:
    return [
        Contender("racepool", lambda body: pool.exec(body, polled_at=POLLED_AT)),
        Contender(
            "ProcessPoolExecutor",
            lambda body: asyncio.get_running_loop().run_in_executor(executor, transform_body, body),
        ),
    ]


@click.command()
@click.option("--rounds", default=5, show_default=True, help="Interleaved rounds, after one to warm up.")
@click.option("--workers", default=3, show_default=True, help="Worker processes of each pool.")
@click.option("--scale", default=1.0, show_default=True, help="Multiplies the tasks of a round.")
def main(rounds: int, workers: int, scale: float) -> None:
    """Measure racepool beside ProcessPoolExecutor."""
    loads = _loads(scale)
    with (
        local_pool(workers) as pool,
        ProcessPoolExecutor(workers, mp_context=get_context("forkserver")) as executor,
    ):
        contenders = _contenders(pool, executor)
        cells = asyncio.run(_measure(contenders, loads, rounds))
    ours, theirs = (contender.name for contender in contenders)
    table = Table("Load", "Measure", ours, theirs, "ours is better by")
    for load in loads:
        for name, _, is_more_better in MEASURES:
            mine, other = cells[load.name, name, ours], cells[load.name, name, theirs]
            ratio = mine / other if is_more_better else other / mine
            table.add_row(load.name, name, f"{mine:,.1f}", f"{other:,.1f}", f"{ratio:.2f} x")
    Console().print(table)
