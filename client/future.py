"""The future of one exec(): a concurrent.futures.Future that can also be awaited."""

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, ref

from racepool.client.timing import TaskTiming
from racepool.protocol.errors import PoolForkedError

T = TypeVar("T")
_LOGGER = logging.getLogger("concurrent.futures")  # the standard library logs failed callbacks here


class PoolFuture(Future[T]):
    """The future result of one task.

    It is a `concurrent.futures.Future`: `result(timeout)`, `concurrent.futures.wait` and `asyncio.wrap_future` work. It
    can also be awaited, in any event loop and any number of times, and given to `asyncio.wait`. When an asyncio task
    that awaits it is cancelled, it is cancelled too; `asyncio.shield` prevents that. `running()` is False until the
    answer is there. A done-callback runs in the pool's I/O thread: it must be short, and must not wait for this pool.
    An error in a callback is logged.

    Attributes:
        task_id: the task's name in logs, stats and errors; None if there is no task.

    Example:
        >>> future = pool.exec(body)  # doctest: +SKIP
        >>> result = future.result(timeout=10)  # doctest: +SKIP
    """

    _done_callbacks: list[Callable[[Future[Any]], object]]

    def __init__(self, withdraw: Callable[[bool], None] | None = None, *, task_id: str | None = None) -> None:
        """Made by the pool.

        Args:
            withdraw: `withdraw(kill)` tells the pool that the future was cancelled.
            task_id: the task's name.
        """
        super().__init__()
        self.task_id = task_id
        self._withdraw = withdraw
        self._timing: TaskTiming | None = None
        self._is_at_exit = False

    @property
    def timing(self) -> TaskTiming | None:
        """What the task cost, whether it succeeded or failed. Done-callbacks can read it.

        It is None until the future is done. It stays None if the future was cancelled, or if it failed for another
        reason than a broker's answer or the queue timeout: for example, no broker could be reached, the pool was shut
        down, or the process is a forked child.

        Example:
            >>> result = await future  # doctest: +SKIP
            >>> future.timing  # doctest: +SKIP
            TaskTiming(queued_ms=0.2, run_ms=3.1, attempts=1, worker='worker-2')
        """
        return self._timing if self.done() else None

    def cancel(self, *, kill: bool = False) -> bool:
        """Withdraws the task if it is queued, and discards its result if it is running.

        Args:
            kill: also kill the worker that runs the task; supervisord starts another one.

        Returns:
            True; False if the task is answered already.

        Example:
            >>> future.cancel(kill=True)  # doctest: +SKIP
            True
        """
        was_cancelled = self.cancelled()
        if not super().cancel():
            return False
        if self._withdraw is not None and (kill or not was_cancelled):
            self._withdraw(kill)
        return True

    def result(self, timeout: float | None = None) -> T:
        """Waits for the result, as every future does.

        Args:
            timeout: how long to wait, in seconds. None = no limit.

        Returns:
            The TransformedRace, or what another RACEPOOL_TRANSFORM returns.

        Raises:
            TimeoutError: no answer came within `timeout`. The task goes on.
            CancelledError: the future was cancelled.
            PoolError: the task failed.
        """
        if self._is_at_exit and threading.current_thread().daemon:
            threading.Event().wait()  # until the exit: a daemon thread would only print the error while it dies
        return super().result(timeout)

    def add_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        """As every future does. Only a callback of `asyncio.wait` is called in its event loop, where it must run."""
        if getattr(fn, "__module__", None) == "asyncio.tasks":
            fn = _InLoop(asyncio.get_running_loop(), fn)
        super().add_done_callback(fn)

    def remove_done_callback(self, fn: Callable[[Future[T]], object]) -> int:
        """Removes a callback; returns how often it was there. Like the method of asyncio's futures."""
        with self._condition:
            before = self._done_callbacks
            kept = [each for each in before if (each.fn if isinstance(each, _InLoop) else each) != fn]
            self._done_callbacks = kept
        return len(before) - len(kept)

    def _invoke_callbacks(self) -> None:
        """Calls all of them, even if one raises: an error must end neither the I/O thread nor this loop."""
        interrupt = None
        for callback in self._done_callbacks:
            try:
                callback(self)
            except BaseException as error:  # also SystemExit, and the CancelledError of another future
                if isinstance(error, Exception) or threading.current_thread() is not threading.main_thread():
                    _LOGGER.exception("exception calling callback for %r", self)
                else:
                    interrupt = error
        if interrupt is not None:
            raise interrupt  # Ctrl-C, for example, belongs to the main thread

    def __await__(self) -> Generator[Any, None, T]:
        if not self.done():
            loop = asyncio.get_running_loop()
            waiter: asyncio.Future[None] = loop.create_future()
            self.add_done_callback(lambda _: mailbox(loop).put(waiter))
            try:
                yield from waiter
            except asyncio.CancelledError:
                self.cancel()
                raise
        if self.cancelled():
            raise asyncio.CancelledError
        return self.result()

    def resolve(self, result: T | None, error: BaseException | None, timing: TaskTiming | None = None) -> None:
        """Sets the result or the error, unless the future is cancelled. For the pool's I/O thread."""
        if self.set_running_or_notify_cancel():
            self._withdraw = None  # not needed any more
            self._timing = timing  # first, because the next step wakes the waiters and calls the callbacks
            if error is None:
                self.set_result(result)  # type: ignore[arg-type]  # without an error the result is one
            else:
                self.set_exception(error)

    def fail_in_child(self, about: str) -> None:
        """Fails the future in a forked child, without a call into the parent's event loops.

        Args:
            about: how the error names the task.
        """
        self.fail_silently(PoolForkedError(f"{about} belongs to the parent process; call exec() again here"))

    def fail_at_exit(self, error: BaseException) -> None:
        """Fails the future at the interpreter's exit. A daemon thread gets no error from `result`: it waits."""
        self._is_at_exit = True
        self.fail_silently(error)

    def fail_silently(self, error: BaseException) -> None:
        """Fails the future for those that ask from now on. It wakes nobody and calls no callback.

        The lock is replaced: a thread that does not exist in this process may hold it.
        """
        self._condition = threading.Condition()
        self._done_callbacks.clear()
        self._waiters.clear()
        with suppress(InvalidStateError):  # it is done
            self.set_exception(error)
            self._timing = None  # at the fork, the parent's thread may have just set it


