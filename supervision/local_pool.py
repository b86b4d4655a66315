"""A pool for one machine: supervisord, broker and workers of its own, in a private directory."""

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TypeVar
from uuid import uuid4

from racepool.client.zmq_pool import ZmqPool
from racepool.protocol.endpoints import sockets_in, temporary_folder
from racepool.protocol.errors import BrokerUnavailableError
from racepool.protocol.settings import Settings
from racepool.supervision.configuration import child_environment, supervisord_command, write_configuration

REMOVAL_S = 1.0
LOOK_S = 0.5  # how often it is looked whether supervisord is there at all
STOP_S = 5.0  # all futures are resolved or cancelled by then: nobody waits for what still runs
LOG_TAIL_LINES = 5

T = TypeVar("T")


class LocalPool:
    """A context manager, also asynchronous, whose value is a ZmqPool that is ready for work.

    The processes end with the block; and with this process, however that ends.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._pool = ZmqPool.of(settings)
        self._is_given_up = False
        self._owner_pid = 0

    def __enter__(self) -> ZmqPool:
        self._owner_pid = os.getpid()
        try:
            configuration = write_configuration(self._settings, owner_pid=self._owner_pid)
            self._process = subprocess.Popen(  # noqa: S603  # our own interpreter and file
                supervisord_command(configuration),
                env=child_environment(self._settings),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                umask=0o077,
                start_new_session=True,  # Ctrl-C is for the caller, who ends us
            )
            self._await_workers(self._process)
        except BrokerUnavailableError as error:
            try:
                tail = self._log_tail()
            finally:
                self._stop()
            raise BrokerUnavailableError(f"the local pool did not start: {error}\n{tail}") from None
        except BaseException:
            self._stop()
            raise
        return self._pool

    def _await_workers(self, supervisord: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self._settings.connect_timeout
        while True:
            left_s = max(0.0, deadline - time.monotonic())
            try:
                return self._pool.wait_for_workers(self._settings.workers, min(LOOK_S, left_s))
            except BrokerUnavailableError:
                if supervisord.poll() is not None:
                    raise BrokerUnavailableError(f"supervisord ended with code {supervisord.returncode}") from None
                if left_s <= LOOK_S:
                    raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop(cancel_futures=error is not None)

    async def __aenter__(self) -> ZmqPool:
        return await self._in_thread(self.__enter__)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._in_thread(partial(self.__exit__, kind, error, traceback))

    async def _in_thread(self, step: Callable[[], T]) -> T:
        """Cancelled, it gives up what the step waits for, and ends when nothing of ours is left."""
        running = asyncio.ensure_future(asyncio.to_thread(step))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            self._is_given_up = True
            self._pool.shutdown(wait=False, cancel_futures=True)
            with suppress(Exception):
                await running
            await asyncio.to_thread(self._stop)
            raise

    def _stop(self, *, cancel_futures: bool = True) -> None:
        if os.getpid() != self._owner_pid:  # a forked child leaves the block, too: all of it is its parent's
            if self._process is not None:
                self._process.poll()  # notes that it is no child of ours
            return
        try:
            self._pool.shutdown(cancel_futures=cancel_futures)
            if self._process is not None and not (cancel_futures or self._is_given_up):
                self._process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(STOP_S)
        finally:
            _insist(self._clean_up)

    def _clean_up(self) -> None:
        """Leaves no process and no file. May be called again."""
        if self._process is not None:
            self._process.kill()  # its children die with it
            self._process.wait()
        deadline = time.monotonic() + REMOVAL_S
        shutil.rmtree(self._settings.dir, ignore_errors=True)
        while self._settings.dir.exists() and time.monotonic() < deadline:
            time.sleep(0.01)  # one of them still wrote
            shutil.rmtree(self._settings.dir, ignore_errors=True)

    def _log_tail(self) -> str:
        logs = sorted((self._settings.dir / "log").glob("*.log"))
        tails = (path.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL_LINES:] for path in logs)
        return "\n".join(line for tail in tails for line in tail)


def _insist(step: Callable[[], None]) -> None:
    """Does it to its end, however often Ctrl-C is pressed; then that has its way."""
    interrupt: KeyboardInterrupt | None = None
    while True:
        try:
            step()
        except KeyboardInterrupt as error:
            interrupt = error
        else:
            break
    if interrupt is not None:
        raise interrupt


def local_pool(workers: int = 3, **settings: object) -> LocalPool:
    """A private broker and workers under a private supervisord, for one machine.

    Args:
        workers: how many worker processes.
        settings: any other setting by its name in lower case, such as `max_attempts=5`.

    Returns:
        A context manager (`with` or `async with`) whose value is a ZmqPool with all its workers ready.

    Raises:
        SettingsError: a setting breaks its rule.
        BrokerUnavailableError: on entry, when the workers were not ready in time; with the last lines of their logs.

    Example:
        >>> with local_pool(workers=3) as p:  # doctest: +SKIP
        ...     result = p.exec(body).result()
    """
    directory = temporary_folder() / f"racepool-{os.getpid()}-{uuid4().hex[:8]}"
    return LocalPool(Settings.load(**settings, dir=directory, workers=workers, **sockets_in(directory)))
