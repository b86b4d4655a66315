"""The facts that the checks judge, as plain data. None means that a fact could not be found out.

Instants are seconds since 1970 by this machine's clock.
"""

from dataclasses import dataclass
from pathlib import Path

from racepool.protocol.settings import Settings
from racepool.protocol.stats import PoolStats


@dataclass(frozen=True, slots=True)
class Environment:
    """The settings of this command, or the error in them; and RACEPOOL_ variables that are no setting."""

    settings: Settings | None
    error: str = ""
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Volume:
    """The file system of a path. `kind` is the kernel's name for it; `free_files` is None if it counts no files."""

    kind: str
    free_bytes: int
    free_files: int | None


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """The run directory; `refusal` is the error with which every program would refuse it."""

    path: Path
    is_there: bool
    refusal: str = ""
    volume: Volume | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One of the broker's addresses.

    Attributes:
        state: listening, stale, missing, full, no socket, refused or unreachable.
        listener_pid: the pid of the process that listens, by the kernel; 0 if it is unknown or not visible here.
    """

    setting: str
    address: str
    state: str
    listener_pid: int = 0


@dataclass(frozen=True, slots=True)
class MachineProcess:
    """A process of this machine.

    Attributes:
        pid: the pid by which we know it.
        module: the module that python runs, such as racepool.broker; empty if unknown.
        state: the kernel's letter; T is stopped, Z has ended.
        started_at: computed from the kernel's start time and the clock as it is set now.
        own_pid: the pid that it has for itself, in its own pid namespace; None: the same.
    """

    pid: int
    module: str
    state: str
    started_at: float
    open_files: int | None = None
    file_limit: int | None = None
    own_pid: int | None = None

    @property
    def told_pid(self) -> int:
        """The pid that the programs of its pool know it by."""
        return self.own_pid or self.pid


@dataclass(frozen=True, slots=True)
class Lock:
    """The lock file: the pid that is written in it, and the pid of its holder by the kernel (0: not visible here)."""

    path: Path
    is_there: bool
    written_pid: int | None = None
    holder_pid: int | None = None
    holder: MachineProcess | None = None


@dataclass(frozen=True, slots=True)
class StatsAnswer:
    """The answer of the stats socket, or the error.

    `version` and `protocol_version` are the broker's; they are set even if the rest cannot be read.
    """

    error: str = ""
    took_ms: float = 0.0
    stats: PoolStats | None = None
    version: str | None = None
    protocol_version: int | None = None


@dataclass(frozen=True, slots=True)
class Program:
    """A program of supervisord.

    Attributes:
        state: supervisord's word.
        uptime_s: None if it does not run.
        ended_s_ago: since the end of its previous process; None if it never ended.
        last_words: what the last line of its log says; only looked at if it does not run, or ended a short time ago.
    """

    name: str
    group: str
    state: str
    pid: int
    uptime_s: float | None
    spawn_error: str
    logs: tuple[Path, ...]
    process: MachineProcess | None = None
    ended_s_ago: float | None = None
    last_words: str = ""


@dataclass(frozen=True, slots=True)
class Supervision:
    """The supervisord of the pool; `programs` is None if it does not answer.

    `restarts` tells for each group whether its configuration has autorestart=true; None if the file was not found.
    """

    address: str
    pid: int | None = None
    programs: tuple[Program, ...] | None = None
    restarts: dict[str, bool] | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory of the machine, or of the broker's control group if that has a limit, in bytes."""

    total: int
    available: int
    is_group: bool


@dataclass(frozen=True, slots=True)
class LogDirectory:
    """A directory for logs."""

    path: Path
    is_there: bool
    is_writable: bool
    used_bytes: int
    volume: Volume | None


@dataclass(frozen=True, slots=True)
class Clock:
    """This machine's wall clock: the time now, and by how much it was set during the survey."""

    now: float
    was_set_by_s: float


@dataclass(frozen=True, slots=True)
class DeadTaskCount:
    """How many dead tasks are kept, and how many files of dead tasks cannot be read."""

    count: int
    unread: int


@dataclass(frozen=True, slots=True)
class Keys:
    """The key directory.

    Attributes:
        error: the error that a client would raise for this directory; empty if a client can use it.
        is_brokers: whether the directory has the broker's own key.
        allowed: how many keys the broker accepts.
        unreadable: files in the lists of allowed keys that hold no key.
        knows_us: whether the broker accepts our own key; None if the broker's lists are on another host.
    """

    path: Path
    error: str = ""
    is_brokers: bool = False
    allowed: int = 0
    unreadable: tuple[Path, ...] = ()
    knows_us: bool | None = None


@dataclass(frozen=True, slots=True)
class Extra:
    """An optional part of racepool, the distributions that are missing for it, and the command that installs them."""

    name: str
    missing: tuple[str, ...]
    remedy: str


@dataclass(frozen=True, slots=True)
class Installation:
    """The versions here. `zone_error`: why Pacific/Auckland is not known; empty if it is known."""

    racepool: str
    python: tuple[int, int, int]
    zmq: str
    kernel: str
    zone_error: str
    extras: tuple[Extra, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """All facts. `overdue` names the probes that did not end in time."""

    environment: Environment
    hard_file_limit: int
    installation: Installation | None = None
    clock: Clock | None = None
    directory: RunDirectory | None = None
    endpoints: tuple[Endpoint, ...] = ()
    lock: Lock | None = None
    answer: StatsAnswer | None = None
    broker: MachineProcess | None = None
    workers: tuple[MachineProcess, ...] = ()
    supervision: Supervision | None = None
    memory: Memory | None = None
    logs: tuple[LogDirectory, ...] = ()
    dead: DeadTaskCount | None = None
    keys: Keys | None = None
    overdue: tuple[str, ...] = ()

    @property
    def stats(self) -> PoolStats | None:
        """The broker's stats, if it answered."""
        return self.answer.stats if self.answer else None
