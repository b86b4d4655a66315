"""The life of a lab: it starts a private pool, computes the right results, runs load and faults, and judges the run."""

import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

from racepool.commands.chaos.aftermath import OUTLIVES_S
from racepool.commands.chaos.evidence import Ending, Evidence
from racepool.commands.chaos.faults import WAYS, inject
from racepool.commands.chaos.injection import Injection
from racepool.commands.chaos.lab_processes import Census
from racepool.commands.chaos.load import Orders
from racepool.commands.chaos.measurement import measure
from racepool.commands.chaos.memory import MemorySamples
from racepool.commands.chaos.observer import Observer
from racepool.commands.chaos.plan import STEADY_CLIENTS, Fault, Plan, steady
from racepool.commands.chaos.program_logs import DIED
from racepool.commands.chaos.quiet import UnfitTransformError, find_truth
from racepool.commands.chaos.stage import Stage
from racepool.commands.chaos.verdict import Invariant, verdict
from racepool.commands.chaos.witness import Witness
from racepool.protocol.endpoints import sockets_in
from racepool.protocol.settings import Settings

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
LONGEST_S: Final = QUEUE_TIMEOUT_S + 2 * MAX_ATTEMPTS * (RUN_TIMEOUT_S + LIVENESS_S)


class LabError(Exception):
    """The lab could not start; the text says why."""


@dataclass(frozen=True)
class Findings:
    """What a lab found out.

    Attributes:
        seconds: how long the load lasted.
        is_whole: whether it ran to its end; false if it was interrupted.
    """

    plan: Plan
    transform: str
    directory: Path
    begins_at: float
    seconds: float
    is_whole: bool
    evidence: Evidence
    memory: MemorySamples
    invariants: list[Invariant]

    @property
    def holds(self) -> bool:
        """Whether nothing broke."""
        return not any(invariant.broken for invariant in self.invariants)

    @property
    def tried(self) -> set[str]:
        """The kinds of which a fault was done. A run without any has shown nothing."""
        return {injection.name for injection in self.evidence.done}

    @property
    def not_tried(self) -> list[str]:
        """The kinds that were asked for and of which no fault was done."""
        return [kind.name for kind in self.plan.kinds if kind.name not in self.tried]


def lab_settings(workers: int) -> Settings:
    """The settings of a lab's pool. Timeouts are short and fixed, because the lengths of the faults depend on them."""
    directory = Path(tempfile.gettempdir()) / f"racepool-chaos-{uuid4().hex[:8]}"
    return Settings.load(
        dir=directory, **sockets_in(directory), workers=workers, heartbeat_interval=HEARTBEAT_S, liveness=LIVENESS_S,
        max_attempts=MAX_ATTEMPTS, queue_timeout=QUEUE_TIMEOUT_S, run_timeout=RUN_TIMEOUT_S, log_level="info",
        log_format="json",
    )  # fmt: skip


