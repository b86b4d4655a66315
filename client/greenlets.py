"""gevent and eventlet: real threads, and futures that are resolved where greenlets may wait for them.

Both replace `threading` in the whole process (`monkey.patch_all()`): a thread becomes a greenlet, and a lock only works
between the greenlets of one thread. An I/O thread that waits for a socket would stop all greenlets, and it could not
wake a greenlet. So the I/O thread is a real one here, and a greenlet hands its results on. Neither library is imported
unless the process has patched itself with it.
"""

import os
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable
from importlib import import_module
from typing import Any

from racepool.protocol import clock

JOIN_POLL_S = 0.005


class Greenlets:
    """The greenlet library that has replaced `threading` in this process.

    Args:
        spawn: starts a greenlet.
        wait_readable: lets the other greenlets run until a descriptor is readable.
        start_thread: starts a real thread.
    """

    def __init__(
        self,
        spawn: Callable[[Callable[[], None]], object],
        wait_readable: Callable[[int], object],
        start_thread: Callable[[Callable[[], None], tuple[()]], object],
    ) -> None:
        self.spawn = spawn
        self.wait_readable = wait_readable
        self.start_thread = start_thread


def in_use() -> Greenlets | None:
    """The library that has replaced `threading`; None if threads are real, as they usually are."""
    monkey: Any = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        gevent, sockets = import_module("gevent"), import_module("gevent.socket")
        return Greenlets(gevent.spawn, sockets.wait_read, monkey.get_original("_thread", "start_new_thread"))
    patcher: Any = sys.modules.get("eventlet.patcher")
    if patcher is not None and patcher.is_monkey_patched("thread"):
        eventlet, hubs = import_module("eventlet"), import_module("eventlet.hubs")
        start_thread = patcher.original("_thread").start_new_thread
        return Greenlets(eventlet.spawn, lambda descriptor: hubs.trampoline(descriptor, read=True), start_thread)
    return None


class RealThread:
    """A thread of the system in a process whose `threading` makes greenlets. Like a daemon thread.

    Args:
        greenlets: the library in use.
        run: what the thread does; it must raise nothing.
    """

    def __init__(self, greenlets: Greenlets, run: Callable[[], None]) -> None:
        self._has_ended = False
        self._run = run
        greenlets.start_thread(self._main, ())

    def join(self, timeout_s: float | None = None) -> None:
        """Waits for the thread's end, and lets other greenlets run."""
        until = None if timeout_s is None else clock.now() + timeout_s
        while not self._has_ended and (until is None or clock.now() < until):
            time.sleep(JOIN_POLL_S)  # the library's own

    def _main(self) -> None:
        try:
            self._run()
        finally:
            self._has_ended = True


class Deliveries:
    """Calls in a greenlet what the I/O thread wants called: once for each `expect`.

    A greenlet waits for calls only while some are expected: a library takes a program for ended, or for stuck, by the
    greenlets that wait.
    """

    def __init__(self, greenlets: Greenlets) -> None:
        self._greenlets = greenlets
        self._expected: deque[None] = deque()  # one for each call that will come; a deque, because it needs no lock
        self._calls: deque[Callable[[], None]] = deque()
        self._ready = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        weakref.finalize(self, os.close, self._ready).atexit = False
        self._is_waiting = False

    def expect(self) -> None:
        """From a greenlet: one call will come."""
        self._expected.append(None)
        if not self._is_waiting:
            self._is_waiting = True
            self._greenlets.spawn(self._deliver)

    def put(self, call: Callable[[], None]) -> None:
        """From the I/O thread: has this called. It must raise nothing."""
        self._calls.append(call)
        os.eventfd_write(self._ready, 1)

    def _deliver(self) -> None:
        try:
            while self._expected:
                self._greenlets.wait_readable(self._ready)
                os.eventfd_read(self._ready)
                while self._calls:
                    self._expected.pop()
                    self._calls.popleft()()
        finally:
            self._is_waiting = False
