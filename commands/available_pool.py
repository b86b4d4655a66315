"""The pool of a command that works on files: the running broker's, else one of its own."""

from collections.abc import Iterator
from contextlib import contextmanager

import click

from racepool.client.monitoring import fetch_stats
from racepool.client.zmq_pool import ZmqPool
from racepool.protocol.errors import BrokerUnavailableError
from racepool.protocol.settings import Settings
from racepool.supervision.local_pool import local_pool

ASK_S = 1.0


@contextmanager
def available_pool(settings: Settings) -> Iterator[ZmqPool]:
    """The running broker's pool, else one of our own for as long as it takes.

    Raises:
        BrokerUnavailableError: there is none, and none can be started; with the last lines of its logs.
    """
    try:
        fetch_stats(settings, ASK_S)
    except BrokerUnavailableError:
        click.echo(f"racepool: no broker is running; starting a local pool of {settings.workers} workers", err=True)
        with local_pool(settings.workers) as pool:
            yield pool
    else:
        with ZmqPool.of(settings) as pool:
            yield pool
