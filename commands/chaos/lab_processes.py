"""The processes of a lab, from /proc: all that have its run directory in their environment."""

import os
import select
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from racepool.commands.doctor.probes.processes import module_of

MODULES = {
    "racepool.broker": "broker",
    "racepool.worker": "worker",
    "racepool.commands.chaos.stutterer": "stutterer",
    "racepool.supervision.supervisord": "supervisord",
    "racepool.supervision.watchdog": "watchdog",
    "racepool.commands.chaos.load": "client",
    "racepool.commands.chaos.rubbish": "rubbish",
}
END_S = 5.0
POLL_S = 0.02
_PAGE_KB = os.sysconf("SC_PAGE_SIZE") // 1024


@dataclass(frozen=True, slots=True)
class LabProcess:
    """One process.

    Attributes:
        program: broker, worker, stutterer, supervisord, watchdog, client, rubbish or other.
        name: the name in supervisord, such as worker-0; else the program.
        state: the kernel's letter; T is stopped.
        rss_kb: resident memory.
    """

    pid: int
    program: str
    name: str
    state: str
    rss_kb: int

    def __str__(self) -> str:
        """As the report shows it."""
        return f"{self.name} (pid {self.pid}, {'frozen' if self.state == 'T' else f'state {self.state}'})"


def processes_of(directory: Path) -> list[LabProcess]:
    """All processes of a lab, by pid. Until it execs, a new child shows its parent's program."""
    mark = f"RACEPOOL_DIR={directory}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError, IndexError):  # it has just ended, or belongs to another user
                environment = (entry / "environ").read_bytes().split(b"\0")
                if mark in environment:
                    found.append(_process(entry, environment))
    return sorted(found, key=lambda process: process.pid)


def _process(entry: Path, environment: list[bytes]) -> LabProcess:
    status = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    program = MODULES.get(module_of(int(entry.name)), "other")
    given = b"SUPERVISOR_PROCESS_NAME="
    name = next((field.removeprefix(given).decode() for field in environment if field.startswith(given)), program)
    return LabProcess(int(entry.name), program, name, status[0], int(status[21]) * _PAGE_KB)


def signalled(pid: int, number: signal.Signals) -> bool:
    """Sends a signal; false if the process does not exist any more."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def died_at(pid: int, timeout_s: float) -> float | None:
    """Waits for the end of a process and returns its instant; None if it does not end in time."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return time.monotonic()
    try:
        ready, _, _ = select.select([descriptor], [], [], timeout_s)
        return time.monotonic() if ready else None
    finally:
        os.close(descriptor)


def end_all(directory: Path) -> list[LabProcess]:
    """Kills every process of a lab, also frozen ones; returns those that are left."""
    deadline = time.monotonic() + END_S
    while (left := processes_of(directory)) and time.monotonic() < deadline:
        for process in sorted(
            left, key=lambda each: each.program != "supervisord"
        ):  # first, so that it restarts nothing
            signalled(process.pid, signal.SIGKILL)
        time.sleep(POLL_S)
    return left
