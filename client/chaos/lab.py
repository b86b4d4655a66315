"""The life of a lab: a private pool is started, the truth found, load and faults let loose, and what is left judged."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

from client.chaos.faults import inject
from client.chaos.injection import Injection
from client.chaos.load import Orders
from client.chaos.measurement import measure
from client.chaos.memory import Memory
from client.chaos.plan import STEADY_CLIENTS, Fault, Plan, steady
from client.chaos.processes import end_all, processes_of
from client.chaos.quiet import UnfitTransformError, find_truth
from client.chaos.verdict import Ending, Evidence, Invariant, verdict
from client.chaos.watch import Watch
from client.chaos.witness import Witness
from client.monitoring import fetch_stats
from client.supervision import child_environment, supervisord_command, write_configuration
from client.zmq_pool import ZmqPool
from protocol.errors import PoolError
from protocol.settings import Settings, sockets_in, variable

QUEUE_TIMEOUT_S: Final = 30.0
RUN_TIMEOUT_S: Final = 10.0
HEARTBEAT_S: Final = 0.25
LIVENESS_S: Final = 2.0
MAX_ATTEMPTS: Final = 3
START_S: Final = 30.0
TURN_S: Final = 0.1
SAY_S: Final = 1.0
SETTLE_S: Final = 10.0
STUCK_S: Final = 6.0
SUPERVISORD_END_S: Final = 5.0
DEFAULT_TRANSFORM: Final = "worker.transform:transform_race"


class LabError(Exception):
    """The lab could not begin; the text says why."""


@dataclass(frozen=True)
class Findings:
    """What a lab found out.

    Attributes:
        seconds: how long the load lasted.
        is_whole: whether it came to its end; else it was interrupted.
    """

    plan: Plan
    transform: str
    directory: Path
    begins_at: float
    seconds: float
    is_whole: bool
    evidence: Evidence
    memory: Memory
    invariants: list[Invariant]

    @property
    def holds(self) -> bool:
        """Whether nothing broke."""
        return not any(invariant.broken for invariant in self.invariants)


def lab_settings(workers: int) -> Settings:
    """Of a lab's pool: timeouts that are short, and everything that a fault's length depends on, fixed."""
    directory = Path(tempfile.gettempdir()) / f"racepool-chaos-{uuid4().hex[:8]}"
    return Settings.load(
        dir=directory, **sockets_in(directory), workers=workers, heartbeat_interval=HEARTBEAT_S, liveness=LIVENESS_S,
        max_attempts=MAX_ATTEMPTS, queue_timeout=QUEUE_TIMEOUT_S, run_timeout=RUN_TIMEOUT_S, log_level="info",
        log_format="json",
    )  # fmt: skip


class Lab:
    """One run. `run` leaves no process, and the run directory only if something broke or it is to be kept.

    Args:
        plan: what is to happen.
        transform: the user's, as package.module:function; None = what RACEPOOL_TRANSFORM says, else the money flow.
        say: takes a line about how things stand, every second.
    """

    def __init__(self, plan: Plan, transform: str | None, say: Callable[[str], None]) -> None:
        self.plan = plan
        self.settings = lab_settings(plan.workers)
        self.stop = threading.Event()
        self._say = say
        self._faults = plan.faults()
        self._watch = Watch(self.settings, self._faults)
        environment = child_environment(self.settings)
        self._transform = transform or environment.get(variable("transform")) or DEFAULT_TRANSFORM
        self._environment = environment | {
            variable("transform"): "worker.saboteur:transform",
            variable("chaos_transform"): self._transform,
            variable("chaos_harms"): str(self._watch.harms),
        }
        self._supervisord: subprocess.Popen[bytes] | None = None
        self._clients: dict[str, subprocess.Popen[bytes]] = {}
        self._threads: list[threading.Thread] = []
        self._configuration = Path()

    def run(self, *, keep: bool = False) -> Findings:
        """The whole life. An interruption (Ctrl-C, SIGTERM) ends it early, and what was seen until then is judged.

        Raises:
            LabError: the pool did not start, or no truth can be had of the transform.
        """
        is_kept, ending = keep, None
        try:
            with _terminated_as_interrupted():
                self._start()
                is_kept = True
                try:
                    self._work()
                    ending = self._settle()
                except KeyboardInterrupt:
                    self._say("interrupted")
            findings = self._judge(ending)
            is_kept = keep or not findings.holds
        except UnfitTransformError as error:
            is_kept = keep
            raise LabError(str(error)) from None
        finally:
            self._end()
            if not is_kept:
                shutil.rmtree(self.settings.dir, ignore_errors=True)
        return findings

    # --- the ground that faults are done to ---------------------------------------------------------------------------

    @property
    def records(self) -> Path:
        """Where clients write their records."""
        return self._watch.records

    def start_client(self, orders: Orders) -> "subprocess.Popen[bytes]":
        """A client of its own, at work."""
        child = self.start_program([sys.executable, "-P", "-m", "client.chaos.load", orders.to_text()])
        self._clients[orders.name] = child
        return child

    def start_program(self, command: list[str]) -> "subprocess.Popen[bytes]":
        """Any program, in the lab's environment; its standard input ends with the lab."""
        with (self.settings.dir / "log" / "programs.log").open("ab") as log:
            return subprocess.Popen(  # noqa: S603  # our own interpreter and modules
                command, env=self._environment, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
            )

    def start_supervisord(self) -> None:
        """Another one, when the last has ended."""
        if self._supervisord is not None:
            self._supervisord.wait()
        self._supervisord = subprocess.Popen(  # noqa: S603  # our own interpreter and file
            supervisord_command(self._configuration), env=self._environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    def pid_of_client(self, name: str) -> int | None:
        """None if there is no such client."""
        client = self._clients.get(name)
        return None if client is None or client.poll() is not None else client.pid

    # --- its life -----------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._say("starting a private pool")
        self._configuration = write_configuration(self.settings, owner_pid=os.getpid())
        self.records.mkdir(mode=0o700)
        self.start_supervisord()
        deadline = time.monotonic() + START_S
        while not self._is_full():
            self._watch.look()
            if self._watch.journal.alarms or time.monotonic() >= deadline:
                raise LabError("the pool did not start: " + "; ".join(self._watch.journal.alarms or ["no workers"]))
            time.sleep(TURN_S)

    def _is_full(self) -> bool:
        try:
            return fetch_stats(self.settings.stats_endpoint, 1.0).total_workers == self.settings.workers
        except PoolError:
            return False

    def _work(self) -> None:
        watch = self._watch
        self._say("computing the right answers on the quiet pool")
        with ZmqPool.of(self.settings) as pool:
            truth = find_truth(pool, self.plan, self._transform, watch.journal, watch.look)
        watch.journal.workers_of = None
        watch.witness = Witness(truth, self._faults)
        watch.begins_at = time.monotonic() + SAY_S
        watch.start()
        for client in range(STEADY_CLIENTS):
            self.start_client(Orders(self.plan, steady(client), self.records, client, watch.begins_at))
        waiting = [fault for fault in self._faults if not fault.kind.verb]
        while self._elapsed_s() < self.plan.seconds:
            while waiting and waiting[0].at_s <= self._elapsed_s():
                self._begin(waiting.pop(0))
            self._turn()

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._watch.begins_at

    def _begin(self, fault: Fault) -> None:
        injection = self._watch.injections[fault.number] = Injection(fault, time.monotonic())
        thread = threading.Thread(target=self._inject, args=(injection,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _inject(self, injection: Injection) -> None:
        try:
            inject(self, injection)
        except Exception as error:  # noqa: BLE001  # in a thread; the report tells it
            injection.missed = f"it could not be done: {error!r}"

    def _turn(self) -> None:
        began_at = time.monotonic()
        self._watch.look()
        self._tell()
        time.sleep(max(0.0, began_at + TURN_S - time.monotonic()))

    def _tell(self) -> None:
        witness = self._watch.witness
        assert witness is not None  # noqa: S101  # there is load
        elapsed_s = self._elapsed_s()
        self._say(
            f"{max(0.0, elapsed_s):3.0f} of {self.plan.seconds:.0f} s: {witness.counts['execs']} execs, "
            f"{witness.counts['right']} right, {sum(witness.errors.values())} errors that were asked for, "
            f"{len(witness.failed)} others, {len(witness.open)} open; {len(self._watch.injections)} faults"
        )

    # --- its end ------------------------------------------------------------------------------------------------------

    def _settle(self) -> Ending:
        """Waits until everything is resolved and the pool is whole, for as long as the faults may have set it back."""
        began_at = idle_since = time.monotonic()
        deadline = began_at + QUEUE_TIMEOUT_S + 2 * MAX_ATTEMPTS * (RUN_TIMEOUT_S + LIVENESS_S)
        while time.monotonic() < deadline:
            self._turn()
            now = time.monotonic()
            missing = self._missing()
            is_resolved = not any(client.poll() is None for client in self._clients.values())
            is_calm = not any(thread.is_alive() for thread in self._threads)
            if missing:
                idle_since = now
            if is_calm and not missing and is_resolved:
                break
            overdue_at = max([began_at, *(each.over_at for each in self._watch.injections.values())]) + SETTLE_S
            if is_calm and missing and is_resolved and now > overdue_at:
                break
            if is_calm and now > idle_since + STUCK_S:
                break  # the pool has nothing to do, and yet somebody waits
        waited_s = time.monotonic() - began_at
        missing = self._missing()
        surplus = self._surplus()
        deadline = time.monotonic() + SETTLE_S
        while surplus and time.monotonic() < deadline:
            time.sleep(TURN_S)
            surplus = self._surplus()
        return Ending(waited_s, tuple(missing), tuple(surplus))

    def _missing(self) -> list[str]:
        try:
            stats = fetch_stats(self.settings.stats_endpoint, 1.0)
        except PoolError as error:
            return [str(error)]
        there = {worker.name for worker in stats.workers}
        states = {process.name: str(process) for process in processes_of(self.settings.dir)}
        names = [f"worker-{index}" for index in range(self.settings.workers)]
        missing = [
            f"{states.get(name, f'{name} (no process)')} is not in the pool" for name in names if name not in there
        ]
        if stats.idle_workers < stats.total_workers or stats.in_flight:
            missing.append(
                f"{stats.in_flight} tasks are in flight, {stats.total_workers - stats.idle_workers} workers not idle"
            )
        if stats.queue_depth:
            missing.append(f"{stats.queue_depth} tasks wait")
        return missing

    def _surplus(self) -> list[str]:
        """Processes that should not be there: a second one of a name, or a child that somebody left."""
        found = [process for process in processes_of(self.settings.dir) if process.program not in ("client", "rubbish")]
        counts = Counter(process.name for process in found)
        return [str(process) for process in found if counts[process.name] > 1]

    def _judge(self, ending: Ending | None) -> Findings:
        watch = self._watch
        self.stop.set()
        for thread in self._threads:
            thread.join(SETTLE_S)
        watch.stop()
        watch.look()
        seconds = min(self._elapsed_s(), self.plan.seconds)
        injections = [watch.injections[number] for number in sorted(watch.injections)]
        noticed = measure(injections, watch.journal)
        growth = list(watch.memory.growth(seconds))
        witness = watch.witness or Witness([], self._faults)
        evidence = Evidence(self.settings, witness, watch.journal, injections, noticed, growth, ending)
        return Findings(
            self.plan, self._transform, self.settings.dir, watch.begins_at, seconds, ending is not None, evidence,
            watch.memory, verdict(evidence),
        )  # fmt: skip

    def _end(self) -> None:
        self.stop.set()
        for client in self._clients.values():
            client.kill()
        if self._supervisord is not None:
            self._supervisord.kill()  # its children die with it
            self._supervisord.wait()
        end_all(self.settings.dir)
        for client in self._clients.values():
            client.wait()


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM is taken as Ctrl-C is."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
