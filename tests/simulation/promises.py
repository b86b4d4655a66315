"""The guarantees of the pool, checked while the simulation runs. A broken one is an AssertionError.

`Witness` checks for the callers that every task ends once, and with the right result. `Books` checks one epoch of the
broker: the order of assignments, the cause of each loss, and that no task is dropped. Both keep their own account, from
the messages alone. `Books.check` compares it with the state of the broker.
"""

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf
from typing import Any

from racepool.broker.actions import Action, KeepDeadTask, Report, SendByValue, SendToClient, SendToWorker
from racepool.broker.core import RETURN_S, BrokerCore
from racepool.broker.prefetch import MAX_WAIT_S, MIN_WAIT_S
from racepool.broker.roster import AWAY_S
from racepool.broker.tasks import Client
from racepool.protocol.errors import BacklogFullError, BrokerUnavailableError, PoolError, TaskTimeoutError
from racepool.protocol.failures import unpack_crashes
from racepool.protocol.messages import Answer, Assign, Cancel, Id, Outcome, Recall, Reject, Result, Returned, Submit
from tests.simulation.network import Clock, Program

ROUNDING_S = 0.002  # timeouts travel in whole milliseconds
NOTICE_S = 0.5  # heartbeats on their way, and their interval
COSTLY = {"process_exit", "silence", "out_of_step", "replaced", "run_timeout", "cancelled"}


class WorkerProcess(Program):
    """A worker process as the kernel and these promises see it."""

    name: str
    pid: int
    session: Id | None
    watchers: list[Program]
    wants_to_end: bool
    wants_recycling: bool
    was_cut_off: bool

    @property
    @abstractmethod
    def uses_cpu(self) -> bool: ...

    @abstractmethod
    def die(self) -> None: ...


class Caller(Program):
    """A client process as these promises see it."""

    sessions: int
    was_welcome: bool
    connect_timeout_s: float


@dataclass(frozen=True)
class Script:
    """What a task does: how long it runs, how it ends, how many processes it kills, whether it blocks other threads."""

    duration_s: float
    ending: str
    deaths: int = 0
    holds_gil: bool = False


@dataclass(eq=False)
class Wanted:
    """A task as its caller sees it."""

    number: int
    id: Id
    caller: Caller
    script: Script
    submitted_at: float
    queue_timeout_s: float
    run_timeout_s: float
    sessions_before: int
    outages_before: int
    end: str | None = None
    deaths: int = 0
    in_hand_s: float = 0.0
    in_hand_since: float | None = None
    let_go_at: float = -inf

    def run_s(self, now: float) -> float:
        """The time in workers' hands, as the brokers saw it."""
        return self.in_hand_s + (now - self.in_hand_since if self.in_hand_since is not None else 0.0)

    def waited_at_least(self, now: float) -> float:
        """A lower bound of its waiting. A client that lost its session may not know of the time in workers' hands."""
        is_known = self.caller.sessions == self.sessions_before
        return now - self.submitted_at - (self.in_hand_s if is_known else 0.0)


