"""The broker's decisions: messages and time in, actions out. Knows no socket, clock, process or log.

A client's task goes to the backlog, from there to an idle worker under a new lease, and its result back to the client.
A lost worker's task goes back to its place in the backlog, or is given up after `max_attempts` deaths. Where tasks are
short and many wait, a busy worker gets its next task in advance (prefetch); the broker recalls it if the first one is
slow. A session is named by its peer (a routing id); a peer without a session is told Who, and opens one.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from math import inf
from types import MappingProxyType
from typing import assert_never

from racepool.broker.actions import (
    Action,
    ProbeProcess,
    Report,
    SendStats,
    SendToClient,
    SendToHeartbeat,
    SendToWorker,
    UnwatchProcess,
)
from racepool.broker.assignments import Assignments
from racepool.broker.clients import Clients
from racepool.broker.failed_starts import FailedStarts
from racepool.broker.ledger import Ledger
from racepool.broker.roster import Roster
from racepool.broker.session_end import SessionEnd
from racepool.broker.sessions import WorkerSessions, ms
from racepool.broker.tasks import Client, Peer, Task, Withdrawn
from racepool.broker.workers import Worker
from racepool.protocol import messages
from racepool.protocol.failures import pack_raised
from racepool.protocol.messages import Epoch, FromClient, FromWorker, Heartbeat, Id, Outcome, Ready, ToWorker, Welcome
from racepool.protocol.settings import Settings

SETTLE_S = 0.05
RETURN_S = 0.25
NO_SIGNALS: Mapping[Id, int] = MappingProxyType({})


class BrokerCore:
    """All that the broker knows and decides.

    Invariants (`audit` names those that do not hold): a task is in exactly one place, the backlog or one worker's
    hands; every task is answered exactly once, or counted as cancelled or abandoned.
    """

    def __init__(self, settings: Settings, epoch: Epoch) -> None:
        self.settings = settings
        self.epoch = epoch
        self.ledger = Ledger(settings)
        self.roster = Roster()
        self.assignments = Assignments(settings, epoch, self.ledger, self.roster)
        welcome = Welcome(epoch, settings.payload_limit, round(settings.liveness * 1000))
        self.clients = Clients(self.ledger, settings.liveness, welcome, self._check_by)
        self.sessions = WorkerSessions(self.assignments, settings.liveness, welcome, self._check_by)
        self.frozen = self.sessions.frozen
        self.failed_starts = FailedStarts()
        self._is_draining = False
        self._next_check = inf  # `on_tick` has nothing to do before this instant
        self._settles_at = -inf  # nothing is assigned before: more workers may be dying
        self._has_read_by = -inf  # after a pause of its own, the broker believes no death before this instant

    @property
    def counters(self) -> Counter[str]:
        """Totals of this epoch, by the names of PoolStats."""
        return self.ledger.counters

    # --- clients ------------------------------------------------------------------------------------------------------

    def on_client(self, peer: Peer, message: FromClient, now: float, *, can_share: bool = False) -> list[Action]:
        """A client's message. `can_share` belongs to a HELLO: whether its shared memory can be read from here.

        A peer without a session is asked to open one.
        """
        if isinstance(message, messages.Hello):
            return self.clients.greet(peer, message, now, can_share=can_share)
        client = self.clients.by_peer.get(peer)
        if client is None:
            return [] if isinstance(message, messages.Bye) else [SendToClient(peer, messages.Who())]
        client.last_seen = now
        match message:
            case messages.Submit():
                return self._submit(client, message, now)
            case messages.Ping(held):
                client.held = held
                trouble = "" if self.roster.workers else self.failed_starts.latest(now)
                more = [SendToClient(peer, messages.Trouble(messages.text(trouble)))] if trouble else []
                return [SendToClient(peer, messages.Pong(self.epoch)), *more]
            case messages.Expire():
                words = self.ledger.expire(client, message, now)
                return [] if words is None else [SendToClient(peer, words)]
            case messages.Cancel(task_id, kill):
                return self._cancel(self.ledger.task_of(client, task_id), kill=kill, now=now)
            case messages.AskStats():
                return [SendStats(peer)]
            case messages.Bye():
                return self.clients.forget(client, now)
            case _:
                assert_never(message)

    def on_client_unreachable(self, peer: Peer) -> list[Action]:
        """A message could not be sent: this client is gone, or does not read.

        It keeps its tasks and their places. When it speaks again it is asked for a new session, and submits what it
        still misses.
        """
        self.clients.on_unreachable(peer)
        return []

    def _submit(self, client: Client, submit: messages.Submit, now: float) -> list[Action]:
        if submit.is_shared and not client.can_share:
            self.counters["bad_frames"] += 1
            why = messages.text("its payload is in shared memory, which the broker cannot read")
            return [SendToClient(client.peer, messages.Refused(submit.task_id, why))]
        refusal = self.ledger.submit(client, submit, now)
        return [SendToClient(client.peer, refusal)] if refusal else self._assign(now)

    def _cancel(self, task: Task | None, *, kill: bool, now: float) -> list[Action]:
        if task is None:
            return []
        actions: list[Action] = []
        if task.is_queued:
            self.ledger.end_queued(task, "cancelled", now)
        else:
            task.withdrawn = Withdrawn.CANCELLED
            holder = self.roster.holder(task)
            if holder.task is not task:
                actions = self.assignments.recall(holder, now)
            elif kill:
                actions = [*self.sessions.end(holder, SessionEnd.CANCELLED, now), *self._assign(now)]
        for worker in self.roster.recalled_from(task.id) if kill else ():  # it may have begun the task
            self.roster.hasten(worker, RETURN_S, SessionEnd.CANCELLED, now)
            self._check_by(worker.deadline)
        return actions

    # --- workers ------------------------------------------------------------------------------------------------------

    def on_worker(self, peer: Peer, message: FromWorker, now: float, local_pid: int | None = None) -> list[Action]:
        """A worker's message. `local_pid` is its process as the kernel knows it; None if the kernel does not."""
        if isinstance(message, Ready):
            self.failed_starts.on_ready(message.name)
            return self.sessions.open(peer, message, now, local_pid) + self._assign(now)
        if isinstance(message, messages.CannotStart):
            return self.failed_starts.note(message, now)
        worker = self.roster.at(peer)
        if worker is None:
            if isinstance(message, messages.Bye):
                return []
            self.counters["stale_results"] += 1
            return [SendToWorker(peer, messages.Who())]
        worker.last_seen = now
        match message:
            case messages.Result():
                return self._finish(worker, message, now)
            case messages.Returned():
                return self._settle(worker, message, now)
            case messages.Bye():
                return self._lose(worker, SessionEnd.GOODBYE, now)
            case _:
                assert_never(message)

    def on_worker_nonsense(self, peer: Peer, now: float) -> list[Action]:
        """A worker sent what is no message, perhaps the result of its task. It has to open another session."""
        worker, who = self.roster.at(peer), SendToWorker(peer, messages.Who())
        return [] if worker is None else [*self._lose(worker, SessionEnd.OUT_OF_STEP, now), who]

    def on_heartbeat(self, peer: Peer, beat: Heartbeat, now: float, local_pid: int | None = None) -> list[Action]:
        """A worker's heartbeat. A worker that is busy with an older epoch's task introduces itself by it."""
        worker = self.roster.workers.get(beat.incarnation)
        actions: list[Action] = []
        if worker is None:
            worker, actions = self.sessions.meet(peer, beat, now, local_pid)
            if worker is None:
                return actions
        is_out_of_step = worker.is_out_of_step(now, self.settings.liveness, says_busy=beat.busy)
        worker.last_seen = now
        worker.is_suspect = False
        worker.is_draining, worker.rss_bytes = beat.draining, beat.rss_bytes
        if is_out_of_step:
            lost = self.sessions.end(worker, SessionEnd.OUT_OF_STEP, now)
            return [*lost, SendToHeartbeat(peer, messages.Who()), *self._assign(now)]
        return [SendToHeartbeat(peer, messages.Pong(self.epoch)), *actions]

    def on_worker_unreachable(self, peer: Peer, unsent: ToWorker, now: float) -> list[Action]:
        """A message could not be sent. The task that it carried never reached the worker, so it costs no attempt.

        If it carried or recalled a prefetched task, the running task pays an attempt: it may have ended the worker.
        """
        worker = self.roster.at(peer)
        if worker is None:
            return []
        followed_the_task = isinstance(unsent, messages.Recall) or (
            isinstance(unsent, messages.Assign) and unsent.lease != worker.lease
        )
        return self._lose(worker, SessionEnd.CUT_OFF if followed_the_task else SessionEnd.UNREACHABLE, now)

    def on_unreadable(self, peer: Peer, lease: int, why: str, now: float) -> list[Action]:
        """The payload for this lease cannot be read: its client is gone, or does not wait for it any more."""
        worker = self.roster.at(peer)
        if worker is None:
            return []
        if worker.prefetched is not None and worker.prefetched.lease == lease:
            task = self.roster.take_prefetched(worker, now).task
        elif worker.task is not None and worker.lease == lease:
            task = worker.task
            self._release(worker, now)
        else:
            return []
        task.assignments -= 1
        raised = pack_raised(
            "UnreadableError", f"its payload in shared memory cannot be read: {why}; submit it again", ""
        )
        return [*self.assignments.answer(task, Outcome.RAISED, raised, "failed"), *self._assign(now)]

    def on_worker_revoked(self, peer: Peer, now: float) -> list[Action]:
        """The worker's key is not allowed any more. Its task costs no attempt: it did not end the worker."""
        worker = self.roster.at(peer)
        return [] if worker is None else self._lose(worker, SessionEnd.REVOKED, now)

    def on_process_gone(self, session_id: Id, now: float) -> list[Action]:
        """The process behind this session had ended before it could be watched: its task has reached nobody."""
        worker = self.roster.workers.get(session_id)
        if worker is None:  # it is lost already, because its welcome could not be sent
            self.frozen.ended([session_id])
            return []
        return self._lose(worker, SessionEnd.GONE, now)

    def on_process_exit(
        self, session_ids: Iterable[Id], now: float, signals: Mapping[Id, int] = NO_SIGNALS
    ) -> list[Action]:
        """The kernel says that the processes behind these sessions ended, some of them by signals that it can name.

        Call it in each turn after all results were read, even if no process ended: it also recalls the prefetched tasks
        that have waited for too long.

        What killed a busy worker may be killing more. So nothing is assigned for `SETTLE_S`: else a task could go from
        one dying worker to the next, and pay an attempt each time before any worker had begun it.

        After a pause of the broker itself, exits are ignored for `SETTLE_S`, since last results may be unread. The
        caller must name them again afterwards.
        """
        if now < self._has_read_by:
            return self._assign(now)
        session_ids = dict.fromkeys(session_ids)
        lost = [self.roster.workers[session_id] for session_id in session_ids if session_id in self.roster.workers]
        if any(worker.task is not None or worker.recalled is not None for worker in lost):
            self._settles_at = now + SETTLE_S
            self._check_by(self._settles_at)
        actions: list[Action] = [UnwatchProcess(session_id) for session_id in self.frozen.ended(session_ids)]
        for worker in lost:
            end = SessionEnd.RUN_TIMEOUT if worker.has_overrun(now) else SessionEnd.PROCESS_EXIT
            actions += self.sessions.end(worker, end, now, signals.get(worker.session_id))
        if not self._is_draining:
            actions += self.assignments.recall_overdue(now)
        return actions + self._assign(now)

    def on_probe(self, session_id: Id, now: float, *, has_progress: bool) -> list[Action]:
        """Whether a silent process used CPU since the last probe: one long C call silences a healthy worker."""
        worker = self.roster.workers.get(session_id)
        if worker is None or now < worker.last_seen + self.settings.liveness:
            return []
        if not has_progress:
            self._check_by(now)  # the next tick assigns its task, after all silent workers were probed
            return self.sessions.end(worker, SessionEnd.SILENCE, now)
        worker.last_seen = now - self.settings.liveness / 2
        return [Report("worker_silent", {"worker": worker.name, "pid": worker.pid, "reason": "it uses CPU"})]

    def _lose(self, worker: Worker, end: SessionEnd, now: float) -> list[Action]:
        return self.sessions.end(worker, end, now) + self._assign(now)

    # --- results ------------------------------------------------------------------------------------------------------

    def _finish(self, worker: Worker, result: messages.Result, now: float) -> list[Action]:
        task = worker.task
        if task is None or (result.epoch, result.lease, result.task_id) != (self.epoch, worker.lease, task.id):
            return self._settle(worker, result, now)
        if result.outcome is Outcome.UNREADABLE and task.is_shared and not task.goes_by_value:
            task.goes_by_value = True
            self._release(worker, now)
            return [*self.assignments.requeue_unbegun(worker, task, now), *self._assign(now)]
        if result.outcome not in messages.WORKER_OUTCOMES:
            self.counters["bad_frames"] += 1
            return []
        is_ok = result.outcome is Outcome.OK
        worker.tasks_completed += is_ok
        worker.tasks_failed += not is_ok
        run_s = worker.end_attempt(now)
        self.assignments.prefetch.observe(run_s)
        fields = worker.attempt_at(task) | {"duration_ms": ms(run_s), "outcome": result.outcome.value}
        self._release(worker, now)
        worker.wants_recycling = result.recycle
        counter = "completed" if is_ok else "failed"
        answer = self.assignments.answer(task, result.outcome, result.payload, counter)
        report = Report("task_completed" if is_ok else "task_failed", fields)
        recycled = self.sessions.recycle(now) if result.recycle else ()
        return [*answer, report, *recycled, *self._assign(now)]

    def _release(self, worker: Worker, now: float) -> None:
        self.roster.release(worker, now)
        self._check_by(worker.deadline)

    def _settle(self, worker: Worker, told: messages.Returned | messages.Result, now: float) -> list[Action]:
        """The worker reports a lease that is not its task's. Only the lease of a recalled task is expected then."""
        is_of_recalled = worker.recalled is not None and (told.epoch, told.lease) == (self.epoch, worker.recalled.lease)
        self.counters["stale_results"] += isinstance(told, messages.Result) or not is_of_recalled
        if not is_of_recalled:
            return []
        self.roster.settle(worker)
        return [*(self.sessions.recycle(now) if worker.wants_recycling else ()), *self._assign(now)]

    def _assign(self, now: float) -> list[Action]:
        if now < self._settles_at or self._is_draining:
            return []
        actions = self.assignments.assign(now)
        self._check_by(self.assignments.earliest_deadline)
        return actions

    # --- time ---------------------------------------------------------------------------------------------------------

    def next_check(self) -> float:
        """The earliest instant at which `on_tick`, or `on_process_exit` for prefetched tasks, may have work."""
        due = inf if self._is_draining else max(self.assignments.prefetch.next_due(), self._has_read_by)
        return min(self._next_check, due)

    def on_tick(self, now: float) -> list[Action]:
        """Ends what was silent or ran for too long. Call it only after all sockets were read."""
        if now < self._next_check:
            return []
        actions: list[Action] = []
        for worker in list(self.roster.workers.values()):
            actions += self._judge(worker, now)
        actions += self.clients.forget_silent(now)
        actions += self.sessions.kill_frozen(now)
        self._next_check = min(self._checks(), default=inf)
        actions += [*self.sessions.recycle(now), *self._assign(now)]
        if now < self._settles_at:
            self._check_by(self._settles_at)
        return actions

    def on_pause(self, now: float) -> list[Action]:
        """The broker itself stood still: messages may wait unread, so silence and run times count from now on."""
        self._has_read_by = now + SETTLE_S
        for worker in self.roster.workers.values():
            worker.last_seen = now
            worker.deadline = max(worker.deadline, now + self.settings.liveness / 2)
            worker.is_suspect, worker.idle_since = False, None
        self.clients.on_pause(now)
        self.frozen.on_pause(now)
        return [Report("broker_paused", {"workers": len(self.roster.workers), "clients": len(self.clients.by_id)})]

    def on_drain(self) -> list[Action]:
        """From now on nothing is assigned or recalled. What is in flight may end."""
        self._is_draining = True
        fields = {"in_flight": self.ledger.in_flight, "queue_depth": self.ledger.backlog.depth}
        return [Report("broker_draining", fields)]

    def farewell(self) -> list[Action]:
        """Before the broker's own end: tells the clients, who keep their tasks for the next epoch."""
        return self.clients.farewell()

    def _judge(self, worker: Worker, now: float) -> list[Action]:
        if worker.deadline <= now:
            recalled = worker.recalled if worker.task is None else None
            return self.sessions.end(worker, recalled.end if recalled else SessionEnd.RUN_TIMEOUT, now)
        if worker.last_seen + self.settings.liveness <= now:
            if worker.is_local:
                return [ProbeProcess(worker.session_id)]
            return self.sessions.end(worker, SessionEnd.SILENCE, now)
        if worker.is_local and not worker.is_suspect and worker.last_seen + self.settings.liveness / 2 <= now:
            worker.is_suspect = True
            return [ProbeProcess(worker.session_id)]
        return []

    def _check_by(self, instant: float) -> None:
        self._next_check = min(self._next_check, instant)

    def _checks(self) -> Iterator[float]:
        liveness = self.settings.liveness
        for worker in self.roster.workers.values():
            yield worker.deadline
            yield worker.last_seen + (liveness if worker.is_suspect or not worker.is_local else liveness / 2)
        yield from self.clients.checks()
        yield self.frozen.next_check()

    def audit(self) -> list[str]:
        """The invariants that do not hold; empty unless there is a bug. For tests: it looks at every task."""
        workers = self.roster.workers.values()
        held = [worker.task for worker in workers if worker.task is not None]
        ahead = [worker.prefetched.task for worker in workers if worker.prefetched is not None]
        broken = [*self.roster.audit(), *self.ledger.audit(held + ahead), *self.assignments.prefetch.audit(workers)]
        if any(task.assignments != 1 or task.goes_alone or task.was_returned for task in ahead):
            broken.append("a prefetched task was assigned before, or is to go alone")
        if min(self._checks(), default=inf) < self._next_check:
            broken.append("the next check comes too late")
        return [*broken, *self.clients.audit()]
