"""What a task may leave behind in the process of its worker, and that it is gone before the next task."""

import decimal
import faulthandler
import gc
import locale
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable

import pytest

from racepool.protocol.signals import Termination
from racepool.worker.surroundings import LostDescriptorsError, SpoiledError, Surroundings

SOON_S = 0.05
Observe = Callable[[], object]


def passes_in_a_child(test: Callable[[Surroundings, Termination], None]) -> bool:
    """Runs a test in a fork of this process: it may spoil the process as it likes."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(0)
            termination = Termination()
            test(Surroundings(termination), termination)
            code = 0
        except BaseException:  # noqa: BLE001  # the parent sees the exit code
            traceback.print_exc()
        os._exit(code)
    return os.waitpid(pid, 0)[1] == 0


def lower(limit: int) -> None:
    resource.setrlimit(limit, (4_096, resource.getrlimit(limit)[1]))


def handler_of(number: int) -> Observe:
    return lambda: signal.getsignal(number)


def mask() -> object:
    return signal.pthread_sigmask(signal.SIG_BLOCK, ())


def send_blocked(number: int) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    signal.raise_signal(number)


def timers() -> object:
    return [signal.getitimer(timer)[0] for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)]


def umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


def close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


LEFT_BEHIND: dict[str, tuple[Callable[[], object], Observe]] = {
    "handler of SIGALRM": (lambda: signal.signal(signal.SIGALRM, lambda *_: None), handler_of(signal.SIGALRM)),
    "SIGALRM ignored": (lambda: signal.signal(signal.SIGALRM, signal.SIG_IGN), handler_of(signal.SIGALRM)),
    "SIGTERM ignored": (lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN), handler_of(signal.SIGTERM)),
    "SIGINT default": (lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), handler_of(signal.SIGINT)),
    "SIGCHLD ignored": (lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN), handler_of(signal.SIGCHLD)),
    "all signals blocked": (lambda: signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()), mask),
    "SIGALRM blocked and sent": (lambda: send_blocked(signal.SIGALRM), mask),
    "alarm": (lambda: signal.alarm(60), timers),
    "timer of CPU time": (lambda: signal.setitimer(signal.ITIMER_VIRTUAL, 60), timers),
    "timer of a profiler": (lambda: signal.setitimer(signal.ITIMER_PROF, 60), timers),
    "directory": (lambda: os.chdir("/proc"), os.getcwd),
    "umask": (lambda: os.umask(0o333), umask),
    "limit of CPU time": (lambda: lower(resource.RLIMIT_CPU), lambda: resource.getrlimit(resource.RLIMIT_CPU)),
    "limit of files": (lambda: lower(resource.RLIMIT_FSIZE), lambda: resource.getrlimit(resource.RLIMIT_FSIZE)),
    "locale": (lambda: locale.setlocale(locale.LC_ALL, "C.UTF-8"), lambda: locale.setlocale(locale.LC_ALL)),
    "precision of decimals": (
        lambda: setattr(decimal.getcontext(), "prec", 3),
        lambda: decimal.Decimal(1) / decimal.Decimal(3),
    ),
    "recursion limit": (lambda: sys.setrecursionlimit(4_321), sys.getrecursionlimit),
    "switch interval": (lambda: sys.setswitchinterval(5.0), sys.getswitchinterval),
    "garbage collector": (gc.disable, gc.isenabled),
    "its thresholds": (lambda: gc.set_threshold(1), gc.get_threshold),
    "standard output": (lambda: setattr(sys, "stdout", None), lambda: sys.stdout),
    "trace function": (lambda: sys.settrace(lambda *_: None), sys.gettrace),
    "closed descriptors 1 and 2": (lambda: close(1, 2), lambda: (os.fstat(1).st_ino, os.fstat(2).st_ino)),
    "replaced descriptor 1": (lambda: os.dup2(os.open("/dev/zero", os.O_RDONLY), 1), lambda: os.fstat(1).st_ino),
}


@pytest.mark.parametrize("name", LEFT_BEHIND)
def test_next_task_starts_as_the_first_one_did(name: str) -> None:
    leave_behind, observe = LEFT_BEHIND[name]

    def test(_: Surroundings, termination: Termination) -> None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        locale.setlocale(locale.LC_ALL, "C")
        surroundings, before = Surroundings(termination), observe()
        leave_behind()
        surroundings.put_back()
        assert observe() == before, name
        surroundings.put_back()  # nothing is left to do
        assert observe() == before, name

    assert passes_in_a_child(test)


def test_signals_wake_the_worker_after_another_library_took_the_wakeup_descriptor() -> None:
    def test(surroundings: Surroundings, termination: Termination) -> None:
        signal.set_wakeup_fd(-1)
        surroundings.put_back()
        os.kill(os.getpid(), signal.SIGTERM)
        termination.drain()  # would raise BlockingIOError
        assert termination.is_asked

    assert passes_in_a_child(test)


def test_dump_that_would_end_the_process_later_is_cancelled() -> None:
    def test(surroundings: Surroundings, _: Termination) -> None:
        faulthandler.dump_traceback_later(SOON_S, exit=True)
        surroundings.put_back()
        time.sleep(2 * SOON_S)

    assert passes_in_a_child(test)


def test_lowered_hard_limit_spoils_a_worker_that_may_not_raise_it() -> None:
    def test(surroundings: Surroundings, _: Termination) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        try:
            surroundings.put_back()
        except SpoiledError as error:
            assert "hard limit" in str(error)  # noqa: PT017  # in a child
        else:
            assert resource.getrlimit(resource.RLIMIT_NOFILE) != (64, 64)  # root may raise it

    assert passes_in_a_child(test)


@pytest.mark.parametrize("reuse", [False, True])
def test_closed_descriptors_of_the_worker_are_noticed_also_when_others_took_their_numbers(*, reuse: bool) -> None:
    def test(surroundings: Surroundings, termination: Termination) -> None:
        reader = termination.fileno()
        os.closerange(3, 100)
        if reuse:
            assert reader in [os.open("/dev/null", os.O_RDONLY) for _ in range(100)]
        try:
            surroundings.put_back()
        except LostDescriptorsError:
            return
        raise AssertionError("not noticed")

    assert passes_in_a_child(test)


def test_thread_of_a_task_keeps_running() -> None:
    """A pool of threads between tasks is the transform's own affair."""

    def test(surroundings: Surroundings, _: Termination) -> None:
        thread = threading.Thread(target=time.sleep, args=(60,), daemon=True)
        thread.start()
        surroundings.put_back()
        assert thread.is_alive()

    assert passes_in_a_child(test)
