"""The processes of a lab: found in /proc by the lab's mark, and named by the pids that their parents told.

The mark is the run directory in their environment. What a process looks like tells nothing: a child that a transform
forks has its worker's command line and environment.
"""

import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

END_S: Final = 5.0
POLL_S: Final = 0.02
OTHER: Final = "other"
SUPERVISORD: Final = "supervisord"
_NAME_GIVEN: Final = b"SUPERVISOR_PROCESS_NAME="
_PAGE_KB: Final = os.sysconf("SC_PAGE_SIZE") // 1024


@dataclass(frozen=True, slots=True)
class LabProcess:
    """One process. Its pid and its start together name it: a pid alone may be given to another process.

    Attributes:
        started: clock ticks from the start of the machine to that of the process.
        parent: the pid of its parent.
        program: broker, worker, stutterer, supervisord, watchdog, client, rubbish or other.
        name: the name in supervisord, such as worker-0; the client's name; else the program.
        state: the kernel's letter; T is stopped.
        rss_kb: resident memory.
        origin: for another program: the name of the supervised program that it, or its parent, was forked from.
    """

    pid: int
    started: int
    parent: int
    program: str
    name: str
    state: str
    rss_kb: int
    origin: str = ""

    def __str__(self) -> str:
        """As the report shows it."""
        name = f"a child of {self.origin}" if self.origin else self.name
        return f"{name} (pid {self.pid}, {'frozen' if self.state == 'T' else f'state {self.state}'})"

    def is_alive(self) -> bool:
        """Whether this very process still runs."""
        return is_alive(self.pid, self.started)


class Census:
    """Who is who in a lab.

    Attributes:
        supervisord: the pid of supervisord; the stage sets it at each start.
        spawned: the pids of supervisord's programs by name, from its log, which can be read also while it is frozen.
        own: program and name of each process that the lab itself started, by pid.
    """

    def __init__(self, directory: Path) -> None:
        self.supervisord: int | None = None
        self.spawned: dict[str, int] = {}
        self.own: dict[int, tuple[str, str]] = {}
        self._directory = directory

    def processes(self) -> list[LabProcess]:
        """All processes of the lab, by pid."""
        mark = b"RACEPOOL_DIR=" + os.fsencode(self._directory)
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with suppress(OSError, IndexError):  # it has just ended, or belongs to another user
                    environment = (entry / "environ").read_bytes().split(b"\0")
                    if mark in environment:
                        found.append(self._process(int(entry.name), environment))
        return sorted(found, key=lambda process: process.pid)

    def _process(self, pid: int, environment: list[bytes]) -> LabProcess:
        status = _status(pid)
        parent = int(status[1])
        given = (field.removeprefix(_NAME_GIVEN) for field in environment if field.startswith(_NAME_GIVEN))
        origin = os.fsdecode(next(given, b""))
        program, name = self._role(pid, parent)
        return LabProcess(
            pid, int(status[19]), parent, program, name, status[0], int(status[21]) * _PAGE_KB,
            origin if program == OTHER else "",
        )  # fmt: skip

    def _role(self, pid: int, parent: int) -> tuple[str, str]:
        if pid == self.supervisord:
            return SUPERVISORD, SUPERVISORD
        if parent == self.supervisord:
            name = next((name for name, spawned in self.spawned.copy().items() if spawned == pid), OTHER)
            return name.partition("-")[0], name
        return self.own.get(pid, (OTHER, OTHER))


def _status(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


def started(pid: int) -> int:
    """When the process started, in clock ticks since the start of the machine; 0 if it does not exist."""
    try:
        return int(_status(pid)[19])
    except (OSError, IndexError):
        return 0


def is_alive(pid: int, since: int) -> bool:
    """Whether the process that started at `since` still runs. One that waits to be reaped has ended."""
    try:
        status = _status(pid)
        return int(status[19]) == since and status[0] not in "ZX"
    except (OSError, IndexError):
        return False


@contextmanager
def _held(process: LabProcess) -> Iterator[int | None]:
    """A descriptor of this very process; None if it has ended, whoever may have its pid now."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield descriptor if started(process.pid) == process.started else None
    finally:
        os.close(descriptor)


def signalled(process: LabProcess, number: signal.Signals) -> bool:
    """Sends a signal to this very process; false if it does not exist any more."""
    with _held(process) as descriptor:
        try:
            if descriptor is not None:
                signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return False
        return descriptor is not None


def died_at(process: LabProcess, timeout_s: float) -> float | None:
    """Waits for the end of a process and returns its instant; None if it does not end in time."""
    with _held(process) as descriptor:
        if descriptor is None:
            return time.monotonic()
        ready, _, _ = select.select([descriptor], [], [], timeout_s)
        return time.monotonic() if ready else None


def end_all(census: Census) -> list[LabProcess]:
    """Kills every process of a lab, also frozen ones; returns those that are left."""
    deadline = time.monotonic() + END_S
    while (left := census.processes()) and time.monotonic() < deadline:
        for process in sorted(left, key=lambda each: each.program != SUPERVISORD):  # first, so that it restarts nothing
            signalled(process, signal.SIGKILL)
        time.sleep(POLL_S)
    return left