def failed(error: Exception) -> PoolFuture[Any]:
    """A future that has failed already."""
    future: PoolFuture[Any] = PoolFuture()
    future.set_exception(error)
    return future


@dataclass(frozen=True, slots=True)
class _InLoop:
    """A callback that must run in its event loop."""

    loop: asyncio.AbstractEventLoop
    fn: Callable[[Future[Any]], object]

    def __call__(self, future: Future[Any]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits in it
            self.loop.call_soon_threadsafe(self.fn, future)


class _Mailbox:
    """Wakes the waiters of one event loop. One call into the loop serves all waiters that came since the last one."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = ref(loop)  # weak: a strong reference would keep the loop, its own key, alive
        self._waiters: list[asyncio.Future[None]] = []
        self._is_called = False
        self._lock = threading.Lock()

    def put(self, waiter: asyncio.Future[None]) -> None:
        with self._lock:
            self._waiters.append(waiter)
            if self._is_called:
                return
            self._is_called = True
        loop = self._loop()
        if loop is not None:
            try:
                loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:  # the loop is closed: nobody waits in it, and a waiter would keep it alive
                self._take()

    def _take(self) -> list[asyncio.Future[None]]:
        with self._lock:
            waiters, self._waiters = self._waiters, []
            self._is_called = False
        return waiters

    def _deliver(self) -> None:
        for waiter in self._take():
            if not waiter.done():
                waiter.set_result(None)


_mailboxes: WeakKeyDictionary[asyncio.AbstractEventLoop, _Mailbox] = WeakKeyDictionary()
_mailboxes_lock = threading.Lock()


def mailbox(loop: asyncio.AbstractEventLoop) -> _Mailbox:
    """The mailbox of this loop."""
    with _mailboxes_lock:
        found = _mailboxes.get(loop)
        if found is None:
            found = _mailboxes[loop] = _Mailbox(loop)
        return found


def _after_fork() -> None:
    """In the child no loop of the parent runs, and a thread that does not exist here may hold these locks."""
    global _mailboxes, _mailboxes_lock
    _mailboxes, _mailboxes_lock = WeakKeyDictionary(), threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
