"""A lab's own pool and programs: starts them, tells their state, ends them all."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from racepool.client.monitoring import fetch_stats
from racepool.commands.chaos.lab_processes import OTHER, SUPERVISORD, Census, LabProcess, end_all
from racepool.commands.chaos.load import Orders
from racepool.commands.chaos.plan import Plan
from racepool.protocol.errors import PoolError
from racepool.protocol.settings import Settings, variable
from racepool.supervision.configuration import child_environment, supervisord_command, write_configuration

DEFAULT_TRANSFORM = "racepool.races.transform:transform_race"
ASK_S = 1.0
STOP_S = 20.0  # an idle pool stops in two seconds


@dataclass(frozen=True)
class State:
    """How the pool looks at one moment.

    Attributes:
        missing: each difference from a whole pool at rest, as text.
        is_idle: all workers are there, and none has a task.
    """

    missing: tuple[str, ...]
    is_idle: bool


class Stage:
    """A private supervisord with broker and workers, and clients beside it.

    Args:
        plan: of the lab.
        settings: of the pool.
        harms: the file for the saboteur's records.
        transform: the user's; None = the value of RACEPOOL_TRANSFORM, else the money flow.
        census: learns the pids of all that is started here.
    """

    def __init__(self, plan: Plan, settings: Settings, harms: Path, transform: str | None, census: Census) -> None:
        self.plan = plan
        self.census = census
        self.settings = settings
        self.stop = threading.Event()
        environment = {
            name: value for name, value in child_environment(settings).items() if not name.startswith("SUPERVISOR_")
        }
        self.transform = transform or environment.get(variable("transform")) or DEFAULT_TRANSFORM
        self._environment = environment | {
            variable("transform"): "racepool.commands.chaos.saboteur:transform",
            variable("chaos_transform"): self.transform,
            variable("chaos_harms"): str(harms),
        }
        self._configuration = write_configuration(settings, owner_pid=os.getpid())
        self._supervisord: subprocess.Popen[bytes] | None = None
        self._clients: dict[str, subprocess.Popen[bytes]] = {}
        self.records.mkdir(mode=0o700)

    @property
    def records(self) -> Path:
        """Where clients write their records."""
        return self.settings.dir / "records"

    def start_client(self, orders: Orders) -> "subprocess.Popen[bytes]":
        """Starts a client."""
        child = self.start_program("client", orders.name, "racepool.commands.chaos.load", orders.to_text())
        self._clients[orders.name] = child
        return child

    def start_program(self, program: str, name: str, module: str, *arguments: str) -> "subprocess.Popen[bytes]":
        """Starts a module of the lab in the lab's environment; its standard input ends with the lab."""
        with self._program_log.open("ab") as log:
            child = subprocess.Popen(  # noqa: S603  # our own interpreter and modules
                [sys.executable, "-P", "-m", module, *arguments],
                env=self._environment, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.census.own[child.pid] = program, name
        return child

    def has_joined(self, name: str) -> bool:
        """Whether the worker of this name, started with `start_program`, has found the broker."""
        return f'"worker":"{name}","event":"broker_found"'.encode() in self._program_log.read_bytes()

    @property
    def _program_log(self) -> Path:
        return self.settings.dir / "log" / "programs.log"

    def start_supervisord(self) -> None:
        """Starts supervisord; waits first until the previous one has ended."""
        if self._supervisord is not None:
            self._supervisord.wait()
        self._supervisord = subprocess.Popen(  # noqa: S603  # our own interpreter and file
            supervisord_command(self._configuration), env=self._environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self.census.supervisord = self._supervisord.pid

    def pid_of_client(self, name: str) -> int | None:
        """The pid of this client; None if it does not run."""
        client = self._clients.get(name)
        return None if client is None or client.poll() is not None else client.pid

    def is_full(self) -> bool:
        """Whether all workers are ready."""
        try:
            return fetch_stats(self.settings, ASK_S).total_workers == self.settings.workers
        except PoolError:
            return False

    def are_clients_done(self) -> bool:
        """Whether every client has ended."""
        return all(client.poll() is not None for client in self._clients.values())

    def state(self) -> State:
        """The pool as it is now."""
        try:
            stats = fetch_stats(self.settings, ASK_S)
        except PoolError as error:
            return State((str(error),), is_idle=False)
        there = {worker.name for worker in stats.workers}
        processes = {process.name: str(process) for process in self.census.processes()}
        names = [f"worker-{index}" for index in range(self.settings.workers)]
        absent = [
            f"{processes.get(name, f'{name} (no process)')} is not in the pool" for name in names if name not in there
        ]
        absent += [] if "watchdog" in processes else ["there is no watchdog"]
        busy = stats.total_workers - stats.idle_workers
        at_work = [f"{busy} workers are at work, on {stats.in_flight} tasks"] if busy or stats.in_flight else []
        waiting = [f"{stats.queue_depth} tasks wait"] if stats.queue_depth else []
        return State((*absent, *at_work, *waiting), is_idle=not absent and not at_work)

    def surplus(self, awaited: Collection[int]) -> list[str]:
        """Processes that must not be there; pids in `awaited` are left out."""
        return [str(each) for each in surplus_among(self.census.processes(), awaited)]

    def end_pool(self) -> float:
        """Ends supervisord and its programs with SIGTERM. Returns the instant at which it ended or was overdue."""
        if self._supervisord is not None:
            self._supervisord.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._supervisord.wait(STOP_S)
        return time.monotonic()

    def end(self) -> None:
        """Ends all processes, also frozen ones."""
        self.stop.set()
        for client in self._clients.values():
            client.kill()
        if self._supervisord is not None:
            self._supervisord.kill()  # its children die with it
            self._supervisord.wait()
        end_all(self.census)
        for client in self._clients.values():
            client.wait()


def surplus_among(processes: Iterable[LabProcess], awaited: Collection[int]) -> list[LabProcess]:
    """A child whose worker has ended, a worker that nothing supervises, a stutterer; pids in `awaited` are left out."""
    found = {process.pid: process for process in processes}
    return [
        each
        for each in found.values()
        if each.pid not in awaited
        and (each.program == "stutterer" or (each.origin and not _has_supervised_ancestor(each, found)))
    ]


def _has_supervised_ancestor(process: LabProcess, found: Mapping[int, LabProcess]) -> bool:
    """Whether a program that supervisord started still answers for this process."""
    parent = found.get(process.parent)
    while parent is not None and parent.program == OTHER:
        parent = found.get(parent.parent)
    return parent is not None and parent.program != SUPERVISORD