class Witness:
    """Every task that was ever submitted, and every worker process by its sessions."""

    def __init__(self, clock: Clock, *, max_attempts: int, liveness_s: float) -> None:
        self.wanted: list[Wanted] = []
        self.process_of: dict[Id, WorkerProcess] = {}
        self.max_attempts = max_attempts
        self.liveness_s = liveness_s
        self.outages = 0
        self._by_id: dict[Id, Wanted] = {}
        self._clock = clock

    def add(self, wanted: Wanted) -> None:
        self.wanted.append(wanted)
        self._by_id[wanted.id] = wanted

    def of(self, task_id: Id) -> Wanted:
        return self._by_id[task_id]

    def may_kill(self, number: int) -> bool:
        """Whether this execution kills its process. Counts the call."""
        wanted = self.wanted[number]
        wanted.deaths += 1
        return wanted.deaths <= wanted.script.deaths

    def on_end(self, wanted: Wanted, how: str) -> None:
        assert wanted.end is None, f"task {wanted.number} ended twice: {wanted.end}, then {how}"
        wanted.end = how
        if how != "cancelled" and wanted.caller.is_well_since(wanted.submitted_at):
            waited_s = self._clock.now - wanted.submitted_at - wanted.run_s(self._clock.now)
            unnoticed_s = (self.liveness_s + NOTICE_S) * (1 + self.outages - wanted.outages_before)
            assert waited_s <= wanted.queue_timeout_s + unnoticed_s, "it waited for too long"

    def on_answer(self, task_id: Id, answer: Answer) -> None:
        wanted = self.of(task_id)
        self.on_end(wanted, answer.outcome.value)
        ending = wanted.script.ending
        match answer.outcome:
            case Outcome.OK:
                assert answer.payload == b"result of %d" % wanted.number, "the result of another task"
                assert ending in ("ok", "kill")
            case Outcome.RAISED:
                assert ending == "raise", "an exception that was never raised"
            case Outcome.CRASHED:
                assert len(unpack_crashes(answer.payload)) == self.max_attempts
            case Outcome.RUN_TIMEOUT | Outcome.QUEUE_TIMEOUT:
                pass  # the books checked it when the broker sent it
            case _:
                raise AssertionError(f"no worker here ends like that: {answer.outcome}")

    def on_failure(self, task_id: Id, error: PoolError) -> None:
        wanted, now = self.of(task_id), self._clock.now
        self.on_end(wanted, type(error).__name__)
        match error:
            case TaskTimeoutError():
                assert wanted.waited_at_least(now) >= wanted.queue_timeout_s - ROUNDING_S, "it had waiting left"
            case BrokerUnavailableError():
                assert not wanted.caller.was_welcome, "a broker was there once"
                assert now - wanted.submitted_at >= wanted.caller.connect_timeout_s - ROUNDING_S
            case BacklogFullError():
                pass  # the books checked it when the broker sent it
            case _:
                raise AssertionError(f"nothing here fails like that: {error!r}")


@dataclass(eq=False)
class Entry:
    """An open task of this epoch. `holder` is None while it waits.

    It `is_prefetched` while its holder has another task to do first; it `is_alone` after a worker was lost with it.
    """

    wanted: Wanted
    client_id: Id
    arrival: int
    assignments: int = 0
    deaths: int = 0
    holder: Id | None = None
    held_since: float = 0.0
    is_withdrawn: bool = False
    is_kill_wanted: bool = False
    is_prefetched: bool = False
    was_returned: bool = False
    is_alone: bool = False
    lost_by: str = ""


@dataclass(eq=False)
class RecalledTask:
    """A prefetched task that was recalled, until its worker tells whether it had begun it.

    If it had, the task runs since `held_since`: then the task before it ended.
    """

    wanted: Wanted
    lease: int
    held_since: float = inf
    kill_wanted_at: float = inf


