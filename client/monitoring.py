"""The stats socket from the outside: what `racepool stats`, `wait` and `ping` ask."""

import time
from contextlib import suppress

import zmq

from racepool.protocol.errors import BrokerUnavailableError, PoolError
from racepool.protocol.keys import Role, peer_keys
from racepool.protocol.settings import Settings
from racepool.protocol.sockets import Context, connect, say
from racepool.protocol.stats import PoolStats

POLL_S = 0.1
LOOK_S = 1.0  # a question that a broker has taken along to its end is asked again


def fetch_stats(settings: Settings, timeout_s: float) -> PoolStats:
    """Asks the broker for its figures.

    Args:
        settings: of the pool: its stats socket, and the keys for it.
        timeout_s: how long to wait for the answer, in seconds.

    Raises:
        BrokerUnavailableError: no answer in time.
        SettingsError: the run directory or the keys cannot be used.
        PoolError: the answer is no PoolStats of this version.
    """
    settings.guard(settings.stats_endpoint)
    return figures_in(fetch_answer(settings, timeout_s), settings.stats_endpoint)


def fetch_answer(settings: Settings, timeout_s: float) -> bytes:
    """The broker's figures as they come, for whoever may be of another version; makes no run directory.

    Raises:
        BrokerUnavailableError: no answer in time.
        SettingsError: the keys cannot be used.
    """
    endpoint = settings.stats_endpoint
    keys = peer_keys(settings, Role.CLIENT, endpoint)
    context: Context = zmq.Context()
    try:
        with context.socket(zmq.REQ) as socket:
            socket.set(zmq.LINGER, 0)
            connect(socket, endpoint, keys)
            say(socket, [b"stats"])
            if not socket.poll(round(timeout_s * 1000)):
                raise _unanswered(settings, timeout_s)
            return socket.recv()
    finally:
        context.term()


def figures_in(answer: bytes, endpoint: str) -> PoolStats:
    """What was answered there.

    Raises:
        PoolError: it is no PoolStats of this version.
    """
    try:
        return PoolStats.model_validate_json(answer)
    except ValueError as error:
        raise PoolError(f"{endpoint} answered something that is no PoolStats: {error}") from None


def wait_for_workers(settings: Settings, workers: int | None, timeout_s: float) -> PoolStats:
    """Returns the figures as soon as that many workers are ready (None = as many as the broker expects).

    Raises:
        BrokerUnavailableError: no broker answered in all that time.
        SettingsError: as for `fetch_stats`.
        TimeoutError: too few workers were ready in time.
    """
    deadline = time.monotonic() + timeout_s
    stats: PoolStats | None = None
    while True:
        with suppress(BrokerUnavailableError):
            stats = fetch_stats(settings, min(LOOK_S, max(deadline - time.monotonic(), POLL_S)))
            wanted = stats.expected_workers if workers is None else workers
            if stats.total_workers >= wanted:
                return stats
        if time.monotonic() >= deadline:
            break
        time.sleep(POLL_S)
    if stats is None:
        raise _unanswered(settings, timeout_s)
    raise TimeoutError(f"only {stats.total_workers} of {wanted} workers were ready within {timeout_s:g} s")


def _unanswered(settings: Settings, timeout_s: float) -> BrokerUnavailableError:
    endpoint = settings.stats_endpoint
    remedy = settings.remedy(endpoint)
    return BrokerUnavailableError(f"no broker answered at {endpoint} within {timeout_s:g} s; {remedy}")
