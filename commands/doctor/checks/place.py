"""Where the pool lives: settings, run directory, sockets, lock, keys, logs."""

from collections.abc import Iterator

from rich.filesize import decimal

from racepool.commands.doctor.facts import Endpoint, Facts, Lock, Volume
from racepool.commands.doctor.finding import Finding, ok, problem, told, warning
from racepool.protocol.endpoints import is_tcp
from racepool.protocol.settings import variable
from racepool.supervision.configuration import excess_bytes

LEAST_BYTES, FEW_BYTES = 16 * 2**20, 256 * 2**20
FEW_FILES = 1_000
IN_MEMORY = {"tmpfs", "ramfs"}
REMOTE = {"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "fuse.sshfs", "afs"}


def settings(facts: Facts) -> Iterator[Finding]:
    """Whether they are valid, and which are not the defaults."""
    environment = facts.environment
    if environment.settings is None:
        yield told("settings", environment.error)
    else:
        given = ", ".join(variable(name) for name in sorted(environment.settings.model_fields_set))
        yield ok("settings", f"valid; from the environment: {given or 'none, all are defaults'}")
    for name in environment.unknown:
        yield warning("settings", f"{name} is set but is no setting", "unset it, or see `racepool config` for its name")


def run_directory(facts: Facts) -> Iterator[Finding]:
    """Whether it is there, ours, and closed to others."""
    directory = facts.directory
    if directory is None:
        return
    if not directory.is_there:
        yield warning("run directory", f"{directory.path} is not there", "`racepool up` makes it")
    elif directory.refusal:
        yield told("run directory", directory.refusal)
    else:
        yield ok("run directory", f"{directory.path}, ours alone")
    if directory.volume and directory.volume.kind in REMOTE:
        yield warning(
            "run directory",
            f"{directory.path} is on {directory.volume.kind}, of which neither sockets nor locks can be relied on",
            "set RACEPOOL_DIR to a directory of this machine",
        )


def supervisor_socket_path(facts: Facts) -> Iterator[Finding]:
    """Whether supervisord's socket has room in the run directory: its name is longer than the broker's."""
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
    """Whether there is room for what the pool writes."""
    directory = facts.directory
    if directory is not None and directory.volume is not None:
        yield _room("disk", str(directory.path), directory.volume)


def _room(check: str, path: str, volume: Volume) -> Finding:
    where = f"{path} is on {volume.kind}, with {decimal(volume.free_bytes)} free"
    remedy = "make room: what was given up, and logs, would be lost"
    if volume.kind in IN_MEMORY:
        where += " (in memory: gone after a restart of the machine)"
    if volume.free_bytes < LEAST_BYTES or volume.free_files == 0:
        return problem(check, where if volume.free_files != 0 else f"{where}, but for no more files", remedy)
    if volume.free_bytes < FEW_BYTES or (volume.free_files or FEW_FILES) < FEW_FILES:
        return warning(check, where, remedy)
    return ok(check, where)


def sockets(facts: Facts) -> Iterator[Finding]:
    """Whether somebody listens at each of the broker's addresses."""
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
    """Short for what is in the run directory."""
    name = endpoint.address.removeprefix("ipc://")
    return name.removeprefix(f"{facts.directory.path}/") if facts.directory else name


def _sockets(state: str, names: str, *, is_held: bool) -> Finding:
    match state:
        case "listening":
            return ok("sockets", f"listening: {names}")
        case "missing" if is_held:
            return problem(
                "sockets",
                f"not there: {names}, though a broker runs",
                "wait five seconds: the broker ends when its sockets were removed, and its successor makes them anew",
            )
        case "missing":
            return warning("sockets", f"not there: {names}", "start a broker: `racepool up`")
        case "stale":
            return warning("sockets", f"stale: {names}; their broker has ended", "the next one replaces them")
        case "full":
            return problem("sockets", f"accepts nobody: {names}", "see what the broker does: it may be frozen")
        case "no socket":
            return problem("sockets", f"is no socket: {names}", "remove it: a broker cannot bind there")
        case "refused":
            return problem("sockets", f"nobody listens at {names}", "start a broker there, or correct the endpoint")
        case _:
            return problem("sockets", f"cannot be reached: {names}", "see to permissions, firewall and address")


def lock(facts: Facts) -> Iterator[Finding]:
    """Whether the one who holds the run directory is the broker that answers, and lives."""
    held = facts.lock
    if held is None:
        return
    answering = facts.stats.broker.pid if facts.stats and _is_local(facts) else None
    if held.holder_pid is None:
        yield _unheld(held, answering)
    elif held.holder is None:
        yield warning(
            "lock", f"{held.path} is held by a process that is not to be seen from here", "look from its host"
        )
    elif held.holder.state in "Tt":
        yield problem(
            "lock",
            f"its holder, pid {held.holder_pid}, is frozen",
            f"kill -CONT {held.holder_pid}; else the watchdog replaces it within 15 s, where there is one",
        )
    elif held.holder.module != "racepool.broker":
        yield problem(
            "lock",
            f"{held.path} is held by pid {held.holder_pid}, which is no broker",
            f"end it: kill {held.holder_pid}",
        )
    elif answering not in (None, held.holder_pid):
        yield problem(
            "lock",
            f"pid {held.holder_pid} holds {held.path}, but pid {answering} answers",
            "RACEPOOL_DIR and RACEPOOL_STATS_ENDPOINT are of different pools: correct them, or stop one of the brokers",
        )
    else:
        yield ok("lock", f"held by the broker, pid {held.holder_pid}")


def _unheld(held: Lock, answering: int | None) -> Finding:
    if answering is None:
        return ok("lock", "free: no broker holds the run directory")
    return problem(
        "lock",
        f"the broker that answers (pid {answering}) does not hold {held.path}: a second one could start beside it",
        "correct RACEPOOL_DIR if the broker has another one; else restart the broker",
    )


def _is_local(facts: Facts) -> bool:
    given = facts.environment.settings
    return given is not None and not is_tcp(given.stats_endpoint)


def keys(facts: Facts) -> Iterator[Finding]:
    """Whether the keys of tcp endpoints are there, private, and let us in."""
    found = facts.keys
    if found is None:
        return
    if found.error:
        yield told("keys", found.error)
        return
    for path in found.unreadable:
        yield warning("keys", f"{path} is no key: it lets nobody in", "`racepool keys revoke` it, and allow it again")
    if found.knows_us is False:
        yield problem(
            "keys",
            f"the broker does not let our own key in ({found.path}/client.key)",
            f"racepool keys allow {found.path}/client.key --as local --role client",
        )
    elif found.is_brokers:
        yield ok("keys", f"{found.path} is in order; {found.allowed} keys may come in")
    else:
        yield ok("keys", f"{found.path} is in order; whether the broker knows our key, its answer tells")


def logs(facts: Facts) -> Iterator[Finding]:
    """Whether the programs can write their logs."""
    for found in facts.logs:
        if not found.is_there:
            yield problem("logs", f"{found.path} is not there: logs are lost", f"mkdir -m 700 {found.path}")
        elif not found.is_writable:
            yield problem("logs", f"{found.path} may not be written by us", "correct its owner and mode")
        elif found.volume is not None:
            yield _room("logs", f"{found.path} ({decimal(found.used_bytes)} of logs)", found.volume)
