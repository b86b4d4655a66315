"""A client process that submits a race at an interval for some time, and prints the outcome of each."""

import json
import sys
import time
from collections import Counter
from concurrent.futures import Future
from typing import Any

from racepool import ZmqPool


def main(seconds: float, interval_s: float) -> None:
    """Settings come from the environment. Prints `started` after the first result, then the outcomes as a JSON line."""
    ends: Counter[str] = Counter()
    futures: list[Future[Any]] = []
    race = {
        "id": "race-0", "name": "sleep:0.05", "status": "open", "race_date_nz": "2026-01-31", "start_time_nz": "12:50",
        "entrants": [{"entrantId": "a", "name": "Paper Kettle", "runnerNumber": 1}],
    }  # fmt: skip
    with ZmqPool() as pool:
        pool.exec(race).result(20)
        print("started", flush=True)  # noqa: T201  # the test waits for it
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            futures.append(pool.exec(race | {"id": f"race-{len(futures)}"}))
            time.sleep(interval_s)
        for index, future in enumerate(futures):
            error = future.exception()
            is_right = error is None and future.result()["id"] == f"race-{index}"
            ends["right" if is_right else repr(error)] += 1
    print(json.dumps({"submitted": len(futures), "ends": ends}))  # noqa: T201


if __name__ == "__main__":
    main(float(sys.argv[1]), float(sys.argv[2]))
