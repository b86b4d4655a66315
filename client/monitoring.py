"""Asks a pool's stats socket and reads the answer: for `racepool stats`, `wait`, `ping`, and all that watch a pool."""

from contextlib import suppress

from racepool.client.readiness import Readiness
from racepool.client.stats_socket import StatsSocket
from racepool.protocol import clock
from racepool.protocol.errors import BrokerUnavailableError, PoolError
from racepool.protocol.keys import Role, peer_keys
from racepool.protocol.settings import Settings
from racepool.protocol.stats import PoolStats

POLL_S = 0.1
LOOK_S = 1.0  # then the question is asked again: a broker that ended may have taken it along


def fetch_stats(settings: Settings, timeout_s: float) -> PoolStats:
    """Asks the broker for its stats.

    Args:
        settings: of the pool: its stats socket, and the keys for it.
        timeout_s: how long to wait for the answer, in seconds.

    Raises:
        BrokerUnavailableError: no answer in time.
        SettingsError: the run directory or the keys cannot be used.
        PoolError: the answer is no PoolStats of this version.
    """
    settings.guard(settings.stats_endpoint)
    return stats_in(fetch_answer(settings, timeout_s), settings.stats_endpoint)


def fetch_answer(settings: Settings, timeout_s: float) -> bytes:
    """The broker's answer as it came: the broker may be of another version. Makes no run directory.

    Raises:
        BrokerUnavailableError: no answer in time.
        SettingsError: the keys cannot be used.
    """
    with stats_socket(settings) as stats:
        stats.ask()
        stats.socket.poll(round(timeout_s * 1000))
        answer = stats.answer()
    if answer is None:
        raise _unanswered(settings, timeout_s)
    return answer


def stats_socket(settings: Settings) -> StatsSocket:
    """A connection to the pool's stats socket.

    Raises:
        BrokerUnavailableError: the socket's directory does not exist.
        SettingsError: the keys cannot be used, or another user can put a socket of theirs there.
    """
    endpoint = settings.stats_endpoint
    keys = peer_keys(settings, Role.CLIENT, endpoint)
    try:
        return StatsSocket(endpoint, keys)
    except FileNotFoundError as error:
        remedy = settings.remedy(endpoint)
        raise BrokerUnavailableError(f"there is no directory for {endpoint} ({error.strerror}); {remedy}") from None


def stats_in(answer: bytes, endpoint: str) -> PoolStats:
    """The stats in an answer that came from this endpoint.

    Raises:
        PoolError: it is no PoolStats of this version.
    """
    try:
        return PoolStats.model_validate_json(answer)
    except ValueError as error:
        raise PoolError(f"{endpoint} answered something that is no PoolStats: {error}") from None


def wait_for_workers(settings: Settings, workers: int | None, timeout_s: float) -> PoolStats:
    """Waits until this many workers are ready (None = as many as the broker expects), and returns the stats.

    Raises:
        BrokerUnavailableError: no broker answered in all that time.
        SettingsError: as for `fetch_stats`.
        TimeoutError: too few workers were ready in time, or a worker cannot start because of its set-up.
    """
    deadline = clock.now() + timeout_s
    readiness = Readiness(workers)
    while True:
        with suppress(BrokerUnavailableError):
            stats = fetch_stats(settings, min(LOOK_S, max(deadline - clock.now(), POLL_S)))
            if readiness.is_reached(stats):
                return stats
        if readiness.obstacle or clock.now() >= deadline:
            break
        clock.sleep(POLL_S)
    if readiness.shortage is None:
        raise _unanswered(settings, timeout_s)
    why = f" were ready within {timeout_s:g} s; look at the workers' logs"
    raise TimeoutError(readiness.shortage + (f" are ready; {readiness.obstacle}" if readiness.obstacle else why))


def _unanswered(settings: Settings, timeout_s: float) -> BrokerUnavailableError:
    endpoint = settings.stats_endpoint
    remedy = settings.remedy(endpoint)
    return BrokerUnavailableError(f"no broker answered at {endpoint} within {timeout_s:g} s; {remedy}")
