"""Hostile peers attack a running pool, two at a time, beside legitimate traffic; then the pool is checked."""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from random import Random

from racepool.protocol.stats import PoolStats
from tests.fuzzing.load import INTERVAL_S, Tally
from tests.fuzzing.peer import PEERS
from tests.running import ENDS, ROOT, Running

RATE = 1_000.0  # messages a second of one peer; two run at a time
AT_A_TIME = 2
LIFE_S = 2.0
REST_S = 20.0
MAX_GROWTH_BYTES = 20 * 2**20
SETTINGS = {"transform": "transforms:scripted", "max_attempts": 1_000, "log_level": "error"}
"""Of a pool under attack. False workers take tasks with them into their end, and each costs an attempt."""


@dataclass(frozen=True)
class Outcome:
    """What a campaign sent, the latencies of legitimate tasks for each kind, and the stats before and after."""

    sent: Counter[str]
    tally: Tally
    latencies_ms: dict[str, list[float]]
    before: PoolStats
    after: PoolStats
    peak_rss_bytes: int

    @property
    def growth_bytes(self) -> int:
        """The growth of the broker's memory, from before the first peer to after the last."""
        return self.after.broker.rss_bytes - self.before.broker.rss_bytes

    def faults(self) -> list[str]:
        """The rules that are broken: they hold for any attack."""
        after, tally = self.after, self.tally
        ended = sum(getattr(after.counters, name) for name in ENDS)
        rules = {
            "the broker was another one afterwards": self.before.broker.epoch == after.broker.epoch,
            f"results were wrong: {tally.wrong}": not tally.wrong,
            f"{tally.doubly} futures resolved twice": not tally.doubly,
            f"{tally.unresolved} futures never resolved": not tally.unresolved,
            f"the broker's memory grew by {self.growth_bytes} bytes": self.growth_bytes <= MAX_GROWTH_BYTES,
            "a lease or a task leaked": (after.in_flight, after.queue_depth) == (0, 0),
            "the counters do not add up": after.counters.submitted == ended,
            f"hostile peers are still known: {after.clients} clients, {after.total_workers} workers": (
                after.clients,
                after.idle_workers,
                after.total_workers,
            )
            == (1, after.expected_workers, after.expected_workers),
        }
        return [fault for fault, holds in rules.items() if not holds]


def run(running: Running, seconds: float, seed: str, kinds: Sequence[str] = tuple(PEERS)) -> Outcome:
    """Runs two peers of each kind in turn, each kind at least once, until the time is over; then waits for rest."""
    before = running.stats()
    dice = Random(seed)
    sent: Counter[str] = Counter()
    spans: list[tuple[str, float, float]] = []
    peak = 0
    with _loaded(running) as load:
        until = time.monotonic() + seconds
        for kind in cycle(kinds):
            began_at = time.monotonic()
            if began_at > until and len(spans) >= len(kinds):
                break
            peers = [_started(running, kind, dice) for _ in range(AT_A_TIME)]
            for peer in peers:
                words, _ = peer.communicate()
                assert peer.returncode == 0, f"a hostile peer failed by itself: {peer.args!r}"
                sent.update(json.loads(words))
            spans.append((kind, began_at, time.monotonic()))
            peak = max(peak, running.stats().broker.rss_bytes)
        words, _ = load.communicate("\n", timeout=90)
    tally = Tally(**json.loads(words))
    return Outcome(sent, tally, _latencies(tally, spans), before, _at_rest(running, before), peak)


def _latencies(tally: Tally, spans: list[tuple[str, float, float]]) -> dict[str, list[float]]:
    """For each kind of peer, the latencies in milliseconds of the tasks that ended while it ran."""
    by_kind: dict[str, list[float]] = {}
    for kind, began_at, ended_at in spans:
        of_span = [ms for at, ms in zip(tally.ended_at, tally.latencies_ms, strict=True) if began_at <= at < ended_at]
        by_kind.setdefault(kind, []).extend(of_span)
    return by_kind


def _started(running: Running, kind: str, dice: Random) -> "subprocess.Popen[str]":
    arguments = [kind, str(dice.random()), str(LIFE_S), str(RATE), str(running.dir)]
    return _python("tests.fuzzing.peer", *arguments)


@contextmanager
def _loaded(running: Running) -> Iterator["subprocess.Popen[str]"]:
    load = _python("tests.fuzzing.load", f"ipc://{running.dir}/frontend.ipc", str(INTERVAL_S))
    try:
        assert load.stdout
        assert load.stdout.readline() == "loading\n"
        yield load
    finally:
        load.kill()
        load.communicate()


def _python(module: str, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _at_rest(running: Running, before: PoolStats) -> PoolStats:
    """The stats when the pool is at rest, or after REST_S; then `Outcome.faults` tells what is wrong."""
    until = time.monotonic() + REST_S
    while time.monotonic() < until:
        after = running.stats()
        has_grown = after.broker.rss_bytes > before.broker.rss_bytes + MAX_GROWTH_BYTES
        if running.is_at_rest() and not has_grown:
            break
        time.sleep(0.05)
    return running.stats()