@dataclass
class Books:
    """One epoch of the broker: every open task, from the messages alone."""

    core: BrokerCore
    witness: Witness
    clock: Clock
    caller_of: dict[Id, Caller]
    resumed_at: float = 0.0
    unsent: int = 0
    open: dict[Id, Entry] = field(default_factory=dict)
    session_at: dict[bytes, Id] = field(default_factory=dict)
    never_reached: set[Id] = field(default_factory=set)
    _arrivals: int = 0
    _lease: int = 0
    _lease_of: dict[Id, int] = field(default_factory=dict)
    _seen: set[Id] = field(default_factory=set)
    _refused: set[Id] = field(default_factory=set)
    _abandoned: set[Id] = field(default_factory=set)
    _kept: set[Id] = field(default_factory=set)
    _recalled: dict[Id, RecalledTask] = field(default_factory=dict)
    _cut_off: set[Id] = field(default_factory=set)
    _latest: dict[Id, int] = field(default_factory=dict)
    _clients: set[Id] = field(default_factory=set)
    _sessions: dict[Id, int] = field(default_factory=dict)
    _recycled: WorkerProcess | None = None
    _recycled_at: float = 0.0

    # --- clients ------------------------------------------------------------------------------------------------------

    def client_at(self, peer: bytes) -> Client | None:
        return self.core.clients.by_peer.get(peer)

    def on_client(self, client: Client | None, message: Any, actions: Iterable[Action]) -> None:  # noqa: ANN401
        """A client's message was handled. `client` is the one whose session it came in; None without a session."""
        if client is None:
            return
        match message:
            case Submit(task_id):
                refused = any(isinstance(a, SendToClient) and isinstance(a.message, Reject) for a in actions)
                self._on_submit(client, message, is_refused=refused)
            case Cancel(task_id, kill):
                entry = self.open.get(task_id)
                if entry is not None:
                    self._on_cancel(entry, actions, kill=kill)

    def _on_cancel(self, entry: Entry, actions: Iterable[Action], *, kill: bool) -> None:
        recalls = any(isinstance(a, SendToWorker) and isinstance(a.message, Recall) for a in actions)
        assert recalls == entry.is_prefetched, "a prefetched task that is cancelled is recalled, and no other"
        if entry.holder is None:
            del self.open[entry.wanted.id]
        else:
            entry.is_withdrawn, entry.is_kill_wanted = True, kill
        for recalled in self._recalled.values():
            if kill and recalled.wanted is entry.wanted:
                recalled.kill_wanted_at = self.clock.now

    def on_forgotten_clients(self) -> None:
        """Clients that the broker has forgotten lose their tasks. Each must have been silent or gone."""
        now = self.clock.now
        for client_id in self._clients - self.core.clients.by_id.keys():
            caller = self.caller_of[client_id]
            since = now - self.core.settings.liveness - NOTICE_S
            is_well = caller.is_well_since(since) and self.resumed_at < since
            assert not is_well, "a client that spoke was forgotten"
            for task_id, entry in list(self.open.items()):
                if entry.client_id == client_id and entry.holder is None:
                    del self.open[task_id]
                elif entry.client_id == client_id:
                    entry.is_withdrawn = True
                    self._abandoned.add(task_id)
        self._clients = set(self.core.clients.by_id)

    def note_sessions(self) -> None:
        """Remembers all sessions, to judge them when they are over."""
        self._sessions = {worker.session_id: worker.pid for worker in self.core.roster.workers.values()}

    def _on_submit(self, client: Client, submit: Submit, *, is_refused: bool) -> None:
        task_id = submit.task_id
        entry = self.open.get(task_id)
        if entry is not None:
            entry.is_withdrawn = False
            return
        if is_refused:
            waiting = sum(entry.holder is None for entry in self.open.values())
            limit = self.core.settings.backlog_limit * (2 if submit.again else 1)
            assert waiting >= limit, "refused though there was room"
            self._refused.add(task_id)
            return
        self._arrivals += 1
        wanted = self.witness.of(task_id)
        self.open[task_id] = Entry(wanted, client.id, self._arrivals)
        if task_id not in self._seen and task_id not in self._refused:  # a refused task has lost its place
            self._seen.add(task_id)
            assert wanted.number > self._latest.get(client.id, -1), "a client's tasks came out of order"
            self._latest[client.id] = wanted.number

    # --- workers ------------------------------------------------------------------------------------------------------

    def on_worker(self, peer: bytes, message: Any) -> None:  # noqa: ANN401
        """A worker's message is about to be handled."""
        session = self.session_at.get(peer)
        if session is None or session not in self.core.roster.workers:
            return
        match message:
            case Result(epoch, lease) | Returned(epoch, lease):
                recalled = self._recalled.get(session)
                if recalled is not None and (epoch, lease) == (self.core.epoch, recalled.lease):
                    del self._recalled[session]
        if isinstance(message, Result) and message.outcome is Outcome.UNREADABLE:
            entry = self.open.get(message.task_id)
            if entry and entry.holder == session and entry.is_withdrawn and self._lease_of[entry.wanted.id] == lease:
                self._give_back(entry)

    def on_unsent(self, peer: bytes, message: Any) -> None:  # noqa: ANN401
        """A message to a worker could not be sent. Notes if it followed the task in hand, which had arrived."""
        session = self.session_at.get(peer)
        if session is None or session not in self.core.roster.workers:
            return
        first = self._first_of(session)
        is_prefetched = (
            isinstance(message, Assign) and first is not None and self._lease_of[first.wanted.id] != message.lease
        )
        if isinstance(message, Recall) or is_prefetched:
            self._cut_off.add(session)

    def _first_of(self, session: Id) -> Entry | None:
        held = (entry for entry in self.open.values() if entry.holder == session and not entry.is_prefetched)
        return next(held, None)

    def _prefetched_by(self, session: Id) -> Entry | None:
        held = (entry for entry in self.open.values() if entry.holder == session and entry.is_prefetched)
        return next(held, None)

    # --- what the broker does -----------------------------------------------------------------------------------------

    def on_action(self, action: Action) -> None:
        match action:
            case SendToWorker(peer, Assign() as task) | SendByValue(peer, task):
                self._on_assigned(peer, task)
            case SendToWorker(peer, Recall(lease)):
                self._on_recalled(peer, lease)
            case SendToClient(_, Answer() as answer):
                self._on_answered(answer)
            case Report("task_completed" | "task_failed", fields):
                self._on_ended_unanswered(Id(bytes.fromhex(str(fields["task_id"]))))
            case Report("worker_lost" | "worker_stopped", fields):
                self._on_lost(fields)
            case Report("task_abandoned"):
                self.on_forgotten_clients()
            case KeepDeadTask(task_id, deaths=deaths):
                assert len(deaths) == self.open[task_id].deaths == self.witness.max_attempts, "it had attempts left"
                assert all(death.assigned_at <= death.lost_at <= self.clock.now for death in deaths)
                self._kept.add(task_id)
            case Report("task_requeued", fields):
                self._on_requeued(Id(bytes.fromhex(str(fields["task_id"]))))
            case Report("task_returned", fields):
                self._on_returned(Id(bytes.fromhex(str(fields["task_id"]))))

    def _on_assigned(self, peer: bytes, task: Assign) -> None:
        entry = self.open[task.task_id]
        assert entry.holder is None, "it is in a worker's hands already"
        oldest = min(other.arrival for other in self.open.values() if other.holder is None)
        assert entry.arrival == oldest, "not the oldest that waits"
        holder = self.session_at[peer]
        assert holder not in self._recalled, "it may run a recalled task"
        first = self._first_of(holder)
        if first is not None:
            assert self._prefetched_by(holder) is None, "this worker has its hands full"
            assert not self.core.roster.idle_count, "an idle worker could have begun it"
            assert not first.is_alone, "the first task must go alone"
            assert (entry.is_alone, entry.was_returned, entry.assignments) == (False, False, 0), (
                "it must not be prefetched"
            )
            entry.is_prefetched = True
        entry.assignments += 1
        assert (task.epoch, task.attempt) == (self.core.epoch, entry.assignments)
        assert task.lease > self._lease, "two assignments under one lease"
        self._lease = self._lease_of[task.task_id] = task.lease
        entry.holder = holder
        entry.held_since = entry.wanted.in_hand_since = self.clock.now

    def _on_recalled(self, peer: bytes, lease: int) -> None:
        holder = self.session_at[peer]
        prefetched = self._prefetched_by(holder)
        assert prefetched is not None, "it has prefetched nothing"
        assert lease == self._lease_of[prefetched.wanted.id], "it has prefetched another task"
        assert prefetched.is_withdrawn or self.clock.now >= prefetched.held_since + MIN_WAIT_S, "recalled at once"
        self._recalled[holder] = RecalledTask(prefetched.wanted, lease)
        if prefetched.is_kill_wanted:
            self._recalled[holder].kill_wanted_at = self.clock.now
        self._give_back(prefetched)

    def _on_returned(self, task_id: Id) -> None:
        """A recalled task is noted already; this is one that came back in another way."""
        entry = self.open[task_id]
        if entry.holder is not None:
            assert not entry.is_prefetched or entry.holder not in self.core.roster.workers, "it has it in hand"
            self._give_back(entry)

    def _give_back(self, entry: Entry) -> None:
        entry.assignments -= 1
        entry.was_returned = True
        self._let_go(entry)
        if entry.is_withdrawn:
            del self.open[entry.wanted.id]

    def _on_answered(self, answer: Answer) -> None:
        entry = self.open.pop(answer.task_id)
        assert not entry.is_withdrawn, "nobody waits for this answer"
        self._check_cost(entry, answer)
        match answer.outcome:
            case Outcome.QUEUE_TIMEOUT:
                assert entry.holder is None, "it runs"
                wanted = entry.wanted
                assert wanted.waited_at_least(self.clock.now) >= wanted.queue_timeout_s - ROUNDING_S, "it could wait"
            case Outcome.CRASHED:
                assert entry.deaths == self.witness.max_attempts, "given up too early, or too late"
                assert answer.task_id in self._kept, "given up without a trace"
            case Outcome.RUN_TIMEOUT:
                assert entry.lost_by == "run_timeout"
            case _:
                assert entry.holder is not None, "a result of a task that waits"
        self._let_go(entry)

    def _check_cost(self, entry: Entry, answer: Answer) -> None:
        """The answer names the last worker that had the task, and no more time than there was."""
        lifetime_us = (self.clock.now - entry.wanted.submitted_at + ROUNDING_S) * 1_000_000
        assert answer.queued_us + answer.run_us <= lifetime_us, "it waited and ran for longer than it was there"
        assert answer.attempts == entry.assignments, "it had another number of attempts"
        assert (answer.worker is None) == (answer.attempts == 0), "only a task that ran has a worker"
        if answer.worker is None:
            assert answer.run_us == 0, "it never ran"
        elif entry.holder is not None:
            assert answer.worker == self.witness.process_of[entry.holder].name, "another worker had it"

    def _on_lost(self, fields: Any) -> None:  # noqa: ANN401
        reason, pid = fields["reason"], fields["pid"]
        gone = [one for one, its in self._sessions.items() if its == pid and one not in self.core.roster.workers]
        task_id = fields.get("task_id")
        entry = self.open[Id(bytes.fromhex(task_id))] if task_id else None
        process = self.witness.process_of[entry.holder] if entry and entry.holder else None
        if process is None:
            process = next(one for one in self.witness.process_of.values() if one.pid == pid)
        recalled = next((self._recalled.pop(one) for one in gone if one in self._recalled), None)
        self._judge(reason, process, entry, recalled, is_current=process.session in gone)
        if entry is None or entry.holder is None:
            return
        assert not entry.is_prefetched, "it was not begun"
        is_costly = reason in COSTLY or (reason == "unreachable" and entry.holder in self._cut_off)
        is_costly = is_costly and entry.holder not in self.never_reached
        entry.lost_by = reason
        entry.deaths += is_costly
        entry.is_alone |= is_costly
        prefetched = self._prefetched_by(entry.holder)
        if prefetched is not None:
            prefetched.is_alone |= is_costly
            if prefetched.is_withdrawn:
                self._give_back(prefetched)
        self._on_ended_unanswered(entry.wanted.id)

    def _judge(
        self,
        reason: str,
        process: WorkerProcess,
        entry: Entry | None,
        recalled: RecalledTask | None,
        *,
        is_current: bool,
    ) -> None:
        """Checks that the broker had cause to end a session for this reason."""
        now = self.clock.now
        since = now - self.core.settings.liveness - NOTICE_S
        match reason:
            case "process_exit":
                assert process.is_dead, "it lives"
            case "silence":
                assert not (is_current and process.is_well_since(since)), "it was not silent"
            case "run_timeout":
                held = entry or recalled
                assert held is not None, "it had nothing in hand"
                wanted = held.wanted
                assert now - held.held_since >= wanted.run_timeout_s - ROUNDING_S, "it had time left"
                is_slow = (
                    wanted.script.ending in ("hang", "kill")
                    or process.was_cut_off
                    or (wanted.script.duration_s > wanted.run_timeout_s - NOTICE_S)
                )
                assert is_slow or not (is_current and process.is_well_since(held.held_since)), "its result was there"
            case "cancelled":
                self._judge_kill(entry, recalled)
            case "replaced":
                assert process.is_dead or process.session is None or not is_current, "it was there first"
            case "goodbye":
                assert process.wants_to_end
            case "renewed":
                assert not is_current
            case "out_of_step":
                assert process.was_cut_off, "no message was lost"
            case "recycled":
                assert process.wants_recycling, "it did not ask"
                is_away = self._recycled is not None and self._recycled.name not in {process.name, *self._names()}
                assert not is_away or now >= self._recycled_at + AWAY_S, "two are away at once"
                self._recycled, self._recycled_at = process, now
            case _:
                assert reason == "unreachable"

    def _judge_kill(self, entry: Entry | None, recalled: RecalledTask | None) -> None:
        if entry is not None:
            assert entry.is_kill_wanted, "nobody asked for its end"
        else:
            assert recalled is not None, "it had nothing in hand"
            told_by = max(recalled.held_since, recalled.kill_wanted_at) + RETURN_S
            assert self.clock.now >= told_by - ROUNDING_S, "nobody asked for its end, or it could still tell"

    def _names(self) -> set[str]:
        return {worker.name for worker in self.core.roster.workers.values()}

    def _on_ended_unanswered(self, task_id: Id) -> None:
        """A withdrawn task has no answer: it ends with its result or its worker."""
        entry = self.open.get(task_id)
        if entry is not None and entry.is_withdrawn:
            self._let_go(entry)
            del self.open[task_id]

    def _on_requeued(self, task_id: Id) -> None:
        entry = self.open.get(task_id)
        if entry is None:  # its client was forgotten in the same turn
            assert task_id in self._abandoned, "nobody has it"
            return
        assert entry.holder not in self.core.roster.workers, "two workers have it"
        assert entry.deaths < self.witness.max_attempts
        is_unsent = entry.lost_by == "unreachable" and entry.holder not in self._cut_off
        entry.assignments -= is_unsent or entry.holder in self.never_reached
        self._let_go(entry)

    def _let_go(self, entry: Entry) -> None:
        """The task leaves its holder's hands. The holder goes on with its prefetched task."""
        holder, was_prefetched = entry.holder, entry.is_prefetched
        if holder is None:
            return
        entry.wanted.in_hand_s = entry.wanted.run_s(self.clock.now)
        entry.wanted.in_hand_since = entry.holder = None
        entry.wanted.let_go_at = self.clock.now
        entry.is_prefetched = False
        if was_prefetched or holder not in self.core.roster.workers:
            return
        if holder in self._recalled:
            self._recalled[holder].held_since = self.clock.now
        prefetched = self._prefetched_by(holder)
        if prefetched is not None:
            prefetched.is_prefetched, prefetched.held_since = False, self.clock.now

    # --- after each turn ----------------------------------------------------------------------------------------------

    def check(self, *, has_read_results: bool) -> None:
        """Compares this account with the state of the broker."""
        core = self.core
        assert core.audit() == []
        theirs = core.ledger._tasks
        assert theirs.keys() >= self.open.keys(), "a task was dropped in silence"
        assert theirs.keys() == self.open.keys(), "a task that nobody submitted"
        assert all(task.is_queued == (self.open[task_id].holder is None) for task_id, task in theirs.items())
        assert all(
            (len(task.deaths), task.assignments) == (self.open[task_id].deaths, self.open[task_id].assignments)
            for task_id, task in theirs.items()
        ), "an attempt too many or too few"
        assert core.counters["dropped"] == self.unsent
        now = self.clock.now
        if has_read_results and now >= core._has_read_by and not core._is_draining:
            since = now - MAX_WAIT_S - ROUNDING_S
            assert not any(each.is_prefetched and each.held_since < since for each in self.open.values()), (
                "it waits behind a slow task"
            )
        may_rest = now < core._settles_at or core.next_check() <= now or core._is_draining
        assert may_rest or not (core.roster.idle_count and core.ledger.backlog.depth), "idle while a task waits"

    def close(self) -> None:
        """The epoch is over: no task is in a worker's hands any more, as far as a broker knows."""
        for entry in self.open.values():
            self._let_go(entry)
