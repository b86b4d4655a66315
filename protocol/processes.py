"""What Linux tells about processes, and what a process asks of Linux. Knows no message."""

import ctypes
import fcntl
import gc
import os
import resource
import signal
import struct
import threading
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG = 1
PIDFD_GET_INFO = 0xC040FF0B  # _IOWR(0xFF, 11, struct pidfd_info)
PIDFD_INFO_EXIT = 1 << 3
_PIDFD_INFO = struct.Struct("=Q52xi")  # its mask, and its exit_code
_FLOCK = struct.Struct("hhqqi4x")  # struct flock: first the type of the lock, last the pid of its holder
_PAGE_BYTES = resource.getpagesize()
_statm: dict[int, int] = {}  # pid -> descriptor; after a fork, the parent's descriptor still tells of the parent


def resident_bytes() -> int:
    """The resident memory of this process.

    The first call opens /proc/self/statm, and keeps it open. So later calls work when no free descriptor is left.
    """
    pid = os.getpid()
    if pid not in _statm:
        _statm[pid] = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
    return int(os.pread(_statm[pid], 256, 0).split()[1]) * _PAGE_BYTES


def open_files() -> int:
    """How many descriptors this process has open; its limit if no descriptor is left to count them with."""
    directory = Path("/proc/self/fd")
    try:
        # Before Linux 6.2 the size is 0. Then the list is counted, without the descriptor that reads the list.
        return directory.stat().st_size or len(list(directory.iterdir())) - 1
    except OSError:
        return file_limit()


def trim_memory() -> None:
    """Gives freed memory, which glibc keeps for later, back to the kernel. Other C libraries have no such function."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def cpu_ticks(pid: int) -> int | None:
    """The CPU time that a process has used, in clock ticks; None if the process is gone or stopped."""
    fields = _status(pid)
    if not fields or fields[0] in "TtZX":
        return None
    return int(fields[11]) + int(fields[12])


def own_pid(pid: int) -> int | None:
    """The pid that a process has for itself, in its innermost pid namespace; None if the process is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    numbers = next((line.split() for line in status.splitlines() if line.startswith("NSpid:")), [])
    return int(numbers[-1]) if numbers[1:] else pid


def pid_here(pid: int, neighbour: int | None) -> int | None:
    """Our pid of a process to which another pid namespace gives this one; None if there is none that we can see.

    A program in a container tells the pids of its container. Here those may be the pids of other programs.

    Args:
        pid: the pid there.
        neighbour: our pid of a process in that namespace; None: the namespace is ours.
    """
    there = None if neighbour is None else _pid_namespace(neighbour)
    if there in (None, _pid_namespace("self")):
        return pid
    seen = (int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdecimal())
    return next((each for each in seen if _pid_namespace(each) == there and own_pid(each) == pid), None)


def _pid_namespace(pid: int | str) -> Path | None:
    try:
        return Path(f"/proc/{pid}/ns/pid").readlink()
    except OSError:
        return None


def lock_holder(descriptor: int) -> int | None:
    """Our pid of the process that holds a POSIX record lock on an open file, from the kernel; None if there is none.

    0 if the holder is not visible here, because its pid namespace is not ours or within ours.
    """
    question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, *_, pid = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, question))
    return None if kind == fcntl.F_UNLCK else max(pid, 0)


def process_state(pid: int) -> str:
    """The kernel's letter for the state of a process (T: stopped); empty if it is gone."""
    return (_status(pid) or [""])[0]


def _status(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name of the process; an empty list if the process is gone."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return status.rpartition(")")[2].split()


def death_signal(pidfd: int, pid: int) -> int | None:
    """The signal that ended a process; None if it ended in another way, or if the kernel does not tell.

    Until the parent has reaped the process, /proc tells. After that the pidfd tells, since Linux 6.15.
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
    """Tells the kernel to kill this process when its parent ends.

    So no process of an old supervisord is left beside those of the next one.

    Args:
        parent: the pid that the parent must have; None: that of the current parent.

    Raises:
        SystemExit: the parent has ended already.
    """
    parent = os.getppid() if parent is None else parent
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit(1)


def outlive_parent() -> None:
    """Undoes `die_with_parent`."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, 0)


def end_forks_with_this_process() -> None:
    """From now on the kernel kills each fork of this process, and their forks, when its parent ends.

    A fork of another thread than the main one is left alone: the kernel would kill it when that thread ends. The hook
    runs for `os.fork` and `multiprocessing`, but not for `subprocess`.
    """
    prctl = ctypes.CDLL(None).prctl
    forked: list[tuple[int, bool]] = []

    def note() -> None:
        forked[:] = [(os.getpid(), threading.get_native_id() == os.getpid())]

    def follow() -> None:
        parent, is_main_thread = forked[0]
        if is_main_thread:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)

    os.register_at_fork(before=note, after_in_child=follow)


def die_with_supervisor() -> None:
    """As `die_with_parent`, but only if the parent is a supervisord.

    A process under a supervisor may also have another parent: a service that is supervised and started this process.

    Raises:
        SystemExit: the parent is init: supervisord ended while this interpreter started.
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
    """Makes the garbage collector run seldom, and never look at the objects of start-up: messages make no cycles."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def raise_file_limit() -> None:
    """Raises the limit of open files as far as this user may: a broker needs one for each peer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def file_limit() -> int:
    """How many descriptors this process may have open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
