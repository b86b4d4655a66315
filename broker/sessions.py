"""The beginning and the end of workers' sessions, and of their processes. Judges nobody and assigns nothing."""

from collections.abc import Callable
from math import inf

from racepool.broker.actions import (
    Action,
    KillProcess,
    Report,
    SendToHeartbeat,
    SendToWorker,
    UnwatchProcess,
    WatchProcess,
)
from racepool.broker.assignments import Assignments
from racepool.broker.frozen import FrozenProcesses
from racepool.broker.session_end import SessionEnd
from racepool.broker.tasks import Peer
from racepool.broker.workers import Worker
from racepool.protocol import messages
from racepool.protocol.messages import Heartbeat, Id, Ready, Welcome, Who


class WorkerSessions:
    """Opens and ends the sessions of workers.

    Invariant: each local process is watched from the first message of its session until that session has ended, and
    after that as long as it may be frozen.

    Args:
        assignments: takes back what an ended session had in hand.
        liveness_s: how long a worker may be silent.
        welcome: answers each READY that opens a session.
        check_by: called with the instant of the next check.
    """

    def __init__(
        self, assignments: Assignments, liveness_s: float, welcome: Welcome, check_by: Callable[[float], None]
    ) -> None:
        self.frozen = FrozenProcesses(liveness_s)
        self._assignments = assignments
        self._counters = assignments.ledger.counters
        self._roster = assignments.roster
        self._liveness_s = liveness_s
        self._welcome = welcome
        self._check_by = check_by
        self._left_until: dict[Id, float] = {}

    def open(self, peer: Peer, ready: Ready, now: float, local_pid: int | None) -> list[Action]:
        """Opens a session, and ends earlier ones of the same worker; ignores a READY that a later one overtook."""
        if ready.incarnation in self._roster.workers or self._roster.at(peer) is not None or self._roster.is_full:
            self._counters["bad_frames"] += 1
            return []
        actions = self.spare(ready.incarnation, local_pid)
        pid = ready.pid if local_pid is None else local_pid
        forerunners = self._roster.forerunners(ready.name, pid)
        number = (ready.started_at_ms, ready.session)
        if any(number < (each.started_at_ms, each.session_number) for each in forerunners):
            return actions
        for worker in forerunners:
            # the pid alone does not tell processes apart: in a container it is always 1
            is_same = (worker.pid, worker.started_at_ms) == (pid, ready.started_at_ms)
            actions += self.end(worker, SessionEnd.RENEWED if is_same else SessionEnd.REPLACED, now)
        _, introduced = self.introduce(ready, peer, now, local_pid)
        # at that check, a worker that waits for this one may be recycled; by then the welcome was sent, or failed
        self._check_by(now)
        return [*actions, SendToWorker(peer, self._welcome), *introduced]

    def meet(
        self, peer: Peer, beat: Heartbeat, now: float, local_pid: int | None
    ) -> tuple[Worker | None, list[Action]]:
        """Enters the busy worker of a heartbeat whose session is not known; no worker if it has to open a session.

        A heartbeat of a session that has just ended is ignored: the worker sent it before its Bye, but it arrived
        after it. A Who would make the worker open a session, and it would not hear that it is to end.
        """
        if self.has_just_left(beat.incarnation, now):
            return None, []
        actions = self.spare(beat.incarnation, local_pid)
        pid = beat.pid if local_pid is None else local_pid
        if not beat.busy or self._roster.is_full or self._roster.sessions_of(beat.name, pid):
            # a process that has a session sends a heartbeat for an earlier one
            return None, [*actions, SendToHeartbeat(peer, Who())]
        worker, introduced = self.introduce(beat, None, now, local_pid)
        return worker, [*actions, *introduced]

    def introduce(
        self, who: Ready | Heartbeat, peer: Peer | None, now: float, local_pid: int | None
    ) -> tuple[Worker, list[Action]]:
        """Enters a worker that has introduced itself by a READY, or by a heartbeat while it is busy."""
        pid = who.pid if local_pid is None else local_pid
        is_local = local_pid is not None
        number = who.session if isinstance(who, Ready) else 0
        worker = Worker(who.incarnation, peer, number, who.name, pid, is_local, who.version, who.started_at_ms, now)
        self._roster.add(worker)
        self._check_by(now + self._liveness_s / 2)
        fields: dict[str, object] = {"worker": worker.name, "pid": pid, "version": worker.version}
        actions: list[Action] = [WatchProcess(worker.session_id, pid)] if is_local else []
        away_since = self._roster.take_away_since(worker.name)
        if away_since is not None:
            actions.append(Report("worker_restarted", fields | {"duration_ms": ms(now - away_since)}))
        actions.append(Report("worker_ready", fields | {"state": worker.state}))
        return worker, actions

    def end(self, worker: Worker, end: SessionEnd, now: float, signal: int | None = None) -> list[Action]:
        """Ends a session, and takes back what the worker has in its hands.

        `signal` is what ended the process, where that is known.

        Assigns nothing: several workers may be lost at once. A task must not go from one dying worker to the next,
        and pay an attempt each time.
        """
        self._roster.remove(worker)
        if end.has_left:
            self._left_until = {each: until for each, until in self._left_until.items() if now < until}
            self._left_until[worker.session_id] = now + self._liveness_s
        actions: list[Action] = []
        if worker.is_local and end.may_be_frozen:
            self._check_by(self.frozen.add(worker))
        elif worker.is_local:
            actions.append(KillProcess(worker.session_id) if end.kills else UnwatchProcess(worker.session_id))
        fields: dict[str, object] = {"worker": worker.name, "pid": worker.pid, "reason": end.reason}
        if signal is not None:
            fields["signal"] = signal
        if end is not SessionEnd.RENEWED:
            self._roster.mark_away(worker, now)
        if end.is_loss:
            self._counters["worker_crashes"] += 1
            fields["silent_ms"] = ms(now - worker.last_seen)
        if worker.task is not None:
            fields |= worker.attempt_at(worker.task) | {"duration_ms": ms(now - worker.assigned_at)}
        actions.append(Report("worker_lost" if end.is_loss else "worker_stopped", fields))
        return actions + self._assignments.requeue_tasks_of(worker, end, now, signal)

    def has_just_left(self, session_id: Id, now: float) -> bool:
        """Whether this session ended within the last liveness, and its worker knows it.

        A late heartbeat may still arrive then.
        """
        return now < self._left_until.get(session_id, -inf)

    def spare(self, session_id: Id, local_pid: int | None) -> list[Action]:
        """A process that had fallen silent has spoken: it was not frozen for good."""
        return [UnwatchProcess(each) for each in self.frozen.spared(session_id, local_pid)]

    def kill_frozen(self, now: float) -> list[Action]:
        """Kills the processes that have been silent for too long after the end of their sessions."""
        actions: list[Action] = []
        for worker in self.frozen.overdue(now):
            fields = {"worker": worker.name, "pid": worker.pid, "reason": "frozen"}
            silent = {"silent_ms": ms(now - worker.last_seen)}
            actions += (KillProcess(worker.session_id), Report("worker_killed", fields | silent))
        return actions

    def recycle(self, now: float) -> list[Action]:
        """Tells an idle worker that wants to be recycled to end: one at a time, and none while another is away."""
        tired = [worker for worker in self._roster.workers.values() if worker.wants_recycling]
        until = self._roster.somebody_is_away_until(now) if tired else None
        if until is not None:
            self._check_by(until)
            return []
        for worker in tired:
            if worker.peer is not None and worker.state == "idle":  # the others must wait for their next result
                return [SendToWorker(worker.peer, messages.Recycle()), *self.end(worker, SessionEnd.RECYCLED, now)]
        return []


def ms(seconds: float) -> float:
    """The duration as the log shows it: milliseconds, rounded to microseconds."""
    return round(seconds * 1000, 3)
