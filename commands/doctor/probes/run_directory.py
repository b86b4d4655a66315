"""The run directory and its content: sockets, the lock, dead tasks."""

import errno
import os
import socket
import stat
import struct
from contextlib import suppress
from pathlib import Path

from racepool.commands.dead.tasks import DeadTasks
from racepool.commands.doctor import facts
from racepool.commands.doctor.probes.processes import process
from racepool.protocol.endpoints import ANY_HOST, socket_path
from racepool.protocol.errors import PoolError, SettingsError
from racepool.protocol.processes import lock_holder
from racepool.protocol.settings import Settings, refuse_foreign_directory

CONNECT_S = 1.0
_UCRED = struct.Struct("3i")  # pid, uid, gid
_STATES = {
    errno.ECONNREFUSED: "stale",
    errno.ENOENT: "missing",
    errno.EAGAIN: "full",
    errno.ENOTSOCK: "no socket",
    errno.EPROTOTYPE: "no socket",
}


def run_directory(settings: Settings) -> facts.RunDirectory:
    """Reads the state of the run directory. The programs would create it; this does not."""
    path = settings.dir
    try:
        path.lstat()
        is_there = True
    except OSError as error:
        is_there = not isinstance(error, FileNotFoundError)
    try:
        refuse_foreign_directory("dir", path, must_exist=is_there)
    except SettingsError as error:
        refusal = str(error)
    else:
        refusal = ""
    return facts.RunDirectory(path, is_there, refusal, volume(path if is_there else _nearest(path)))


def volume(path: Path) -> facts.Volume | None:
    """The file system of a path."""
    with suppress(OSError):
        usage = os.statvfs(path)
        return facts.Volume(
            _file_system(path), usage.f_bavail * usage.f_frsize, usage.f_favail if usage.f_files else None
        )
    return None


def endpoint(setting: str, address: str) -> facts.Endpoint:
    """Whether a process listens there: tries a connection and sends nothing."""
    path = socket_path(address)
    if path is None:
        return facts.Endpoint(setting, address, _tcp_state(address))
    return facts.Endpoint(setting, address, *_unix_state(path))


def lock(settings: Settings) -> facts.Lock:
    """Asks the kernel which process holds the broker's lock. Taking it would stop a broker that just starts."""
    path = settings.dir / "broker.lock"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return facts.Lock(path, is_there=False)
    try:
        pid = lock_holder(descriptor)
        written = os.read(descriptor, 32).decode(errors="replace").strip()
    except OSError:
        return facts.Lock(path, is_there=True)
    finally:
        os.close(descriptor)
    written_pid = int(written) if written.isdecimal() else None
    holder = process(pid) if pid else None
    return facts.Lock(path, is_there=True, written_pid=written_pid, holder_pid=pid, holder=holder)


def dead_tasks(settings: Settings) -> facts.DeadTaskCount | None:
    """Counts the dead tasks."""
    try:
        found = DeadTasks(settings.dir)
    except PoolError:
        return None  # the check of the run directory says why
    return facts.DeadTaskCount(len(found.tasks), len(found.unread))


def log_directories(settings: Settings, above: facts.Supervision | None) -> tuple[facts.LogDirectory, ...]:
    """The log directories of supervisord's programs; without supervisord, that of `racepool up` if it exists."""
    programs = above.programs if above and above.programs else ()
    named = {log.parent for program in programs for log in program.logs}
    default = settings.dir / "log"
    return tuple(map(_log_directory, sorted(named) or ([default] if default.exists() else [])))


def _log_directory(path: Path) -> facts.LogDirectory:
    used = 0
    with suppress(OSError):
        used = sum(entry.stat().st_size for entry in path.iterdir() if ".log" in entry.name)
    return facts.LogDirectory(path, path.is_dir(), os.access(path, os.W_OK | os.X_OK), used, volume(path))


def _nearest(path: Path) -> Path:
    return next((parent for parent in path.parents if parent.exists()), Path("/"))


def _file_system(path: Path) -> str:
    """The kernel's name for the kind of file system: that of the innermost mount above the path."""
    where = path.resolve()
    best, kind = -1, "unknown"
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines():
        _, mounted, this_kind, *_ = line.split(" ")
        point = Path(mounted.replace("\\040", " "))
        if where.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), this_kind
    return kind


def _unix_state(path: Path) -> tuple[str, int]:
    """The state, and the pid of the process that listens; 0 if none does, or if it is not visible here."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            return "no socket", 0
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
            peer.settimeout(CONNECT_S)
            peer.connect(str(path))
            pid, *_ = _UCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    except TimeoutError:
        return "full", 0
    except OSError as error:
        return _STATES.get(error.errno or 0, "unreachable"), 0
    return "listening", pid


def _tcp_state(address: str) -> str:
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    host = "127.0.0.1" if host == ANY_HOST else host.strip("[]")
    try:
        with socket.create_connection((host, int(port)), CONNECT_S):
            return "listening"
    except ConnectionRefusedError:
        return "refused"
    except OSError:
        return "unreachable"
