"""The stats socket from the outside: what `racepool stats`, `wait` and `ping` ask."""

import time

import zmq

from protocol.errors import BrokerUnavailableError, PoolError
from protocol.sockets import Context
from protocol.stats import PoolStats

POLL_S = 0.1


def fetch_stats(endpoint: str, timeout_s: float) -> PoolStats:
    """Asks the broker for its figures.

    Args:
        endpoint: the stats socket.
        timeout_s: how long to wait for the answer, in seconds.

    Raises:
        BrokerUnavailableError: no answer in time.
        PoolError: the answer is no PoolStats of this version.
    """
    context: Context = zmq.Context()
    try:
        with context.socket(zmq.REQ) as socket:
            socket.set(zmq.LINGER, 0)
            socket.connect(endpoint)
            socket.send(b"stats")
            if not socket.poll(round(timeout_s * 1000)):
                raise BrokerUnavailableError(
                    f"no broker answered at {endpoint} within {timeout_s:g} s; "
                    "is `racepool up` running, with the same RACEPOOL_DIR?"
                )
            answer = socket.recv()
    finally:
        context.term()
    try:
        return PoolStats.model_validate_json(answer)
    except ValueError as error:
        raise PoolError(f"{endpoint} answered something that is no PoolStats: {error}") from None


def wait_for_workers(endpoint: str, workers: int | None, timeout_s: float) -> PoolStats:
    """Returns the figures as soon as that many workers are ready (None = as many as the broker expects).

    Raises:
        BrokerUnavailableError: no broker answered in time.
        TimeoutError: too few workers were ready in time.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        stats = fetch_stats(endpoint, max(deadline - time.monotonic(), POLL_S))
        wanted = stats.expected_workers if workers is None else workers
        if stats.total_workers >= wanted:
            return stats
        if time.monotonic() >= deadline:
            raise TimeoutError(f"only {stats.total_workers} of {wanted} workers were ready within {timeout_s:g} s")
        time.sleep(POLL_S)
