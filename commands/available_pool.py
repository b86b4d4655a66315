"""The pool for a command that works on files: the running broker's, or else a local pool."""

from collections.abc import Iterator
from contextlib import contextmanager

from racepool.client.monitoring import fetch_stats
from racepool.client.zmq_pool import ZmqPool
from racepool.commands.output import tell
from racepool.protocol.errors import BrokerUnavailableError
from racepool.protocol.settings import Settings
from racepool.supervision.local_pool import local_pool

ASK_S = 1.0


@contextmanager
def available_pool(settings: Settings) -> Iterator[ZmqPool]:
    """A client of the running broker; without a broker, a local pool that ends with the block.

    Raises:
        BrokerUnavailableError: no broker runs, and a local pool cannot start; the text has the last lines of its logs.
        SettingsError: as for `fetch_stats`.
    """
    try:
        fetch_stats(settings, ASK_S)
    except BrokerUnavailableError:
        tell(f"no broker is running; starting a local pool of {settings.workers} workers")
        with local_pool(settings.workers) as pool:
            yield pool
    else:
        with ZmqPool.of(settings) as pool:
            yield pool
