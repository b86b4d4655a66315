"""A client process that a test can freeze or kill: it submits the races that it reads, and prints their outcomes."""

import json
import sys
from concurrent.futures import Future
from typing import Any

from racepool import ZmqPool


def main(socket_path: str) -> None:
    """Reads a JSON array of races from a line of standard input; prints a JSON array of their outcomes."""
    with ZmqPool(f"ipc://{socket_path}") as pool:
        futures = [pool.exec(race) for race in json.loads(sys.stdin.readline())]
        print("submitted", flush=True)  # noqa: T201  # the test waits for it
        print(json.dumps([_end(future) for future in futures]), flush=True)  # noqa: T201  # and reads this


def _end(future: "Future[Any]") -> object:
    """The id in the result, the size of a result without one, or the error."""
    error = future.exception()
    if error is not None:
        return repr(error)
    result = future.result()
    return len(result) if isinstance(result, bytes) else result["id"]


if __name__ == "__main__":
    main(sys.argv[1])
