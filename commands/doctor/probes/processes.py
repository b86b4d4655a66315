"""Processes of this machine, from /proc."""

import os
import time
from contextlib import suppress
from pathlib import Path

from racepool.commands.doctor.facts import MachineProcess
from racepool.protocol.processes import own_pid

_TICKS = os.sysconf("SC_CLK_TCK")


def process(pid: int) -> MachineProcess | None:
    """The process with this pid; None if there is none."""
    folder = Path(f"/proc/{pid}")
    try:
        status = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        since_boot_s = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
        started_at = time.time() - since_boot_s + int(status[19]) / _TICKS
        files = _open_files(folder), _file_limit(folder)
        return MachineProcess(pid, module_of(pid), status[0], started_at, *files, own_pid(pid))
    except (OSError, IndexError):
        return None


def environment_of(pid: int) -> dict[str, str]:
    """The environment at the start of a process; empty if we may not read it."""
    try:
        content = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    fields = (os.fsdecode(field).partition("=") for field in content.split(b"\0") if field)
    return {name: value for name, _, value in fields}


def arguments_of(pid: int) -> list[str]:
    """The command line of a process; empty if there is no such process."""
    try:
        return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes()).split("\0")[:-1]
    except OSError:
        return []


def module_of(pid: int) -> str:
    """The module that a process runs with `python -m`; empty if it runs none."""
    arguments = arguments_of(pid)
    is_module = "-m" in arguments[:-1]
    return arguments[arguments.index("-m") + 1] if is_module else ""


def _open_files(folder: Path) -> int | None:
    with suppress(OSError):
        return len(os.listdir(folder / "fd"))  # noqa: PTH208  # only the names are needed
    return None


def _file_limit(folder: Path) -> int | None:
    with suppress(OSError, ValueError, StopIteration):
        lines = (folder / "limits").read_text(encoding="ascii").splitlines()
        line = next(line for line in lines if line.startswith("Max open files"))
        return int(line.split()[3])
    return None
