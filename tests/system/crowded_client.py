"""A client process that submits very many tasks at once: `crowded_client.py ENDPOINT COUNT`.

Prints as JSON how many results were right, and its memory in bytes before and after the submission.
"""

import json
import sys
from typing import Any

from racepool import PoolFuture, ZmqPool
from racepool.protocol.processes import resident_bytes
from tests.fuzzing.load import race


def main(endpoint: str, count: int) -> None:
    """Submits all, waits, and prints."""
    with ZmqPool(endpoint, max_in_flight=count) as pool:
        pool.wait_for_workers()
        before = resident_bytes()
        futures: list[PoolFuture[Any]] = [
            pool.exec(race(f"race-{index}"), queue_timeout_s=600) for index in range(count)
        ]
        crowded = resident_bytes()
        right = 0
        while futures:
            right += futures.pop().result(300)["name"] == race(f"race-{len(futures)}")["name"]
    print(json.dumps([right, before, crowded]), flush=True)  # noqa: T201  # the test reads it


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
