"""All that the checks judge by, as plain data. None stands for what could not be found out.

Instants are seconds since 1970 by this machine's clock.
"""

from dataclasses import dataclass
from pathlib import Path

from racepool.protocol.settings import Settings
from racepool.protocol.stats import PoolStats


@dataclass(frozen=True, slots=True)
class Environment:
    """The settings as this command has them; `settings` or `error`, and variables that are none of ours."""

    settings: Settings | None
    error: str = ""
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Volume:
    """The file system that a path is on; `kind` is the kernel's word, `free_files` None where it does not count."""

    kind: str
    free_bytes: int
    free_files: int | None


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """The run directory; `refusal` is what every program would say of it."""

    path: Path
    is_there: bool
    refusal: str = ""
    volume: Volume | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One of the broker's addresses. `state`: listening, stale, missing, full, no socket, refused or unreachable."""

    setting: str
    address: str
    state: str


@dataclass(frozen=True, slots=True)
class MachineProcess:
    """A process of this machine.

    Attributes:
        module: what python runs in it, such as broker; empty where that cannot be told.
        state: the kernel's letter; T is stopped, Z has ended.
        started_at: by the kernel's account, as the clock is set now.
    """

    pid: int
    module: str
    state: str
    started_at: float
    open_files: int | None = None
    file_limit: int | None = None


@dataclass(frozen=True, slots=True)
class Lock:
    """The lock file: which pid is written there, and who holds it by the kernel's account (0: somebody unseen)."""

    path: Path
    is_there: bool
    written_pid: int | None = None
    holder_pid: int | None = None
    holder: MachineProcess | None = None


@dataclass(frozen=True, slots=True)
class StatsAnswer:
    """What the stats socket said, or what kept it from doing so.

    `version` and `protocol_version` are the broker's, also where the rest cannot be read.
    """

    error: str = ""
    took_ms: float = 0.0
    stats: PoolStats | None = None
    version: str | None = None
    protocol_version: int | None = None


@dataclass(frozen=True, slots=True)
class Program:
    """A process as supervisord sees it; `state` is its word, `uptime_s` None where it does not run."""

    name: str
    group: str
    state: str
    pid: int
    uptime_s: float | None
    spawn_error: str
    logs: tuple[Path, ...]
    process: MachineProcess | None = None


@dataclass(frozen=True, slots=True)
class Supervision:
    """The supervisord above the pool; `programs` is None where it does not answer.

    `restarts` tells by group whether autorestart is set to true, as its file has it; None where that was not found.
    """

    address: str
    pid: int | None = None
    programs: tuple[Program, ...] | None = None
    restarts: dict[str, bool] | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """Of the machine, or of the control group of the broker where that has a limit, in bytes."""

    total: int
    available: int
    is_group: bool


@dataclass(frozen=True, slots=True)
class LogDirectory:
    """Where a program logs to."""

    path: Path
    is_there: bool
    is_writable: bool
    used_bytes: int
    volume: Volume | None


@dataclass(frozen=True, slots=True)
class Clock:
    """This machine's clocks: the instant, and how far the calendar was set while we looked."""

    now: float
    was_set_by_s: float


@dataclass(frozen=True, slots=True)
class DeadTaskCount:
    """How many tasks were given up and are kept, and how many files among them cannot be read."""

    count: int
    unread: int


@dataclass(frozen=True, slots=True)
class Keys:
    """The key directory.

    Attributes:
        error: what a client of this directory would say; empty if it has all that it needs.
        is_brokers: the broker of this very host uses it.
        allowed: how many keys it lets in.
        unreadable: files of keys that let nobody in.
        knows_us: whether our own key is let in; None where another host decides.
    """

    path: Path
    error: str = ""
    is_brokers: bool = False
    allowed: int = 0
    unreadable: tuple[Path, ...] = ()
    knows_us: bool | None = None


@dataclass(frozen=True, slots=True)
class Extra:
    """An optional part of racepool, and which distributions it lacks."""

    name: str
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Installation:
    """What runs here. `zone_error`: why Pacific/Auckland is not known; empty if it is."""

    racepool: str
    python: tuple[int, int, int]
    zmq: str
    kernel: str
    zone_error: str
    extras: tuple[Extra, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything. `overdue` are the probes that did not come back in time."""

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
        """What the broker said."""
        return self.answer.stats if self.answer else None
