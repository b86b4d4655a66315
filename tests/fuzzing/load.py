"""Legitimate traffic beside the attack: a client process that checks every result, until its input ends."""

import json
import sys
import time
from collections import Counter
from concurrent.futures import wait
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from itertools import count
from select import select
from typing import Any

from racepool import PoolFuture, ZmqPool

INTERVAL_S = 0.02
PATIENCE_S = 60.0


@dataclass
class Tally:
    """The outcomes of all tasks, and the monotonic instants of their ends; `wrong` quotes the first wrong ones."""

    resolved: int = 0
    doubly: int = 0
    unresolved: int = 0
    wrong: list[str] = field(default_factory=list)
    ended_at: list[float] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)


def race(race_id: str) -> dict[str, Any]:
    """A race whose name, the digest of its id, is the expected result."""
    return {
        "id": race_id,
        "name": sha256(race_id.encode()).hexdigest(),
        "status": "open",
        "race_date_nz": "2026-01-31",
        "start_time_nz": "12:50",
        "entrants": [{"entrantId": "a", "name": "Paper Kettle", "runnerNumber": 1}],
    }


def main(endpoint: str, interval_s: str) -> None:
    """Submits a race each interval; prints a Tally as JSON."""
    tally, calls = Tally(), Counter[str]()
    with ZmqPool(endpoint) as pool:
        pool.wait_for_workers()
        print("loading", flush=True)  # noqa: T201  # the campaign waits for it
        futures: set[PoolFuture[Any]] = set()
        for index in count():
            if select([sys.stdin], [], [], float(interval_s))[0]:
                break
            futures.add(_submitted(pool, f"race-{index}", tally, calls))
            futures = {future for future in futures if not future.done()}
        tally.unresolved = len(wait(futures, PATIENCE_S).not_done)
    tally.doubly = sum(times > 1 for times in calls.values())
    print(json.dumps(asdict(tally)), flush=True)  # noqa: T201  # and reads this


def _submitted(pool: ZmqPool, race_id: str, tally: Tally, calls: Counter[str]) -> PoolFuture[Any]:
    submitted_at = time.monotonic()
    future: PoolFuture[Any] = pool.exec(race(race_id))

    def on_done(done: Any) -> None:  # noqa: ANN401  # a PoolFuture
        calls[race_id] += 1
        tally.resolved += 1
        tally.ended_at.append(time.monotonic())
        tally.latencies_ms.append((tally.ended_at[-1] - submitted_at) * 1000)
        error = done.exception()
        is_right = error is None and done.result()["name"] == race(race_id)["name"]
        if not is_right and len(tally.wrong) < 10:
            tally.wrong.append(repr(error or done.result()))

    future.add_done_callback(on_done)
    return future


if __name__ == "__main__":
    main(*sys.argv[1:])
