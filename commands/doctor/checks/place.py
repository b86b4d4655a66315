"""Where the pool lives: settings, run directory, sockets, lock, keys, logs."""

from collections.abc import Iterator

from rich.filesize import decimal

from racepool.commands.doctor.facts import Endpoint, Facts, Lock, Volume
from racepool.commands.doctor.finding import Finding, ok, problem, told, warning
from racepool.protocol.endpoints import is_tcp, socket_path
from racepool.protocol.settings import variable
from racepool.supervision.configuration import excess_bytes

LEAST_BYTES, FEW_BYTES = 16 * 2**20, 256 * 2**20
FEW_FILES = 1_000
IN_MEMORY = {"tmpfs", "ramfs"}
REMOTE = {"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "fuse.sshfs", "afs"}


def settings(facts: Facts) -> Iterator[Finding]:
    """Whether the settings are valid, and which ones the environment sets."""
    environment = facts.environment
    if environment.settings is None:
        yield told("settings", environment.error)
    else:
        given = ", ".join(variable(name) for name in sorted(environment.settings.model_fields_set))
        yield ok("settings", f"valid; from the environment: {given or 'none, all are defaults'}")
    for name in environment.unknown:
        yield warning(
            "settings", f"{name} is set, but is no setting", "unset it, or find the right name with `racepool config`"
        )


def run_directory(facts: Facts) -> Iterator[Finding]:
    """Whether the run directory exists, is ours, and is closed to other users."""
    directory = facts.directory
    if directory is None:
        return
    if directory.refusal:
        yield told("run directory", directory.refusal)
    elif not directory.is_there:
        yield warning("run directory", f"{directory.path} is not there", "`racepool up` creates it")
    else:
        yield ok("run directory", f"{directory.path}, ours alone")
    if directory.volume and directory.volume.kind in REMOTE:
        yield warning(
            "run directory",
            f"{directory.path} is on {directory.volume.kind}, where sockets and locks are not reliable",
            "set RACEPOOL_DIR to a directory of this machine",
        )


def supervisor_socket_path(facts: Facts) -> Iterator[Finding]:
    """Whether the path of supervisord's socket is short enough: its name is longer than those of the broker's."""
    if facts.directory is None:
        return
    excess = excess_bytes(facts.directory.path)
    if excess > 0:
        yield problem(
            "run directory",
            f"its path is {excess} bytes too long for supervisord's socket",
            "set RACEPOOL_DIR to a shorter path",
        )


def space(facts: Facts) -> Iterator[Finding]:
    """Whether the disk has room for the files of the pool."""
    directory = facts.directory
    if directory is not None and directory.volume is not None:
        yield _room("disk", str(directory.path), directory.volume)


def _room(check: str, path: str, volume: Volume) -> Finding:
    where = f"{path} is on {volume.kind}, with {decimal(volume.free_bytes)} free"
    remedy = "free some space: dead tasks and logs would be lost"
    if volume.kind in IN_MEMORY:
        where += " (in memory: gone after a restart of the machine)"
    if volume.free_bytes < LEAST_BYTES or volume.free_files == 0:
        return problem(check, where if volume.free_files != 0 else f"{where}, but no more files can be created", remedy)
    if volume.free_bytes < FEW_BYTES or (volume.free_files or FEW_FILES) < FEW_FILES:
        return warning(check, where, remedy)
    return ok(check, where)


def sockets(facts: Facts) -> Iterator[Finding]:
    """Whether a process listens at each of the broker's addresses."""
    states: dict[str, list[Endpoint]] = {}
    for endpoint in facts.endpoints:
        states.setdefault(endpoint.state, []).append(endpoint)
    is_held = facts.lock is not None and facts.lock.holder_pid is not None
    for state, endpoints in states.items():
        names = ", ".join(_name(endpoint, facts) for endpoint in endpoints)
        yield _sockets(state, names, is_held=is_held)
    given = facts.environment.settings
    if given and given.keys is None and any(is_tcp(endpoint.address) for endpoint in facts.endpoints):
        yield warning(
            "sockets",
            "tcp without keys: every user of this machine can use the pool",
            "use the sockets of the run directory, or keys (`racepool keygen`)",
        )


def _name(endpoint: Endpoint, facts: Facts) -> str:
    """The address; only the file's name for a socket in the run directory."""
    name = str(socket_path(endpoint.address) or endpoint.address)
    return name.removeprefix(f"{facts.directory.path}/") if facts.directory else name


def _sockets(state: str, names: str, *, is_held: bool) -> Finding:
    match state:
        case "listening":
            return ok("sockets", f"listening: {names}")
        case "missing" if is_held:
            return problem(
                "sockets",
                f"not there: {names}, though a broker runs",
                "wait five seconds: a broker without its sockets ends, and the next one creates them",
            )
        case "missing":
            return warning("sockets", f"not there: {names}", "start a broker: `racepool up`")
        case "stale":
            return warning(
                "sockets", f"stale: {names}; the broker that made them has ended", "the next one replaces them"
            )
        case "full":
            return problem(
                "sockets", f"accepts no connection: {names}", "find out what the broker does: it may be frozen"
            )
        case "no socket":
            return problem("sockets", f"is no socket: {names}", "remove the file: a broker cannot bind there")
        case "refused":
            return problem("sockets", f"no process listens at {names}", "start a broker there, or correct the endpoint")
        case _:
            return problem("sockets", f"cannot be reached: {names}", "check permissions, firewall and address")


def lock(facts: Facts) -> Iterator[Finding]:
    """Whether the holder of the run directory's lock is a broker, runs, and is the one that answers."""
    held = facts.lock
    if held is None:
        return
    answering = _answering(facts)
    if held.holder_pid is None:
        yield _unheld(held, answering)
    elif held.holder is None:
        yield warning(
            "lock", f"{held.path} is held by a process that is not visible here", "run this command on its host"
        )
    elif held.holder.state in "Tt":
        yield problem(
            "lock",
            f"its holder, pid {held.holder_pid}, is frozen",
            f"kill -CONT {held.holder_pid}; a watchdog, if there is one, replaces it within 15 s",
        )
    elif held.holder.module != "racepool.broker":
        yield problem(
            "lock",
            f"{held.path} is held by pid {held.holder_pid}, which is no broker",
            f"end that process: kill {held.holder_pid}",
        )
    elif answering not in (None, 0, held.holder_pid):
        yield problem(
            "lock",
            f"pid {held.holder_pid} holds {held.path}, but pid {answering} answers",
            "RACEPOOL_DIR and RACEPOOL_STATS_ENDPOINT belong to different pools: correct them, or stop one broker",
        )
    else:
        yield ok("lock", f"held by the broker, pid {held.holder_pid}")


def _unheld(held: Lock, answering: int | None) -> Finding:
    if answering is None:
        return ok("lock", "free: no broker holds the run directory")
    who = f"pid {answering}" if answering else "not visible here"
    return problem(
        "lock",
        f"the broker that answers ({who}) does not hold {held.path}: a second one could start beside it",
        "correct RACEPOOL_DIR if the broker has another one; if not, restart the broker",
    )


def _answering(facts: Facts) -> int | None:
    """The pid of the broker that answers, by the kernel: it may tell another one, that of its own pid namespace.

    0 if it is not visible here; None if none answers, or if it answers over tcp.
    """
    given = facts.environment.settings
    if facts.stats is None or given is None or is_tcp(given.stats_endpoint):
        return None
    return next((each.listener_pid for each in facts.endpoints if each.address == given.stats_endpoint), 0)


def keys(facts: Facts) -> Iterator[Finding]:
    """Whether the keys for tcp endpoints exist and are private, and whether the broker accepts ours."""
    found = facts.keys
    if found is None:
        return
    if found.error:
        yield told("keys", found.error)
        return
    for path in found.unreadable:
        yield warning(
            "keys", f"{path} holds no key: nobody can connect with it", "`racepool keys revoke` it, and allow it again"
        )
    if found.knows_us is False:
        yield problem(
            "keys",
            f"the broker does not accept our own key ({found.path}/client.key)",
            f"racepool keys allow {found.path}/client.key --as local --role client",
        )
    elif found.is_brokers:
        yield ok("keys", f"{found.path} is in order; {found.allowed} keys are allowed")
    else:
        yield ok("keys", f"{found.path} is in order; the broker's answer shows whether it accepts our key")


def logs(facts: Facts) -> Iterator[Finding]:
    """Whether the programs can write their logs."""
    for found in facts.logs:
        if not found.is_there:
            yield problem("logs", f"{found.path} is not there: logs are lost", f"mkdir -m 700 {found.path}")
        elif not found.is_writable:
            yield problem("logs", f"we may not write to {found.path}", "correct its owner and mode")
        elif found.volume is not None:
            yield _room("logs", f"{found.path} ({decimal(found.used_bytes)} of logs)", found.volume)
