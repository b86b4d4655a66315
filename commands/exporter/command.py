"""`racepool exporter`. The libraries of the extra `monitor` are imported when it runs."""

import asyncio
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType

import click

from racepool.client.monitoring import fetch_stats
from racepool.commands.exporter.address import ANYWHERE, LOOPBACK, Names, NoAddressError, listening_socket, url_of
from racepool.commands.exporter.dead_view import DeadView
from racepool.commands.exporter.pool_watch import PoolWatch
from racepool.commands.output import say, tell
from racepool.protocol.endpoints import is_tcp
from racepool.protocol.errors import PoolError
from racepool.protocol.exits import Exit
from racepool.protocol.extras import require
from racepool.protocol.keys import Role, peer_keys
from racepool.protocol.logs import Log, open_log
from racepool.protocol.processes import die_with_supervisor, raise_file_limit
from racepool.protocol.settings import Settings, is_supervised

DEFAULT_PORT = 9724
ASK_S = 0.8  # less than the page's interval of a second
THROTTLE_S = 1.0  # supervisord restarts at once; an exporter that cannot start must not spin


class ExporterError(click.ClickException):
    """The exporter cannot start."""

    exit_code = Exit.FAILURE

    def show(self, _file: object = None) -> None:
        """Prints the error as all commands of racepool do."""
        tell(self.message)


def require_extra() -> None:
    """Makes sure that the extra `monitor` is installed.

    Raises:
        PoolError: a library is not installed.
    """
    require("prometheus_client", "starlette", "uvicorn", extra="monitor", purpose="the exporter")


@click.command()
@click.option(
    "--host", default="127.0.0.1", show_default=True, envvar="RACEPOOL_EXPORTER_HOST", show_envvar=True,
    help="The address to listen at. There is no login: everyone who can reach it can read it.",
)  # fmt: skip
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=DEFAULT_PORT, show_default=True, envvar="RACEPOOL_EXPORTER_PORT",
    show_envvar=True, help="The port to listen at; 0 is any free one.",
)  # fmt: skip
@click.option(
    "--allow-host", "names", multiple=True, metavar="NAME", envvar="RACEPOOL_EXPORTER_ALLOW_HOST", show_envvar=True,
    help="A name that other hosts use for this one. May be given again.",
)  # fmt: skip
def exporter(*, host: str, port: int, names: tuple[str, ...]) -> None:
    """Serve Prometheus metrics (/metrics) and a status page (/) of the pool, until Ctrl-C.

    It only asks the broker. You can start and stop it at any time. It needs the extra `monitor`;
    without it, it prints how to install that.
    """
    if is_supervised():
        die_with_supervisor()
    raise_file_limit()
    with _throttled():
        require_extra()
        settings = Settings.load()
        settings.guard(settings.stats_endpoint)
        peer_keys(settings, Role.CLIENT, settings.stats_endpoint)
        if host in ANYWHERE and not set(names) - LOOPBACK:
            raise click.UsageError(
                f"--host {host}: other hosts can read it only by a name that you allow: --allow-host NAME"
            )
        _run(settings, open_log(settings, program="exporter"), host, port, Names.of(host, names))


@contextmanager
def _throttled() -> Iterator[None]:
    """Under supervisord, waits a second before an error ends the exporter."""
    try:
        yield
    except (PoolError, click.ClickException):
        if is_supervised():
            time.sleep(THROTTLE_S)
        raise


def _run(settings: Settings, log: Log, host: str, port: int, names: Names) -> None:
    from prometheus_client import CollectorRegistry, ProcessCollector  # noqa: PLC0415  # an extra

    from racepool.commands.exporter.collector import PoolCollector  # noqa: PLC0415  # needs the extra
    from racepool.commands.exporter.server import serve  # noqa: PLC0415  # needs the extra

    try:
        listening = listening_socket(host, port)
    except NoAddressError as error:
        raise ExporterError(str(error)) from None
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    ask = partial(fetch_stats, settings, ASK_S)
    dead = None if is_tcp(settings.stats_endpoint) else DeadView(settings.dir)
    registry = CollectorRegistry()
    registry.register(PoolCollector(ask, dead))
    registry.register(ProcessCollector(registry=None))
    url = url_of(listening)
    log.info("exporter_started", page=url, metrics=f"{url}metrics", broker=settings.stats_endpoint)
    if sys.stdout.isatty():
        say(f"racepool: the status page is at {url}, metrics at {url}metrics; Ctrl-C ends it")
    try:
        with listening:
            asyncio.run(serve(PoolWatch(ask, dead, log), registry, names, listening))
    except Exception:
        log.exception("exporter_failed")
        sys.exit(Exit.FAILURE)
    finally:
        log.info("exporter_stopped")


def _end(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(Exit.OK)
