"""A process and all that it started: the CPU that each thread used, and the memory of all, from /proc."""

import os
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

PROC: Final = Path("/proc")
RUN_TIME: Final = "schedstat"  # in nanoseconds; `stat` has ticks of 10 ms only
DEATH_S: Final = 5.0
DEATH_POLL_S: Final = 0.005
CALLER: Final = "caller"
SHARED: Final = ("/memfd:", "/dev/shm/")  # noqa: S108  # only compared, not written to
# The part of a process, by words of its command line; the first that fits counts.
_PARTS: Final = (
    ("-m racepool.broker", "broker"),
    ("-m racepool.worker", "worker"),
    ("supervisord", "supervisord"),
    ("racepool.supervision.watchdog", "supervisord's watchdog"),
    ("racepool.supervision.owner", "supervisord's watchdog"),
    ("proxy_device", "proxy"),
    ("proxy_worker", "worker"),
    ("redis-server", "redis"),
    ("ipyparallel.controller", "controller"),
    ("ipyparallel.engine", "worker"),
    ("ipcluster", "controller"),
    ("gcs_server", "ray's servers"),
    ("raylet/raylet", "raylet"),
    ("ray::", "worker"),
    ("ray/", "ray's servers"),
    ("forkserver", "helper"),
    ("resource_tracker", "helper"),
)


class Part(NamedTuple):
    """The part that a thread has in the work. Threads with the same part are added up."""

    process: str
    thread: str


Cpu: TypeAlias = "Counter[Part]"
"""For each part, its user and system time in nanoseconds."""


def counts_run_time() -> bool:
    """Whether this kernel tells how long each thread has run. It needs CONFIG_SCHED_INFO."""
    return (PROC / "self" / RUN_TIME).exists()


class ProcessTree:
    """`root` and all processes below it. A process that was seen once stays in the tree, even if its parent ends."""

    def __init__(self, root: int) -> None:
        self.root = root
        self._started: dict[int, str] = {}  # pid -> start time; a later process with this pid has another

    def pids(self) -> list[int]:
        """The pids of the processes that are alive."""
        parents = {int(entry.name): _stat(entry) for entry in PROC.iterdir() if entry.name.isdecimal()}
        living = {pid: stat for pid, stat in parents.items() if stat and stat[0] != "Z"}
        inside = {pid for pid, stat in living.items() if self._started.get(pid) == stat[19]}
        inside |= {self.root} & living.keys()
        while children := {pid for pid, stat in living.items() if int(stat[1]) in inside} - inside:
            inside |= children
        self._started = {pid: living[pid][19] for pid in inside}
        return sorted(inside)

    def cpu(self) -> Cpu:
        """The CPU time that each part has used so far."""
        used: Cpu = Counter()
        for pid in self.pids():
            part = self._part(pid)
            main_name = _name(PROC / str(pid))
            for thread in _entries(PROC / str(pid) / "task"):
                with suppress(OSError):  # it ended meanwhile
                    run_ns = int((thread / RUN_TIME).read_text().split()[0])
                    name = "main" if thread.name == str(pid) else _name(thread)
                    used[Part(part, "other threads" if name == main_name else name)] += run_ns
        return used

    def memory_bytes(self) -> int:
        """The memory of all processes, in bytes.

        It is the sum of their proportional set sizes, in which a shared page counts once. A memfd counts with all its
        memory, also if no process maps it: memory that is used only through a descriptor is in no set.
        """
        total = mapped = 0
        held: dict[tuple[int, int], int] = {}
        for pid in self.pids():
            sizes = _rollup(pid)
            total += sizes.get("Pss", 0)
            mapped += sizes.get("Pss_Shmem", 0)
            held |= _shared_files(pid)
        return total - mapped + max(mapped, sum(held.values()))

    def kill(self) -> None:
        """Kills all processes that are left, and returns when they are gone."""
        deadline = time.monotonic() + DEATH_S
        while (pids := self.pids()) and time.monotonic() < deadline:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(DEATH_POLL_S)

    def _part(self, pid: int) -> str:
        if pid == self.root:
            return CALLER
        with suppress(OSError):
            command = (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            return next((part for sign, part in _PARTS if sign in command), "worker")
        return "worker"


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:  # it ended meanwhile
        return []


def _stat(entry: Path) -> list[str]:
    """The fields of `stat` from the state on; empty if the process is gone."""
    try:
        return (entry / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _name(entry: Path) -> str:
    try:
        return (entry / "comm").read_text().strip()
    except OSError:
        return ""


def _rollup(pid: int) -> dict[str, int]:
    """The sums over all mappings of a process, in bytes."""
    try:
        lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return {}
    return {name: 1024 * int(size.split()[0]) for name, _, size in (line.partition(":") for line in lines)}


def _shared_files(pid: int) -> dict[tuple[int, int], int]:
    """The size of each file in memory that a process has open, by device and inode."""
    held = {}
    for descriptor in _entries(PROC / str(pid) / "fd"):
        with suppress(OSError):
            if str(descriptor.readlink()).startswith(SHARED):
                status = descriptor.stat()
                held[status.st_dev, status.st_ino] = status.st_blocks * 512
    return held
