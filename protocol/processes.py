"""What Linux tells of processes. Knows no message."""

import ctypes
import gc
import os
import resource
import signal
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG = 1
_PAGE_BYTES = resource.getpagesize()


def resident_bytes() -> int:
    """The resident memory of this process."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES


def open_files() -> int:
    """How many descriptors this process has open."""
    directory = Path("/proc/self/fd")
    return directory.stat().st_size or len(list(directory.iterdir())) - 1  # no size before Linux 6.2; less its own


def trim_memory() -> None:
    """Gives what the C library keeps of freed memory back to the kernel, where it is glibc that keeps it."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def cpu_ticks(pid: int) -> int | None:
    """The CPU time that a process has used, in clock ticks; None if it is gone or stopped."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = status.rpartition(")")[2].split()
    if fields[0] in "TtZX":
        return None
    return int(fields[11]) + int(fields[12])


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends: no orphan beside the next supervisord's set.

    Raises:
        SystemExit: the parent has ended already.
    """
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit(1)


def die_with_supervisor() -> None:
    """As `die_with_parent` if that is a supervisord; another one started us within a supervised service.

    Raises:
        SystemExit: supervisord ended while this interpreter started, and left us to init.
    """
    if _is_supervisord(os.getppid()):
        die_with_parent()
    elif os.getppid() == 1:
        raise SystemExit(1)


def _is_supervisord(pid: int) -> bool:
    try:
        return b"supervisord" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def calm_collector() -> None:
    """Has the garbage collector look at young objects seldom, at those of start-up never: messages make no cycles."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def raise_file_limit() -> None:
    """As many open files as this user may have: each peer of a broker is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def file_limit() -> int:
    """How many descriptors this process may have open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
