"""The broker's decisions: messages and time in, actions out. Knows no socket, clock, process or log.

A client's task goes to the backlog, from there to an idle worker under a new lease, and its result back to the client.
A lost worker's task goes back to its place in the backlog, or is given up after `max_attempts` deaths. Where tasks are
short and many wait, a busy worker is given a second one, which is recalled if the first turns out slow. Sessions are
named by their peer (a routing id); whoever speaks without a session is told Who and opens one.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from math import inf
from types import MappingProxyType
from typing import assert_never

from racepool.broker.actions import (
    Action,
    KillProcess,
    ProbeProcess,
    Quarantine,
    Report,
    SendStats,
    SendToClient,
    SendToHeartbeat,
    SendToWorker,
    UnwatchProcess,
    WatchProcess,
)
from racepool.broker.assignments import Assignments
from racepool.broker.frozen import FrozenProcesses
from racepool.broker.ledger import Ledger
from racepool.broker.roster import Roster
from racepool.broker.tasks import Client, Death, Disowned, Peer, Task
from racepool.broker.workers import LostBy, Worker
from racepool.protocol import messages
from racepool.protocol.errors import CrashedAttempt
from racepool.protocol.failures import pack_crashes, pack_raised
from racepool.protocol.messages import Epoch, FromClient, FromWorker, Heartbeat, Id, Outcome, Payload, Ready, ToWorker
from racepool.protocol.quarantine import file_of
from racepool.protocol.settings import Settings

MAX_CLIENTS = 4_096
SETTLE_S = 0.05
RETURN_S = 0.25
KILLED = (LostBy.RUN_TIMEOUT, LostBy.CANCELLED)
MAY_BE_FROZEN = (LostBy.SILENCE, LostBy.UNREACHABLE, LostBy.CUT_OFF, LostBy.RECYCLED)
NEVER_RECEIVED = (LostBy.GONE, LostBy.UNREACHABLE)
LEFT = (LostBy.RECYCLED, LostBy.GOODBYE)
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
        self.frozen = FrozenProcesses(settings.liveness)
        self.clients: dict[Id, Client] = {}
        self._client_at: dict[Peer, Client] = {}
        self._left_until: dict[Id, float] = {}
        self._is_draining = False
        self._is_crowded = False
        self._next_check = inf
        self._settles_at = -inf
        self._has_read_by = -inf

    @property
    def counters(self) -> Counter[str]:
        """Totals of this epoch, by the names of PoolStats."""
        return self.ledger.counters

    # --- clients ------------------------------------------------------------------------------------------------------

    def on_client(self, peer: Peer, message: FromClient, now: float, *, can_share: bool = False) -> list[Action]:
        """A client's message; of a HELLO, whether the shared memory that it names can be read from here.

        A peer without a session is asked to open one.
        """
        if isinstance(message, messages.Hello):
            return self._greet(peer, message, now, can_share=can_share)
        client = self._client_at.get(peer)
        if client is None:
            return [] if isinstance(message, messages.Bye) else [SendToClient(peer, messages.Who())]
        client.last_seen = now
        match message:
            case messages.Submit():
                return self._submit(client, message, now)
            case messages.Ping(held):
                client.held = held
                return [SendToClient(peer, messages.Pong(self.epoch))]
            case messages.Expire(task_id, limit_ms):
                return self._expire(self.ledger.task_of(client, task_id), limit_ms, now)
            case messages.Cancel(task_id, kill):
                return self._cancel(self.ledger.task_of(client, task_id), kill=kill, now=now)
            case messages.AskStats():
                return [SendStats(peer)]
            case messages.Bye():
                return self._forget_client(client, now)
            case _:
                assert_never(message)

    def on_client_unreachable(self, peer: Peer) -> list[Action]:
        """A message could not be sent: this client is gone, or does not read.

        It is asked for a new session when it speaks again, and submits what it still misses; until then it keeps its
        tasks and their places.
        """
        self.counters["dropped"] += 1
        self._client_at.pop(peer, None)
        return []

    def _greet(self, peer: Peer, hello: messages.Hello, now: float, *, can_share: bool) -> list[Action]:
        client = self.clients.get(hello.client_id)
        if client is not None and hello.session < client.session:
            return []  # overtaken by a later session's
        stranger = self._client_at.get(peer)
        if stranger is not None and stranger is not client:
            self.counters["bad_frames"] += 1
            return []
        if client is None:
            if len(self.clients) >= MAX_CLIENTS:
                self.counters["dropped"] += 1
                is_told, self._is_crowded = self._is_crowded, True
                return [] if is_told else [Report("client_refused", {"clients": len(self.clients)})]
            client = Client(hello.client_id, hello.session, peer, now, hello.held, can_share)
            self.clients[hello.client_id] = client
        self._client_at.pop(client.peer, None)
        self._client_at[peer] = client
        client.session, client.peer, client.last_seen, client.held = hello.session, peer, now, hello.held
        client.can_share = can_share
        self._check_by(now + self.settings.liveness)
        return [SendToClient(peer, self._welcome_words(can_share=can_share))]

    def _submit(self, client: Client, submit: messages.Submit, now: float) -> list[Action]:
        if submit.is_shared and not client.can_share:
            self.counters["bad_frames"] += 1
            return []
        refusal = self.ledger.submit(client, submit, now)
        return [SendToClient(client.peer, refusal)] if refusal else self._assign(now)

    def _expire(self, task: Task | None, limit_ms: int, now: float) -> list[Action]:
        if task is None:
            return []  # its answer is on the way
        waited_ms = round(task.waited(now) * 1000)
        if not task.is_queued or waited_ms < limit_ms:
            return [SendToClient(task.client.peer, messages.Waited(task.id, waited_ms, task.is_queued))]
        self.ledger.withdraw(task, "timed_out", now)
        return [SendToClient(task.client.peer, messages.Answer(task.id, Outcome.QUEUE_TIMEOUT, task.assignments, b""))]

    def _cancel(self, task: Task | None, *, kill: bool, now: float) -> list[Action]:
        if task is None:
            return []
        actions: list[Action] = []
        if task.is_queued:
            self.ledger.withdraw(task, "cancelled", now)
        else:
            task.disowned = Disowned.CANCELLED
            holder = self.roster.holder(task)
            if holder.task is not task:
                actions = self.assignments.recall(holder, now)
            elif kill:
                actions = [*self._lose(holder, LostBy.CANCELLED, now), *self._assign(now)]
        for worker in self.roster.recalled_from(task.id) if kill else ():  # it may have begun it
            self.roster.hasten(worker, RETURN_S, LostBy.CANCELLED, now)
            self._check_by(worker.deadline)
        return actions

    def _forget_client(self, client: Client, now: float) -> list[Action]:
        del self.clients[client.id]
        self._is_crowded = False
        self._client_at.pop(client.peer, None)
        queued, in_flight = self.ledger.abandon(client, now)
        if not queued and not in_flight:
            return []
        return [Report("task_abandoned", {"queued": queued, "in_flight": in_flight})]

    # --- workers ------------------------------------------------------------------------------------------------------

    def on_worker(self, peer: Peer, message: FromWorker, now: float, local_pid: int | None = None) -> list[Action]:
        """A worker's message; `local_pid` is its process as the kernel knows it, None where the kernel does not."""
        if isinstance(message, Ready):
            return self._welcome(peer, message, now, local_pid)
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
                return self._lose(worker, LostBy.GOODBYE, now) + self._assign(now)
            case _:
                assert_never(message)

    def on_heartbeat(self, peer: Peer, beat: Heartbeat, now: float, local_pid: int | None = None) -> list[Action]:
        """A worker's heartbeat. One that is busy with an older epoch's task introduces itself by it.

        Not one that has just left: it was sent before the worker's last words, which came sooner.
        """
        worker = self.roster.workers.get(beat.incarnation)
        actions: list[Action] = []
        if worker is None and now < self._left_until.get(beat.incarnation, -inf):
            return []  # who is asked Who would open a session, and not hear that it is to end
        if worker is None:
            actions = self._spare(beat.incarnation, local_pid)
            pid = beat.pid if local_pid is None else local_pid
            if not beat.busy or self.roster.is_full or self.roster.sessions_of(beat.name, pid):
                # a known process beats here for a session that is over
                return [*actions, SendToHeartbeat(peer, messages.Who())]
            worker, introduced = self._introduce(beat, None, now, local_pid)
            actions += introduced
        is_out_of_step = worker.is_out_of_step(now, self.settings.liveness, says_busy=beat.busy)
        worker.last_seen = now
        worker.is_suspect = False
        worker.is_draining, worker.rss_bytes = beat.draining, beat.rss_bytes
        if is_out_of_step:
            return [
                *self._lose(worker, LostBy.OUT_OF_STEP, now),
                SendToHeartbeat(peer, messages.Who()),
                *self._assign(now),
            ]
        return [SendToHeartbeat(peer, messages.Pong(self.epoch)), *actions]

    def on_worker_unreachable(self, peer: Peer, unsent: ToWorker, now: float) -> list[Action]:
        """A message could not be sent. The task that it carried never reached the worker: it costs no attempt.

        Nor does one that was to follow it; but the one before it may be what ended the worker.
        """
        worker = self.roster.at(peer)
        if worker is None:
            return []
        was_told_more = isinstance(unsent, messages.Recall) or (
            isinstance(unsent, messages.Assign) and unsent.lease != worker.lease
        )
        by = LostBy.CUT_OFF if was_told_more else LostBy.UNREACHABLE
        return self._lose(worker, by, now) + self._assign(now)

    def on_unreadable(self, peer: Peer, lease: int, why: str, now: float) -> list[Action]:
        """The payload that was to go out under this lease cannot be read: its client is gone, or waits no more."""
        worker = self.roster.at(peer)
        if worker is None:
            return []
        if worker.second is not None and worker.second.lease == lease:
            task = self.roster.take_second(worker).task
        elif worker.task is not None and worker.lease == lease:
            task = worker.task
            self._release(worker, now)
        else:
            return []
        raised = pack_raised(
            "UnreadableError", f"its payload in shared memory cannot be read: {why}; submit it again", ""
        )
        return [*self._answer(task, Outcome.RAISED, raised, "failed"), *self._assign(now)]

    def on_worker_revoked(self, peer: Peer, now: float) -> list[Action]:
        """The worker's key is not allowed any more. Its task may have reached it, but has not killed it."""
        worker = self.roster.at(peer)
        return [] if worker is None else self._lose(worker, LostBy.REVOKED, now) + self._assign(now)

    def on_process_gone(self, incarnation: Id, now: float) -> list[Action]:
        """The process behind this session had ended before it could be watched: its task will reach nobody."""
        worker = self.roster.workers.get(incarnation)
        if worker is None:  # lost already, since its welcome could not be sent
            self.frozen.ended([incarnation])
            return []
        return self._lose(worker, LostBy.GONE, now) + self._assign(now)

    def on_process_exit(
        self, incarnations: Iterable[Id], now: float, signals: Mapping[Id, int] = NO_SIGNALS
    ) -> list[Action]:
        """The kernel says that the processes behind these sessions ended, some of them by signals that it can name.

        To be called in each turn when all results are read, with none as well: seconds that have waited for too long
        are recalled then.

        Whatever killed a busy one may be killing more: who dies within `SETTLE_S` is learnt of before anything is
        assigned. Else a task would go from one dying worker to the next, an attempt each, before any had begun it.
        After a pause they are to be named again for as long: their last words may not have been read yet.
        """
        if now < self._has_read_by:
            return self._assign(now)
        incarnations = dict.fromkeys(incarnations)
        lost = [self.roster.workers[incarnation] for incarnation in incarnations if incarnation in self.roster.workers]
        if any(worker.task is not None or worker.recalled is not None for worker in lost):
            self._settles_at = now + SETTLE_S
            self._check_by(self._settles_at)
        actions: list[Action] = [UnwatchProcess(incarnation) for incarnation in self.frozen.ended(incarnations)]
        for worker in lost:
            by = LostBy.RUN_TIMEOUT if worker.has_overrun(now) else LostBy.PROCESS_EXIT
            actions += self._lose(worker, by, now, signals.get(worker.incarnation))
        if not self._is_draining:
            actions += self.assignments.recall_overdue(now)
        return actions + self._assign(now)

    def on_probe(self, incarnation: Id, now: float, *, has_progress: bool) -> list[Action]:
        """Whether a silent process used CPU since the last probe: one long C call silences a worker that is well."""
        worker = self.roster.workers.get(incarnation)
        if worker is None or now < worker.last_seen + self.settings.liveness:
            return []
        if not has_progress:
            self._check_by(now)  # which assigns its task, when all who are silent have been looked at
            return self._lose(worker, LostBy.SILENCE, now)
        worker.last_seen = now - self.settings.liveness / 2
        return [Report("worker_silent", {"worker": worker.name, "pid": worker.pid, "reason": "it uses CPU"})]

    def _welcome(self, peer: Peer, ready: Ready, now: float, local_pid: int | None) -> list[Action]:
        if ready.incarnation in self.roster.workers or self.roster.at(peer) is not None or self.roster.is_full:
            self.counters["bad_frames"] += 1
            return []
        replaced = self._spare(ready.incarnation, local_pid)
        pid = ready.pid if local_pid is None else local_pid
        forerunners = self.roster.forerunners(ready.name, pid)
        if any((ready.started_at_ms, ready.session) < (each.started_at_ms, each.session) for each in forerunners):
            return replaced  # overtaken by that of a later session, or of a later process
        for worker in forerunners:
            is_same = (worker.pid, worker.started_at_ms) == (pid, ready.started_at_ms)  # a container's is always 1
            by = LostBy.RENEWED if is_same else LostBy.REPLACED
            replaced += self._lose(worker, by, now)
        _, introduced = self._introduce(ready, peer, now, local_pid)
        welcome = SendToWorker(peer, self._welcome_words())
        self._check_by(now)  # who waits to be recycled may be now, unless this welcome cannot be delivered
        return [*replaced, welcome, *introduced, *self._assign(now)]

    def _welcome_words(self, *, can_share: bool = False) -> messages.Welcome:
        liveness_ms = round(self.settings.liveness * 1000)
        return messages.Welcome(self.epoch, self.settings.payload_limit, liveness_ms, can_share)

    def _introduce(
        self, who: Ready | Heartbeat, peer: Peer | None, now: float, local_pid: int | None
    ) -> tuple[Worker, list[Action]]:
        pid = who.pid if local_pid is None else local_pid
        is_local = local_pid is not None
        session = who.session if isinstance(who, Ready) else 0
        worker = Worker(who.incarnation, peer, session, who.name, pid, is_local, who.version, who.started_at_ms, now)
        self.roster.add(worker)
        self._check_by(now + self.settings.liveness / 2)
        fields: dict[str, object] = {"worker": worker.name, "pid": pid, "version": worker.version}
        actions: list[Action] = [WatchProcess(worker.incarnation, pid)] if is_local else []
        away_since = self.roster.take_away_since(worker.name)
        if away_since is not None:
            actions.append(Report("worker_restarted", fields | {"duration_ms": _ms(now - away_since)}))
        actions.append(Report("worker_ready", fields | {"state": worker.state}))
        return worker, actions

    def _finish(self, worker: Worker, result: messages.Result, now: float) -> list[Action]:
        task = worker.task
        if task is None or (result.epoch, result.lease, result.task_id) != (self.epoch, worker.lease, task.id):
            return self._settle(worker, result, now)
        if result.outcome is Outcome.UNREADABLE and task.is_shared and not task.goes_by_value:
            task.goes_by_value = True
            self._release(worker, now)
            return [*self.assignments.give_back(worker, task, now), *self._assign(now)]
        if result.outcome not in messages.WORKER_OUTCOMES:
            self.counters["bad_frames"] += 1
            return []
        is_ok = result.outcome is Outcome.OK
        worker.tasks_completed += is_ok
        worker.tasks_failed += not is_ok
        run_s = now - worker.assigned_at
        self.assignments.seconds.observe(run_s)
        fields = worker.attempt_at(task) | {"duration_ms": _ms(run_s), "outcome": result.outcome.value}
        self._release(worker, now)
        worker.wants_recycling = result.recycle
        answer = self._answer(task, result.outcome, result.payload, "completed" if is_ok else "failed")
        report = Report("task_completed" if is_ok else "task_failed", fields)
        return [*answer, report, *(self._recycle(now) if result.recycle else ()), *self._assign(now)]

    def _release(self, worker: Worker, now: float) -> None:
        self.roster.release(worker, now)
        self._check_by(worker.deadline)

    def _settle(self, worker: Worker, told: messages.Returned | messages.Result, now: float) -> list[Action]:
        """The worker tells of a lease that is not its task's: it can only be that of what was recalled."""
        is_of_recalled = worker.recalled is not None and (told.epoch, told.lease) == (self.epoch, worker.recalled.lease)
        self.counters["stale_results"] += isinstance(told, messages.Result) or not is_of_recalled
        if not is_of_recalled:
            return []
        self.roster.settle(worker)
        return [*(self._recycle(now) if worker.wants_recycling else ()), *self._assign(now)]

    def _recycle(self, now: float) -> list[Action]:
        """Tells a worker that wants it to end and come back: only one at a time, and none while another is away."""
        tired = [worker for worker in self.roster.workers.values() if worker.wants_recycling]
        until = self.roster.somebody_is_away_until(now) if tired else None
        if until is not None:
            self._check_by(until)
            return []
        for worker in tired:
            if worker.peer is not None and worker.state == "idle":  # the others: after their next result
                return [SendToWorker(worker.peer, messages.Recycle()), *self._lose(worker, LostBy.RECYCLED, now)]
        return []

    def _spare(self, incarnation: Id, local_pid: int | None) -> list[Action]:
        """A process that fell silent has spoken: it was not frozen for good."""
        return [UnwatchProcess(each) for each in self.frozen.spared(incarnation, local_pid)]

    def _lose(self, worker: Worker, by: LostBy, now: float, signal: int | None = None) -> list[Action]:
        """Ends a worker's session; the task in its hands goes back to its place, or is given up.

        A second in its hands goes back at no cost: it was not begun, or so the worker said. But its last words may be
        lost, so where a worker died neither of the two shares a worker's hands with another task any more.

        `signal` is what ended the process, where that is known.

        Assigns nothing: it may be one of several that are lost at once, and a task must not go from hand to hand of
        workers that are all dead, an attempt each.
        """
        self.roster.remove(worker)
        if by in LEFT:
            self._left_until = {each: until for each, until in self._left_until.items() if now < until}
            self._left_until[worker.incarnation] = now + self.settings.liveness
        actions: list[Action] = []
        if worker.is_local and by in MAY_BE_FROZEN:
            self._check_by(self.frozen.add(worker))
        elif worker.is_local:
            end = KillProcess if by in KILLED else UnwatchProcess
            actions.append(end(worker.incarnation))
        fields: dict[str, object] = {"worker": worker.name, "pid": worker.pid, "reason": by.reason}
        if signal is not None:
            fields["signal"] = signal
        if by is not LostBy.RENEWED:
            self.roster.mark_away(worker, now)
        if by.is_loss:
            self.counters["worker_crashes"] += 1
            fields["silent_ms"] = _ms(now - worker.last_seen)
        if worker.task is not None:
            fields |= worker.attempt_at(worker.task) | {"duration_ms": _ms(now - worker.assigned_at)}
        actions.append(Report("worker_lost" if by.is_loss else "worker_stopped", fields))
        if worker.task is not None:
            actions += self._take_back(worker, worker.task, by, now, signal)
        if worker.second is not None:
            second, worker.second = worker.second.task, None
            second.goes_alone |= by.costs_attempt
            actions += self.assignments.give_back(worker, second, now)
        return actions

    # --- tasks --------------------------------------------------------------------------------------------------------

    def _assign(self, now: float) -> list[Action]:
        if now < self._settles_at or self._is_draining:
            return []
        actions = self.assignments.assign(now)
        self._check_by(self.assignments.earliest_deadline)
        return actions

    def _take_back(self, worker: Worker, task: Task, by: LostBy, now: float, signal: int | None) -> list[Action]:
        fields = worker.attempt_at(task)
        worker.task = None
        if by.costs_attempt:
            task.deaths += (Death(worker.name, by.reason, signal, worker.assigned_at, now),)
            task.goes_alone = True
        if by in NEVER_RECEIVED:
            task.assignments -= 1
        if by is LostBy.RUN_TIMEOUT or task.disowned is not None:
            return self._answer(task, Outcome.RUN_TIMEOUT, b"", "timed_out")
        if len(task.deaths) >= self.settings.max_attempts:
            return self._give_up(task, fields)
        self.counters["requeued"] += 1
        self.ledger.backlog.add(task, now)
        return [Report("task_requeued", fields | {"queue_depth": self.ledger.backlog.depth})]

    def _give_up(self, task: Task, fields: dict[str, object]) -> list[Action]:
        """Its caller learns of no signal: of those that the broker sends, each ends the task with another answer."""
        crashes = pack_crashes([CrashedAttempt(death.worker, None) for death in task.deaths])
        return [
            Quarantine(task.id, task.run_timeout_ms, task.deaths, task.is_shared, task.payload),
            *self._answer(task, Outcome.CRASHED, crashes, "crashed"),
            Report("task_given_up", fields | {"kept_in": str(file_of(self.settings.dir, task.id))}),
        ]

    def _answer(self, task: Task, outcome: Outcome, payload: Payload, counter: str) -> list[Action]:
        """Ends the task, with its one answer if somebody waits for it."""
        if not self.ledger.end(task, counter):
            return []
        return [SendToClient(task.client.peer, messages.Answer(task.id, outcome, task.assignments, payload))]

    # --- time ---------------------------------------------------------------------------------------------------------

    def next_check(self) -> float:
        """When `on_tick`, or for seconds `on_process_exit`, has something to look at, at the earliest."""
        due = inf if self._is_draining else max(self.assignments.seconds.next_due(), self._has_read_by)
        return min(self._next_check, due)

    def on_tick(self, now: float) -> list[Action]:
        """Judges who has been silent, and what has run, for too long. To be called when all sockets are drained."""
        if now < self._next_check:
            return []
        actions: list[Action] = []
        for worker in list(self.roster.workers.values()):
            actions += self._judge(worker, now)
        for client in list(self.clients.values()):
            if client.last_seen + self.settings.liveness <= now:
                actions += self._forget_client(client, now)
        for worker in self.frozen.overdue(now):
            fields = {"worker": worker.name, "pid": worker.pid, "reason": "frozen"}
            silent = {"silent_ms": _ms(now - worker.last_seen)}
            actions += (KillProcess(worker.incarnation), Report("worker_killed", fields | silent))
        self._next_check = min(self._checks(), default=inf)
        actions += [*self._recycle(now), *self._assign(now)]
        if now < self._settles_at:
            self._check_by(self._settles_at)
        return actions

    def on_pause(self, now: float) -> list[Action]:
        """The broker itself stood still, so nobody's silence tells anything, and results may wait unread."""
        self._has_read_by = now + SETTLE_S
        for worker in self.roster.workers.values():
            worker.last_seen = now
            worker.deadline = max(worker.deadline, now + self.settings.liveness / 2)
            worker.is_suspect, worker.idle_since = False, None
        for client in self.clients.values():
            client.last_seen = now
        self.frozen.on_pause(now)
        return [Report("broker_paused", {"workers": len(self.roster.workers), "clients": len(self.clients)})]

    def on_drain(self) -> list[Action]:
        """Assigns nothing more, and recalls nothing; what is in flight may end."""
        self._is_draining = True
        return [
            Report("broker_draining", {"in_flight": self.ledger.in_flight, "queue_depth": self.ledger.backlog.depth})
        ]

    def farewell(self) -> list[Action]:
        """Ends all sessions before the broker's own end; clients keep their tasks for the next epoch."""
        return [SendToClient(client.peer, messages.Bye()) for client in self.clients.values()]

    def _judge(self, worker: Worker, now: float) -> list[Action]:
        if worker.deadline <= now:
            recalled = worker.recalled if worker.task is None else None
            return self._lose(worker, recalled.by if recalled else LostBy.RUN_TIMEOUT, now)
        if worker.last_seen + self.settings.liveness <= now:
            return [ProbeProcess(worker.incarnation)] if worker.is_local else self._lose(worker, LostBy.SILENCE, now)
        if worker.is_local and not worker.is_suspect and worker.last_seen + self.settings.liveness / 2 <= now:
            worker.is_suspect = True
            return [ProbeProcess(worker.incarnation)]
        return []

    def _check_by(self, instant: float) -> None:
        self._next_check = min(self._next_check, instant)

    def _checks(self) -> Iterator[float]:
        liveness = self.settings.liveness
        for worker in self.roster.workers.values():
            yield worker.deadline
            yield worker.last_seen + (liveness if worker.is_suspect or not worker.is_local else liveness / 2)
        for client in self.clients.values():
            yield client.last_seen + liveness
        yield self.frozen.next_check()

    def audit(self) -> list[str]:
        """The invariants that do not hold; empty but for a bug. For tests: it looks at every task."""
        workers = self.roster.workers.values()
        held = [worker.task for worker in workers if worker.task is not None]
        seconds = [worker.second.task for worker in workers if worker.second is not None]
        broken = [*self.roster.audit(), *self.ledger.audit(held + seconds), *self.assignments.seconds.audit(workers)]
        if any(task.assignments != 1 or task.goes_alone or task.was_returned for task in seconds):
            broken.append("a second was assigned before, or is to go alone")
        if any(self.clients.get(client.id) is not client for client in self._client_at.values()):
            broken.append("a peer leads to a client that is forgotten")
        return broken


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
