"""What Linux tells of processes. Knows no message."""

import ctypes
import fcntl
import gc
import os
import resource
import signal
import struct
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG = 1
PIDFD_GET_INFO = 0xC040FF0B  # _IOWR(0xFF, 11, struct pidfd_info)
PIDFD_INFO_EXIT = 1 << 3
_PIDFD_INFO = struct.Struct("=Q52xi")  # its mask, and its exit_code
_PAGE_BYTES = resource.getpagesize()
_statm: dict[int, int] = {}  # descriptors, by process: that of a parent tells of the parent


def resident_bytes() -> int:
    """The resident memory of this process; asked once, it can tell again when no descriptor is left."""
    pid = os.getpid()
    if pid not in _statm:
        _statm[pid] = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
    return int(os.pread(_statm[pid], 256, 0).split()[1]) * _PAGE_BYTES


def open_files() -> int:
    """How many descriptors this process has open; its limit if there is none left to count them with."""
    directory = Path("/proc/self/fd")
    try:
        return directory.stat().st_size or len(list(directory.iterdir())) - 1  # no size before Linux 6.2; less its own
    except OSError:
        return file_limit()


def trim_memory() -> None:
    """Gives what the C library keeps of freed memory back to the kernel, where it is glibc that keeps it."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def cpu_ticks(pid: int) -> int | None:
    """The CPU time that a process has used, in clock ticks; None if it is gone or stopped."""
    fields = _status(pid)
    if not fields or fields[0] in "TtZX":
        return None
    return int(fields[11]) + int(fields[12])


def own_pid(pid: int) -> int | None:
    """What a process calls itself: in a container, another number than here. None if it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    numbers = next((line.split() for line in status.splitlines() if line.startswith("NSpid:")), [])
    return int(numbers[-1]) if numbers[1:] else pid


def process_state(pid: int) -> str:
    """The kernel's letter for the state of a process (T: stopped); empty if it is gone."""
    return (_status(pid) or [""])[0]


def _status(pid: int) -> list[str]:
    """What /proc/PID/stat says after the process's name; nothing if it is gone."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return status.rpartition(")")[2].split()


def death_signal(pidfd: int, pid: int) -> int | None:
    """The signal that ended a process; None if none did, or if nobody tells.

    Before its parent reaps it, /proc knows; afterwards its pidfd does, since Linux 6.15.
    """
    fields = _status(pid)
    if fields and fields[0] == "Z" and not _is_reaped(pidfd):
        return _signal_in(int(fields[49]))
    info = bytearray(_PIDFD_INFO.pack(PIDFD_INFO_EXIT, 0))
    try:
        fcntl.ioctl(pidfd, PIDFD_GET_INFO, info)
    except OSError:
        return None
    mask, status = _PIDFD_INFO.unpack(info)
    return _signal_in(status) if mask & PIDFD_INFO_EXIT else None


def _signal_in(wait_status: int) -> int | None:
    return os.WTERMSIG(wait_status) if os.WIFSIGNALED(wait_status) else None


def _is_reaped(pidfd: int) -> bool:
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except ProcessLookupError:
        return True
    return False


def die_with_parent(parent: int | None = None) -> None:
    """Have the kernel kill this process when its parent ends: no orphan beside the next supervisord's set.

    Args:
        parent: the parent's pid, if the caller knows it from before.

    Raises:
        SystemExit: the parent has ended already.
    """
    parent = os.getppid() if parent is None else parent
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
