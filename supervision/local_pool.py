"""A pool of one's own on this machine: supervisord, broker and workers in a private directory, until the block ends."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TypeVar
from uuid import uuid4

from racepool.client.zmq_pool import ZmqPool
from racepool.protocol import clock
from racepool.protocol.endpoints import sockets_in, temporary_folder
from racepool.protocol.errors import BrokerUnavailableError, PoolError, SettingsError
from racepool.protocol.exits import Exit
from racepool.protocol.settings import Settings, variable
from racepool.supervision.configuration import (
    PREFIX,
    child_environment,
    named_caller,
    supervisord_command,
    write_configuration,
)
from racepool.supervision.orphans import MARK, kill_marked
from racepool.supervision.run_directory import hold, sweep

REMOVAL_S = 1.0  # how long the directory's removal is tried
LOOK_S = 0.5  # how often the start looks whether supervisord still runs
STOP_S = 5.0  # how long supervisord may take to end; all futures are resolved by then
WORDS_BYTES = 65_536  # of what supervisord said
LOG_TAIL_LINES = 5  # of each log, in the error

T = TypeVar("T")


class LocalPool:
    """A context manager for `with` and `async with`; its value is a ZmqPool whose workers are all ready. Used once.

    The processes end with the block. They also end when this process ends, even by SIGKILL.
    """

    def __init__(self, settings: Settings, transform: str | None = None) -> None:
        self._settings = settings
        self._transform = transform
        self._words = -1  # the memory file with what supervisord says
        self._lock = -1  # on the folder, until it is removed
        self._supervisord: subprocess.Popen[bytes] | None = None
        self._mark = b""  # of its processes, and of what they start
        self._pool = ZmqPool.of(settings)
        self._is_cancelled = False  # set in the event loop's thread, read in the thread that enters or leaves the block
        self._owner_pid = 0  # the process that entered the block

    def __enter__(self) -> ZmqPool:
        self._owner_pid = os.getpid()
        try:
            self._lock_folder()
            configuration = write_configuration(self._settings, owner_pid=self._owner_pid)
            environment = self._environment()
            self._mark = environment[MARK].encode()
            self._words = os.memfd_create("supervisord")
            self._supervisord = subprocess.Popen(  # noqa: S603  # our own interpreter and file
                supervisord_command(configuration),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._words,
                umask=0o077,
                pass_fds=[self._lock],
                start_new_session=True,  # the terminal's Ctrl-C goes to the caller alone; the caller ends supervisord
            )
            self._wait_for_workers(self._supervisord)
        except BrokerUnavailableError as error:
            try:
                tail = "\n".join([*self._said(), *self._log_tail()])
            finally:
                self._stop()
            raise BrokerUnavailableError(f"the local pool did not start: {error}\n{tail}") from None
        except BaseException:
            self._stop()
            raise
        return self._pool

    def _lock_folder(self) -> None:
        directory = self._settings.private_dir()
        try:
            lock = hold(directory)
        except OSError as error:
            directory.rmdir()
            raise SettingsError(f"{directory}: cannot be locked ({error.strerror}); choose another TMPDIR") from None
        if lock is None:
            raise SettingsError(f"{directory}: another process uses it")
        self._lock = lock
        sweep(directory.parent)

    def _environment(self) -> dict[str, str]:
        given = {} if self._transform is None else {variable("transform"): self._transform}
        return child_environment(self._settings) | named_caller(self._owner_pid, self._settings.dir) | given

    def _wait_for_workers(self, supervisord: subprocess.Popen[bytes]) -> None:
        deadline = clock.now() + self._settings.connect_timeout
        while True:
            left_s = max(0.0, deadline - clock.now())
            try:
                return self._pool.wait_for_workers(self._settings.workers, min(LOOK_S, left_s))
            except BrokerUnavailableError:
                if supervisord.poll() is not None:
                    raise self._early_end(supervisord.returncode) from None
                if left_s <= LOOK_S:
                    raise

    def _early_end(self, code: int) -> PoolError:
        if code == Exit.BAD_SETTINGS:
            return SettingsError(self._said()[-1])
        return BrokerUnavailableError(f"supervisord ended with code {code}")

    def _said(self) -> list[str]:
        """What supervisord told its user, line by line."""
        lines = os.pread(self._words, WORDS_BYTES, 0).decode(errors="replace").splitlines()
        return [line.removeprefix(PREFIX) for line in lines]

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
        """Runs a step outside the event loop. A cancellation ends the step and then the pool, before it is raised."""
        running = asyncio.ensure_future(asyncio.to_thread(step))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            self._is_cancelled = True
            self._pool.shutdown(wait=False, cancel_futures=True)
            with suppress(Exception):
                await running
            await asyncio.to_thread(self._stop)  # the step may have succeeded just before
            raise

    def _stop(self, *, cancel_futures: bool = True) -> None:
        if os.getpid() != self._owner_pid:  # a forked child leaves the block, too; the pool is its parent's
            if self._supervisord is not None:
                self._supervisord.poll()  # so that Popen notes that supervisord is no child of this process
            return
        try:
            self._pool.shutdown(cancel_futures=cancel_futures)
            if self._supervisord is not None and not (cancel_futures or self._is_cancelled):
                self._supervisord.terminate()
                with suppress(subprocess.TimeoutExpired):
                    self._supervisord.wait(STOP_S)
        finally:
            _insist(self._clean_up)

    def _clean_up(self) -> None:
        """Kills the processes and removes the directory. May be called again."""
        if self._supervisord is not None:
            self._supervisord.kill()  # broker and workers die with it
            self._supervisord.wait()
            kill_marked(self._mark)
        if self._lock < 0:  # the folder is not ours, or is removed already
            return
        deadline = clock.now() + REMOVAL_S
        shutil.rmtree(self._settings.dir, ignore_errors=True)
        while self._settings.dir.exists() and clock.now() < deadline:
            clock.sleep(0.01)  # a process that was dying still wrote
            shutil.rmtree(self._settings.dir, ignore_errors=True)
        for name in ("_lock", "_words"):
            descriptor = getattr(self, name)
            if descriptor >= 0:
                setattr(self, name, -1)
                os.close(descriptor)

    def _log_tail(self) -> list[str]:
        logs = sorted((self._settings.dir / "log").glob("*.log"))
        tails = (path.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL_LINES:] for path in logs)
        return [line for tail in tails for line in tail]


def _insist(step: Callable[[], None]) -> None:
    """Runs a step to its end, however often Ctrl-C is pressed, and raises KeyboardInterrupt after that."""
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


def local_pool(workers: int = 3, *, transform: str | None = None, **settings: object) -> LocalPool:
    """A private broker and private workers under a private supervisord, on this machine; for scripts and tests.

    Nothing starts before the block is entered. Entering waits until all workers are ready, at most the connect timeout
    (`connect_timeout`, in seconds). Leaving waits for the unresolved futures; if the block raised, they are cancelled.
    Then all processes and their directory, a new one in TMPDIR, are gone; also if this process is killed. If its
    supervisord is killed together with this process, the directory stays, until this user's next local pool removes it.

    Args:
        workers: how many worker processes.
        transform: what the workers run instead of the money flow, as package.module:function. They must be able to
            import it: installed, or on PYTHONPATH.
        settings: any other setting by its name in lower case, such as `max_attempts=5`. A setting that is not given has
            the value of its variable `RACEPOOL_...`, else its default. `dir` and the sockets cannot be given
            (TypeError).

    Returns:
        A context manager for `with` and `async with`, to be used once. Its value is a ZmqPool. With `async with`, a
        cancellation of the task also ends the pool before it is raised.

    Raises:
        SettingsError: a setting breaks its rule, or there is no such setting; or, on entry, the directory cannot be
            made or locked, or the workers refuse their settings: most often they cannot import the transform.
        BrokerUnavailableError: on entry: the workers were not ready in time, or supervisord ended; the text has the
            last lines of their logs, or what supervisord said.

    Example:
        >>> with local_pool(workers=3, run_timeout=5.0) as pool:  # doctest: +SKIP
        ...     result = pool.exec(body).result()
        >>> async with local_pool() as pool:  # doctest: +SKIP
        ...     result = await pool.exec(body)
    """
    directory = temporary_folder() / f"racepool-{os.getpid()}-{uuid4().hex[:8]}"
    return LocalPool(Settings.load(**settings, dir=directory, workers=workers, **sockets_in(directory)), transform)
