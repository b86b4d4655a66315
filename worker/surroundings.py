"""The state of the worker's process that all tasks share: put back after each task, as it was before the first one.

It knows no task and no socket. What it does not put back is the transform's own affair; docs/transforms.md lists both.
Each task pays for it, so it makes only calls that take a microsecond or less.
"""

import _signal  # type: ignore[import-not-found]  # what `signal` wraps: it makes no enumerations, which cost 2 us each
import decimal
import faulthandler
import gc
import locale
import os
import resource
import signal
import sys
from contextlib import suppress
from typing import Any

from racepool.protocol.signals import Termination

ALARMS = {
    signal.SIGALRM: signal.ITIMER_REAL,
    signal.SIGVTALRM: signal.ITIMER_VIRTUAL,
    signal.SIGPROF: signal.ITIMER_PROF,
}
OTHER_SIGNALS = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE, signal.SIGXCPU),
    *(signal.SIGUSR1, signal.SIGUSR2),
)
LIMITS = (resource.RLIMIT_CPU, resource.RLIMIT_AS, resource.RLIMIT_DATA, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)
OUTPUTS = (1, 2)


class SpoiledError(Exception):
    """The transform changed what cannot be put back. The text says what."""


class LostDescriptorsError(SpoiledError):
    """The transform closed descriptors of the worker, so the worker cannot send the result."""


class Surroundings:
    """The state before the first task. To be made in the main thread, after the transform was imported."""

    def __init__(self, termination: Termination) -> None:
        self._termination = termination
        self._pipe = _identity(termination.fileno())
        self._directory = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._outputs = [(number, _identity(number), os.dup(number)) for number in OUTPUTS if _is_open(number)]
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        self._mask = _signal.pthread_sigmask(signal.SIG_BLOCK, ())
        handlers = [(number, _signal.getsignal(number)) for number in OTHER_SIGNALS]
        self._handlers = [(number, handler) for number, handler in handlers if handler is not None]
        self._limits = [(limit, resource.getrlimit(limit)) for limit in LIMITS]
        self._user = (os.geteuid(), os.getegid())
        self._interpreter = _interpreter()
        self._locale = locale.setlocale(locale.LC_ALL)
        self._decimal = decimal.getcontext().copy()

    def put_back(self) -> None:
        """Undoes what the last task has changed. No timer runs afterwards.

        Raises:
            LostDescriptorsError: the worker must end at once.
            SpoiledError: the worker must end after the result.
        """
        self._put_back_signals()
        try:
            is_ours = _identity(self._termination.fileno()) == self._pipe
            self._termination.listen()
            os.fchdir(self._directory)
        except (OSError, ValueError):  # ValueError: set_wakeup_fd was given a closed descriptor
            is_ours = False
        if not is_ours:
            raise LostDescriptorsError("descriptors of the worker were closed")
        self._put_back_outputs()
        self._put_back_interpreter()
        os.umask(self._umask)
        if (os.geteuid(), os.getegid()) != self._user:
            raise SpoiledError("the user or the group was changed")
        for limit, values in self._limits:
            if resource.getrlimit(limit) != values:
                try:
                    resource.setrlimit(limit, values)
                except (OSError, ValueError):
                    raise SpoiledError("a hard limit was lowered") from None

    def _put_back_signals(self) -> None:
        for timer in ALARMS.values():
            signal.setitimer(timer, 0)
        faulthandler.cancel_dump_traceback_later()
        for number, handler in self._handlers:
            if _signal.getsignal(number) != handler:
                _signal.signal(number, handler)
        if _signal.pthread_sigmask(signal.SIG_BLOCK, ()) != self._mask:
            for number in ALARMS:
                _signal.signal(number, _signal.SIG_IGN)  # drops a blocked signal that waits, or it would end the worker
            _signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        for number in (signal.SIGVTALRM, signal.SIGPROF):
            if _signal.getsignal(number) != _signal.SIG_DFL:
                _signal.signal(number, _signal.SIG_DFL)
        _signal.signal(
            signal.SIGALRM, _signal.SIG_DFL
        )  # also over a handler of a C library, which getsignal does not show

    def _put_back_outputs(self) -> None:
        for number, identity, spare in self._outputs:
            try:
                is_ours = _identity(number) == identity
            except OSError:
                is_ours = False
            if not is_ours:
                try:
                    os.dup2(spare, number)
                except OSError:
                    raise LostDescriptorsError("descriptors of the worker were closed") from None

    def _put_back_interpreter(self) -> None:
        if _interpreter() != self._interpreter:
            recursion_limit, switch_interval, is_collecting, threshold, sys.stdout, sys.stderr, trace, profile = (
                self._interpreter
            )
            with suppress(RecursionError):
                sys.setrecursionlimit(recursion_limit)
            sys.setswitchinterval(switch_interval)
            (gc.enable if is_collecting else gc.disable)()
            gc.set_threshold(*threshold)
            sys.settrace(trace)
            sys.setprofile(profile)
        if locale.setlocale(locale.LC_ALL) != self._locale:
            locale.setlocale(locale.LC_ALL, self._locale)
        decimal.setcontext(self._decimal.copy())


def _interpreter() -> tuple[Any, ...]:
    return (
        sys.getrecursionlimit(),
        sys.getswitchinterval(),
        gc.isenabled(),
        gc.get_threshold(),
        sys.stdout,
        sys.stderr,
        sys.gettrace(),
        sys.getprofile(),
    )


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
