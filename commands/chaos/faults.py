"""How each kind of fault is done. The client that submits the race does those that are only inside a race."""

import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from racepool.commands.chaos.injection import Hit, Injection
from racepool.commands.chaos.lab_processes import Census, LabProcess, died_at, signalled
from racepool.commands.chaos.load import Orders
from racepool.commands.chaos.plan import STEADY_CLIENTS, Plan, steady
from racepool.commands.chaos.switch import ENDS_AT_IMPORT
from racepool.protocol.settings import Settings

TARGET_S: Final = 3.0
BURST_S: Final = 8.0
VICTIM_TASKS: Final = 150
VICTIM_SLEEP_S: Final = 0.1  # long enough that the logs show a task that was not dropped with its client
SLOW_TASKS: Final = 40
POLL_S: Final = 0.02
FROZEN_TOGETHER: Final = ("supervisord", "watchdog", "broker", "worker", "stutterer", "client")


class Ground(Protocol):
    """The pool and programs that the faults act on."""

    plan: Plan
    settings: Settings
    stop: threading.Event
    census: Census

    def start_client(self, orders: Orders) -> "subprocess.Popen[bytes]":
        """Starts a client for this fault alone."""

    def start_program(self, program: str, name: str, module: str, *arguments: str) -> "subprocess.Popen[bytes]":
        """Starts a module of the lab in the lab's environment."""

    def has_joined(self, name: str) -> bool:
        """Whether the worker of this name, started with `start_program`, has found the broker."""

    def start_supervisord(self) -> None:
        """Starts supervisord; waits first until the previous one has ended."""

    def pid_of_client(self, name: str) -> int | None:
        """The pid of this client; None if it does not run."""

    @property
    def records(self) -> Path:
        """Where clients write their records."""


def inject(ground: Ground, injection: Injection) -> None:
    """Does the fault from its beginning to its end, and writes into `injection` what was done."""
    WAYS[injection.name](ground, injection)


def _of(ground: Ground, *programs: str) -> list[LabProcess]:
    return [process for process in ground.census.processes() if process.program in programs]


def _found(ground: Ground, program: str, name: str = "") -> LabProcess | None:
    """The process of that name, else any process of that program that is not frozen. Waits up to TARGET_S for one."""
    deadline = time.monotonic() + TARGET_S
    while not ground.stop.is_set() and time.monotonic() < deadline:
        upright = [process for process in _of(ground, program) if process.state != "T"]
        named = [process for process in upright if process.name == name] or upright
        if named:
            return named[0]
        ground.stop.wait(POLL_S)
    return None


def _hit(injection: Injection, process: LabProcess | None, number: signal.Signals) -> Hit | None:
    """Sends the signal and notes the hit. None, with `missed` set, if the process does not exist."""
    at = time.monotonic()
    if process is None or not signalled(process, number):
        injection.missed = "there was no process to hit"
        return None
    injection.at = at if not injection.hits else injection.at
    hit = Hit(at, process.pid, process.name)
    injection.hits.append(hit)
    return hit


def _kill(program: str) -> Callable[[Ground, Injection], None]:
    def way(ground: Ground, injection: Injection) -> None:
        _hit(injection, _found(ground, program, f"worker-{injection.fault.target}"), signal.SIGKILL)

    return way


def _kill_all_workers(ground: Ground, injection: Injection) -> None:
    for process in _of(ground, "worker"):
        _hit(injection, process, signal.SIGKILL)
    injection.missed = "" if injection.hits else injection.missed


def _freeze_for_a_while(ground: Ground, injection: Injection, process: LabProcess | None) -> None:
    hit = _hit(injection, process, signal.SIGSTOP)
    if process is not None and hit is not None:
        ground.stop.wait(injection.fault.lasts_s)
        hit.until = injection.until = time.monotonic()
        signalled(process, signal.SIGCONT)


def _freeze(program: str) -> Callable[[Ground, Injection], None]:
    def way(ground: Ground, injection: Injection) -> None:
        process = _found(ground, program, f"worker-{injection.fault.target}")
        _freeze_for_a_while(ground, injection, process)

    return way


def _freeze_for_good(program: str) -> Callable[[Ground, Injection], None]:
    def way(ground: Ground, injection: Injection) -> None:
        process = _found(ground, program, f"worker-{injection.fault.target}")
        hit = _hit(injection, process, signal.SIGSTOP)
        if process is None or hit is None:
            return
        patience_s = injection.fault.kind.rest_s
        deadline = hit.at + patience_s
        while hit.died_at is None and not ground.stop.is_set() and time.monotonic() < deadline:
            hit.died_at = died_at(process, POLL_S * 10)
        if hit.died_at is None and not ground.stop.is_set():
            injection.troubles.append(f"{hit.name} (pid {hit.pid}) was frozen and still alive after {patience_s:g} s")
            signalled(process, signal.SIGKILL)

    return way


def _freeze_pool(ground: Ground, injection: Injection) -> None:
    """Freezes and continues all, one after the other: the last to freeze sees the others silent for a moment."""
    frozen = [process for process in _of(ground, *FROZEN_TOGETHER) if process.state != "T"]
    hits = [(process, hit) for process in frozen if (hit := _hit(injection, process, signal.SIGSTOP)) is not None]
    ground.stop.wait(injection.fault.lasts_s)
    injection.until = time.monotonic()
    for process, hit in hits:
        hit.until = injection.until
        signalled(process, signal.SIGCONT)
    injection.missed = "" if hits else injection.missed