class Lab:
    """One run. `run` leaves no process. It keeps the run directory only if something broke, or if the caller asks.

    Args:
        plan: what is to happen.
        transform: the user's, as package.module:function; None = the value of RACEPOOL_TRANSFORM, else the money flow.
        say: called with a line about the progress, several times a second.

    Raises:
        LabError: the plan has no fault.
    """

    def __init__(self, plan: Plan, transform: str | None, say: Callable[[str], None]) -> None:
        self._plan = plan
        self._say = say
        self._faults = plan.faults()
        if not self._faults:
            raise LabError(f"no fault of these kinds fits into {plan.seconds:g} s; give more --seconds")
        self._settings = lab_settings(plan.workers)
        self._settings.private_dir()
        census = Census(self._settings.dir)
        self._observer = Observer(self._settings, self._faults, census)
        self._stage = Stage(plan, self._settings, self._observer.harms, transform, census)
        self._threads: list[threading.Thread] = []

    def run(self, *, keep: bool = False) -> Findings:
        """Runs the lab. Ctrl-C or SIGTERM ends it early; then the run so far is judged.

        Raises:
            LabError: the pool did not start, or the transform gives no reliable result.
        """
        is_kept, ending = keep, None
        try:
            with _terminated_as_interrupted():
                self._start()
                is_kept = True
                try:
                    self._work()
                    ending = self._settle()
                    self._end_pool()
                except KeyboardInterrupt:
                    self._say("interrupted")
            findings = self._judge(ending)
            is_kept = keep or not findings.holds
        except UnfitTransformError as error:
            is_kept = keep
            raise LabError(str(error)) from None
        finally:
            self._stage.end()
            self._observer.close()
            if not is_kept:
                shutil.rmtree(self._settings.dir, ignore_errors=True)
        return findings

    # --- the run -----------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._say("starting a private pool")
        self._stage.start_supervisord()
        deadline = time.monotonic() + START_S
        logs = self._observer.logs
        while not self._stage.is_full():
            self._observer.look()
            alarms = logs.alarms + [f"{each.worker} died by itself" for each in logs.of(DIED)]
            if alarms or time.monotonic() >= deadline:
                raise LabError("the pool did not start: " + "; ".join(alarms or ["its workers were not ready in time"]))
            time.sleep(TURN_S)

    def _work(self) -> None:
        observer = self._observer
        self._say("computing the right answers on the quiet pool")
        truth = find_truth(self._settings, self._plan, self._stage.transform, observer.logs, observer.look)
        observer.logs.workers_of = None
        observer.witness = Witness(truth, self._faults)
        observer.begins_at = time.monotonic() + SAY_S
        observer.start()
        for client in range(STEADY_CLIENTS):
            self._stage.start_client(
                Orders(self._plan, steady(client), self._stage.records, client, observer.begins_at)
            )
        waiting = [fault for fault in self._faults if fault.kind.name in WAYS]
        while self._elapsed_s() < self._plan.seconds:
            while waiting and waiting[0].at_s <= self._elapsed_s():
                self._begin(waiting.pop(0))
            self._turn()

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._observer.begins_at

    def _begin(self, fault: Fault) -> None:
        injection = self._observer.injection(fault.number, time.monotonic())
        thread = threading.Thread(target=self._inject, args=(injection,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _inject(self, injection: Injection) -> None:
        try:
            inject(self._stage, injection)
        except Exception as error:  # noqa: BLE001  # in a thread; the report shows it
            injection.missed = f"it could not be done: {error!r}"

    def _turn(self) -> None:
        began_at = time.monotonic()
        self._observer.look()
        self._tell()
        time.sleep(max(0.0, began_at + TURN_S - time.monotonic()))

    def _tell(self) -> None:
        witness = self._observer.witness
        assert witness is not None  # noqa: S101  # there is load
        elapsed_s = self._elapsed_s()
        self._say(
            f"{max(0.0, elapsed_s):3.0f} of {self._plan.seconds:.0f} s: {witness.counts['execs']} execs, "
            f"{witness.counts['right']} right, {sum(witness.errors.values())} errors that were asked for, "
            f"{len(witness.failed)} others, {len(witness.open)} open; {len(self._observer.injections)} faults"
        )

    # --- the end ------------------------------------------------------------------------------------------------------

    def _settle(self) -> Ending:
        """Waits until every exec is resolved and the pool is whole, at most as long as the faults explain."""
        began_at = busy_at = time.monotonic()
        while (now := time.monotonic()) < began_at + LONGEST_S:
            self._turn()
            state = self._stage.state()
            busy_at = busy_at if state.is_idle else now
            if any(thread.is_alive() for thread in self._threads):
                continue
            if self._stage.are_clients_done():
                overdue_at = max([began_at, *(each.over_at for each in self._observer.injections.values())]) + SETTLE_S
                if not state.missing or now > overdue_at:
                    break
            elif now > busy_at + STUCK_S:
                break  # the pool is idle, but a client still waits: its task is lost
        waited_s = time.monotonic() - began_at
        missing = self._stage.state().missing
        deadline = time.monotonic() + SETTLE_S
        awaited = {each.process[0] for each in self._observer.left()}  # a promise of their own judges these
        while (surplus := self._stage.surplus(awaited)) and time.monotonic() < deadline:
            time.sleep(TURN_S)
        return Ending(waited_s, tuple(missing), tuple(surplus))

    def _end_pool(self) -> None:
        """Where a race left a process: ends the pool as an operator does, and waits for the end of what was left."""
        left = [each for each in self._observer.left() if not each.is_gone]
        if not left:
            return
        self._say("ending the pool, to see what outlives it")
        ended_at = self._stage.end_pool()
        for each in left:
            each.due_at = ended_at if each.due_at is None else each.due_at
        while any(not each.is_gone and not each.is_overdue(OUTLIVES_S) for each in left):
            self._turn()

    def _judge(self, ending: Ending | None) -> Findings:
        observer = self._observer
        self._stage.stop.set()
        for thread in self._threads:
            thread.join(SETTLE_S)
        observer.stop()
        observer.look()
        seconds = min(self._elapsed_s(), self._plan.seconds)
        injections = [observer.injections[number] for number in sorted(observer.injections)]
        for injection in injections:
            pids = {hit.pid for hit in injection.hits}
            if injection.fault.kind.verb and not pids:
                injection.missed = "no worker began its race"
            elif injection.fault.kind.before and not pids & injection.prepared:
                injection.missed = "its worker had run no race that leaves SIGALRM changed"
        noticed = measure(injections, observer.logs)
        growth = list(observer.memory.growth(seconds))
        witness = observer.witness or Witness([], self._faults)
        evidence = Evidence(self._settings, witness, observer.logs, injections, noticed, growth, ending)
        return Findings(
            plan=self._plan,
            transform=self._stage.transform,
            directory=self._settings.dir,
            begins_at=observer.begins_at,
            seconds=seconds,
            is_whole=ending is not None,
            evidence=evidence,
            memory=observer.memory,
            invariants=verdict(evidence),
        )


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM acts as Ctrl-C does."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
