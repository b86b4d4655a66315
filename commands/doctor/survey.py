"""Gathers all facts. Probes run at the same time, and each one has a bounded time."""

import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Generic, TypeVar

from racepool.commands.doctor.facts import (
    Clock,
    Endpoint,
    Environment,
    Facts,
    Installation,
    Lock,
    MachineProcess,
    RunDirectory,
    StatsAnswer,
)
from racepool.commands.doctor.probes.broker import answer
from racepool.commands.doctor.probes.installation import installation
from racepool.commands.doctor.probes.keys import keys
from racepool.commands.doctor.probes.machine import hard_file_limit, memory, wall_offset_s
from racepool.commands.doctor.probes.processes import process
from racepool.commands.doctor.probes.run_directory import dead_tasks, endpoint, lock, log_directories, run_directory
from racepool.commands.doctor.probes.supervision import supervision
from racepool.protocol.endpoints import SOCKETS, is_tcp
from racepool.protocol.errors import SettingsError
from racepool.protocol.processes import pid_here
from racepool.protocol.settings import Settings
from racepool.protocol.stats import PoolStats

NOBODY = ("missing", "stale", "refused", "no socket")  # states of an endpoint
PATIENCE_S = 1.5  # longer than the second that a probe waits for another program

T = TypeVar("T")


class Overdue:
    """The names of the probes that did not end in time."""

    def __init__(self) -> None:
        self.names: list[str] = []


class TimedProbe(Generic[T]):
    """A probe in a thread of its own, which may be left behind: a network disk may never answer."""

    def __init__(self, name: str, look: Callable[[], T], overdue: Overdue) -> None:
        self._name = name
        self._overdue = overdue
        self._deadline = time.monotonic() + PATIENCE_S
        self._found: list[T] = []
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(look,), daemon=True)
        self._thread.start()

    def result(self) -> T | None:
        """Waits for the probe and returns its fact; None if the time is over."""
        self._thread.join(max(self._deadline - time.monotonic(), 0))
        if self._error is not None:
            raise self._error
        if not self._found:
            self._overdue.names.append(self._name)
            return None
        return self._found[0]

    def _run(self, look: Callable[[], T]) -> None:
        try:
            self._found.append(look())
        except Exception as error:  # noqa: BLE001  # raised again in `result`
            self._error = error


def survey() -> Facts:
    """All facts about the set-up that this command's environment describes."""
    environment = _environment()
    overdue = Overdue()
    installed = TimedProbe("installation", installation, overdue)
    if environment.settings is None:
        return Facts(environment, hard_file_limit(), installation=installed.result(), overdue=tuple(overdue.names))
    return _of_pool(environment, environment.settings, installed, overdue)


def _environment() -> Environment:
    unknown = tuple(Settings.unknown_variables())
    try:
        return Environment(Settings.load(), unknown=unknown)
    except SettingsError as error:
        return Environment(None, str(error), unknown)


def _of_pool(
    environment: Environment, settings: Settings, installed: TimedProbe[Installation], overdue: Overdue
) -> Facts:
    offset_s = wall_offset_s()
    directory_probe = TimedProbe("run directory", lambda: run_directory(settings), overdue)
    lock_probe = TimedProbe("lock", lambda: lock(settings), overdue)
    endpoint_probes = [
        TimedProbe("sockets", partial(endpoint, setting, getattr(settings, setting)), overdue) for setting in SOCKETS
    ]
    dead_probe = TimedProbe("dead tasks", lambda: dead_tasks(settings), overdue)
    keys_probe = TimedProbe("keys", lambda: keys(settings), overdue)
    directory, held = directory_probe.result(), lock_probe.result()
    endpoints = tuple(found for probe in endpoint_probes if (found := probe.result()))
    said = _answer(settings, directory, endpoints, overdue)
    stats = said.stats if said else None
    broker = _broker(settings, stats, endpoints, held)
    broker_pid = broker.pid if broker else None
    supervision_probe = TimedProbe("supervisor", lambda: supervision(settings, broker_pid), overdue)
    memory_probe = TimedProbe("memory", lambda: memory(broker_pid), overdue)
    above = supervision_probe.result()
    log_probe = TimedProbe("logs", lambda: log_directories(settings, above), overdue)
    return Facts(
        environment=environment,
        hard_file_limit=hard_file_limit(),
        installation=installed.result(),
        directory=directory,
        endpoints=endpoints,
        lock=held,
        answer=said,
        broker=broker,
        workers=_workers(settings, stats, broker_pid),
        supervision=above,
        memory=memory_probe.result(),
        logs=log_probe.result() or (),
        dead=dead_probe.result(),
        keys=keys_probe.result(),
        clock=Clock(time.time(), wall_offset_s() - offset_s),
        overdue=tuple(dict.fromkeys(overdue.names)),
    )


def _answer(
    settings: Settings, directory: RunDirectory | None, endpoints: Iterable[Endpoint], overdue: Overdue
) -> StatsAnswer | None:
    """The broker's answer. None if the run directory is refused: any user may answer there.

    If nothing listens at the address, the survey does not wait.
    """
    address = settings.stats_endpoint
    if directory and directory.refusal and settings.dir in settings.ipc_directories(address):
        return None
    if any(each.address == address and each.state in NOBODY for each in endpoints):
        return StatsAnswer(error=f"nobody answers at {address}; {settings.remedy(address)}")
    return TimedProbe("broker", lambda: answer(settings), overdue).result()


def _broker(
    settings: Settings, stats: PoolStats | None, endpoints: Iterable[Endpoint], held: Lock | None
) -> MachineProcess | None:
    """The broker's process, if it is on this machine: the one that listens, else the one that holds the lock.

    Over tcp, the kernel does not tell who listens. Then the pid that the broker tells counts, if it is a broker here.
    """
    pids = [each.listener_pid for each in endpoints if each.address == settings.stats_endpoint]
    if stats and is_tcp(settings.stats_endpoint):
        pids = [stats.broker.pid]
    return _first([*pids, (held and held.holder_pid) or 0], "racepool.broker")


def _first(pids: Iterable[int | None], module: str) -> MachineProcess | None:
    """The first process here with this module. A pid may belong to another host, and be another program here."""
    found = (process(pid) for pid in pids if pid)
    return next((each for each in found if each and each.module == module), None)


def _workers(settings: Settings, stats: PoolStats | None, broker_pid: int | None) -> tuple[MachineProcess, ...]:
    """The processes of the workers that run on this machine. The broker tells the pids of its own pid namespace."""
    if stats is None or (broker_pid is None and not is_tcp(settings.stats_endpoint)):
        return ()
    pids = (pid_here(each.pid, broker_pid) for each in stats.workers)
    return tuple(found for pid in pids if (found := _first([pid], "racepool.worker")))