def _stutter(ground: Ground, injection: Injection) -> None:
    """At the end the extra worker is killed: the broker must notice that as it does for any worker."""
    name = f"stutterer-{injection.fault.number}"
    child = ground.start_program("stutterer", name, "racepool.commands.chaos.stutterer", "--name", name)
    deadline = time.monotonic() + BURST_S
    while not ground.has_joined(name) and time.monotonic() < deadline and not ground.stop.is_set():
        time.sleep(POLL_S)
    ground.stop.wait(injection.fault.lasts_s)
    hit = Hit(time.monotonic(), child.pid, name)
    child.kill()
    child.wait()
    injection.hits.append(hit)
    injection.until = hit.at


def _kill_client(ground: Ground, injection: Injection) -> None:
    """Kills a client that has just submitted more tasks than the workers can have finished."""
    fault = injection.fault
    orders = Orders(
        ground.plan, f"victim-{fault.number}", ground.records, burst=(fault.number, VICTIM_TASKS, VICTIM_SLEEP_S)
    )
    injection.client = orders.name
    child = ground.start_client(orders)
    deadline = time.monotonic() + BURST_S
    while _line_count(orders.file) < VICTIM_TASKS and time.monotonic() < deadline and not ground.stop.is_set():
        time.sleep(POLL_S)
    injection.at = time.monotonic()
    child.kill()
    if _line_count(orders.file) < VICTIM_TASKS:
        injection.missed = f"it had not submitted its tasks within {BURST_S:g} s"


def _line_count(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.read_bytes().count(b'["Submitted"')
    return 0


def _freeze_client(ground: Ground, injection: Injection) -> None:
    """Freezes the last steady client. The first one submits the races with faults, and must be in time."""
    name = injection.client = steady(STEADY_CLIENTS - 1)
    pid = ground.pid_of_client(name)
    process = next((each for each in _of(ground, "client") if each.pid == pid), None)
    _freeze_for_a_while(ground, injection, process)


def _slow_client(ground: Ground, injection: Injection) -> None:
    fault = injection.fault
    name = injection.client = f"slow-{fault.number}"
    burst = (fault.number, SLOW_TASKS, 0.0)
    dawdle_s = fault.lasts_s / SLOW_TASKS
    ground.start_client(Orders(ground.plan, name, ground.records, burst=burst, dawdle_s=dawdle_s))
    ground.stop.wait(fault.lasts_s)
    injection.until = time.monotonic()


def _kill_supervisord(ground: Ground, injection: Injection) -> None:
    supervisord = _of(ground, "supervisord")
    children = _of(ground, "broker", "worker")
    for process in supervisord:
        _hit(injection, process, signal.SIGKILL)
    injection.hits += [Hit(injection.at, process.pid, process.name) for process in children]
    ground.stop.wait(injection.fault.lasts_s)
    injection.troubles += [f"{process} outlived its supervisord" for process in children if process.is_alive()]
    injection.until = time.monotonic()
    if not ground.stop.is_set():
        ground.start_supervisord()


def _rubbish(ground: Ground, injection: Injection) -> None:
    fault = injection.fault
    module = "racepool.commands.chaos.rubbish"
    child = ground.start_program("rubbish", "rubbish", module, str(fault.number), str(fault.lasts_s))
    injection.hits.append(Hit(injection.at, child.pid))  # a changed byte may make it a worker
    while child.poll() is None and not ground.stop.is_set():
        ground.stop.wait(POLL_S)
    injection.until = time.monotonic()
    if child.poll():
        injection.missed = f"the program that sends the rubbish ended with {child.returncode}"


def _remove_sockets(ground: Ground, injection: Injection) -> None:
    injection.at = time.monotonic()
    for path in ground.settings.dir.glob("*.ipc"):
        path.unlink(missing_ok=True)


def _kill_broker_in_hang(ground: Ground, injection: Injection) -> None:
    """The client has submitted the race; the observer tells when a worker has begun it."""
    deadline = time.monotonic() + BURST_S
    while not injection.awaited and not ground.stop.is_set():
        if time.monotonic() > deadline:
            return  # the lab says that no worker began the race
        time.sleep(POLL_S)
    _hit(injection, _found(ground, "broker"), signal.SIGKILL)


def _end_at_import(how: str) -> Callable[[Ground, Injection], None]:
    def way(ground: Ground, injection: Injection) -> None:
        switch = ground.settings.dir / ENDS_AT_IMPORT
        switch.write_text(how, encoding="ascii")
        _kill_all_workers(ground, injection)
        ground.stop.wait(injection.fault.lasts_s)
        switch.unlink()
        injection.until = time.monotonic()

    return way


WAYS: Final[dict[str, Callable[[Ground, Injection], None]]] = {
    "worker-kill": _kill("worker"),
    "workers-kill-all": _kill_all_workers,
    "worker-freeze-short": _freeze("worker"),
    "worker-freeze": _freeze("worker"),
    "worker-freeze-calm": _freeze("worker"),
    "worker-freeze-for-good": _freeze_for_good("worker"),
    "broker-kill": _kill("broker"),
    "broker-freeze": _freeze("broker"),
    "broker-freeze-for-good": _freeze_for_good("broker"),
    "pool-freeze": _freeze_pool,
    "stutter": _stutter,
    "client-kill": _kill_client,
    "client-freeze": _freeze_client,
    "client-slow": _slow_client,
    "supervisord-freeze": _freeze("supervisord"),
    "supervisord-kill": _kill_supervisord,
    "watchdog-kill": _kill("watchdog"),
    "garbage": _rubbish,
    "sockets-removed": _remove_sockets,
    "broker-kill-alarm": _kill_broker_in_hang,
    "import-exit": _end_at_import("exit"),
    "import-abort": _end_at_import("abort"),
}
