"""Records, log lines and stats as the programs of a lab write them, for the verdict."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from racepool.commands.chaos.evidence import Ending, Evidence
from racepool.commands.chaos.injection import Hit, Injection
from racepool.commands.chaos.kinds import KINDS
from racepool.commands.chaos.lab_races import RACES
from racepool.commands.chaos.measurement import measure
from racepool.commands.chaos.memory import Growth
from racepool.commands.chaos.plan import Fault
from racepool.commands.chaos.program_logs import ProgramLogs
from racepool.commands.chaos.records import OK, Resolved, Submitted
from racepool.commands.chaos.verdict import Invariant, verdict
from racepool.commands.chaos.witness import Truth, Witness
from racepool.protocol.settings import Settings
from racepool.protocol.stats import PoolStats

ALICE = "steady-0"
BOB = "steady-1"
FAULTS = [Fault(number, 1.0, kind, 0, kind.lasts_s[0]) for number, kind in enumerate(KINDS.values())]
NUMBERS = {fault.kind.name: fault.number for fault in FAULTS}
TRUTH = [Truth(OK, f"digest-{race}") for race in range(RACES)]


def task_id(client: str, n: int) -> str:
    return f"task-{client}-{n}"


def line(event: str, at: float, **fields: object) -> bytes:
    """A line of the broker's log; here the monotonic clock equals the wall clock."""
    timestamp = datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
    return json.dumps({"event": event, "timestamp": timestamp, **fields}).encode()


def pool_stats(**counters: int) -> PoolStats:
    """The stats of a pool at rest, except these counters."""
    spread: dict[str, Any] = {"p50": None, "p90": None, "p99": None, "max": None, "count": 0, "sum": 0.0, "buckets": []}
    broker = {"pid": 1, "epoch": "e", "version": "0", "protocol_version": 0, "uptime_s": 1.0, "rss_bytes": 1}
    plain = dict.fromkeys(
        ("total_workers", "active_workers", "idle_workers", "expected_workers", "queue_depth", "held_by_clients"), 0
    )
    return PoolStats.model_validate(
        plain
        | dict.fromkeys(("queue_wait_ms", "run_ms", "crash_detection_ms"), spread)
        | {"in_flight": 0, "oldest_queued_s": None, "backlog_limit": 1, "workers": [], "clients": 0, "degraded": False}
        | {"counters": counters, "recent_events": [], "failed_starts": [], "broker": broker}
    )


@dataclass
class Case:
    """A run without any fault, except those that a test adds."""

    logs: ProgramLogs = field(default_factory=lambda: ProgramLogs(0.0))
    injections: list[Injection] = field(default_factory=list)
    growth: list[Growth] = field(default_factory=list)
    ending: Ending | None = field(default_factory=Ending)
    witness: Witness = field(default_factory=lambda: Witness(TRUTH, FAULTS))

    def submit(self, n: int, *, client: str = ALICE, at: float = 1.0, fault: str = "") -> None:
        number = NUMBERS[fault] if fault else None
        self.witness.on_submitted(Submitted(client, n, at, task_id(client, n), 0, 0.0, number))

    def resolve(
        self, n: int, outcome: str = OK, *, client: str = ALICE, at: float = 2.0, digest: str | None = None
    ) -> None:
        found = ("digest-0" if outcome == OK else "") if digest is None else digest
        self.witness.on_resolved(Resolved(client, n, at, outcome, found, ""))

    def run(self, n: int, outcome: str = OK, *, client: str = ALICE, fault: str = "") -> None:
        self.submit(n, client=client, fault=fault)
        self.resolve(n, outcome, client=client)

    def log(self, event: str, at: float = 1.5, **fields: object) -> None:
        self.logs.on_broker_line(line(event, at, **fields))

    def assign(self, n: int, *, client: str = ALICE, at: float = 1.5, attempt: int = 1) -> None:
        self.log("task_assigned", at, task_id=task_id(client, n), attempt=attempt, worker="worker-0")

    def requeue(self, n: int, *, client: str = ALICE) -> None:
        self.log("task_requeued", task_id=task_id(client, n), attempt=1, worker="worker-0")

    def lose(self, pid: int, *, at: float = 1.5, reason: str = "process_exit", task: str | None = None) -> None:
        self.log("worker_lost", at, worker="worker-0", pid=pid, reason=reason, task_id=task)

    def inject(self, kind: str, *pids: int, at: float = 1.0, until: float | None = None, client: str = "") -> Injection:
        hits = [Hit(at, pid, "worker-0", until) for pid in pids]
        injection = Injection(FAULTS[NUMBERS[kind]], at, until, hits, client)
        self.injections.append(injection)
        return injection

    def evidence(self) -> Evidence:
        settings = Settings.load(queue_timeout=30, run_timeout=10, max_attempts=3, liveness=2)
        noticed = measure(self.injections, self.logs)
        return Evidence(settings, self.witness, self.logs, self.injections, noticed, self.growth, self.ending)

    def broken(self) -> list[str]:
        """The promises that were broken."""
        return [each.promise for each in self.verdict() if each.broken]

    def verdict(self) -> list[Invariant]:
        return verdict(self.evidence())
