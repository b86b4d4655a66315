"""The broker's life: sockets, clock and processes around the core, which decides."""

import os
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import assert_never

import zmq

from racepool.broker.actions import (
    Action,
    Effect,
    KeepDeadTask,
    KillProcess,
    ProbeProcess,
    Report,
    SendByValue,
    SendStats,
    SendToClient,
    SendToHeartbeat,
    SendToWorker,
    UnwatchProcess,
    WatchProcess,
)
from racepool.broker.core import BrokerCore
from racepool.broker.dead_tasks import CLOSE_S, DeadTaskWriter
from racepool.broker.gate import Door, Gate
from racepool.broker.intake import Handler, Intake
from racepool.broker.process_watch import ProcessWatch
from racepool.broker.resource_watch import ResourceWatch
from racepool.broker.statistics import Statistics
from racepool.broker.tasks import Peer
from racepool.protocol import clock
from racepool.protocol.endpoints import SOCKETS, is_tcp, socket_path
from racepool.protocol.frames import (
    FROM_CLIENT,
    FROM_HEARTBEAT,
    FROM_WORKER,
    BadFrameError,
    ForeignVersionError,
    Inlet,
    M,
    decode,
    encode,
    task_in,
)
from racepool.protocol.keys import broker_keys, key_directory
from racepool.protocol.logs import Log, Outlet
from racepool.protocol.messages import Bye, Epoch, Hello, Id, Payload, Ready, Refused, Stats, Text, Who, text
from racepool.protocol.processes import file_limit, open_files, own_pid, resident_bytes, trim_memory
from racepool.protocol.settings import Settings
from racepool.protocol.shared_memory import SegmentReader, UnreadableError
from racepool.protocol.signals import Termination
from racepool.protocol.sockets import Context, Socket, destroy, router, send, sender_pid

CLIENT_SEND_LIMIT = 1_024  # messages kept for a client that does not read; our own waits for at most half as many
WORKER_SEND_LIMIT = 16
MAX_SLEEP_S = 0.5
MEMORY_CHECK_S = 0.5
SOCKET_CHECK_S = 5.0
MAX_FOREIGN_VERSIONS = 8
DRAIN_S = 3.0
FAREWELL_LINGER_MS = 1_000
WARNINGS = frozenset(
    {
        "worker_lost", "worker_silent", "worker_killed", "task_requeued", "task_abandoned",
        "worker_start_failed", "broker_paused", "file_limit_low", "file_limit_near",
    }
)  # fmt: skip
ERRORS = frozenset({"task_given_up", "client_refused"})


class SocketLostError(Exception):
    """A socket's file was removed or replaced, so that no new peer can reach this broker."""


class Server:
    """One life of the broker, from bind to farewell. `run` returns after SIGTERM or SIGINT."""

    def __init__(self, settings: Settings, log: Log, outlet: Outlet) -> None:
        self._settings = settings
        self._log = log
        self._outlet = outlet
        self._context: Context = zmq.Context()
        self._core = BrokerCore(settings, Epoch(os.urandom(8)))
        self._statistics = Statistics(self._core, clock.now, time.time)
        self._processes = ProcessWatch()
        self._dead_tasks = DeadTaskWriter(settings.dir, log)
        keys = broker_keys(settings)
        self._gate = None if keys is None else Gate(self._context, keys, key_directory(settings), log)
        self._doors: dict[Socket, Door] = {}
        limit = settings.payload_limit
        self._frontend = self._bind("endpoint", CLIENT_SEND_LIMIT, limit)
        self._backend = self._bind("backend", WORKER_SEND_LIMIT, limit)
        self._heartbeat = self._bind("heartbeat_endpoint", WORKER_SEND_LIMIT, 0)
        self._stats = self._bind("stats_endpoint", WORKER_SEND_LIMIT, 0)
        self._bound = _inodes(settings.endpoints())
        self._termination = Termination()
        self._segments = SegmentReader()
        self._poller = zmq.Poller()
        for source in (self._frontend, self._backend, self._heartbeat, self._stats, self._processes, self._termination):
            self._poller.register(source, zmq.POLLIN)
        if self._gate is not None:
            self._poller.register(self._gate.source, zmq.POLLIN)
        self._intakes = (  # in the order of a turn: first results, which free workers; heartbeats; then new work
            self._intake(self._backend, self._on_worker_frames),
            self._intake(self._heartbeat, self._on_heartbeat_frames),
            self._intake(self._frontend, self._on_client_frames),
            self._intake(self._stats, self._on_stats_frames),
        )
        self._resources = ResourceWatch(settings.broker_memory_limit, file_limit(), settings.workers, resident_bytes())
        self._max_pause_s = settings.liveness / 4  # if this broker stands still for longer, silence tells nothing
        self._woke_at = clock.now()
        self._judged_at = self._woke_at
        self._memory_checked_at = self._woke_at
        self._sockets_checked_at = self._woke_at
        self._drain_until: float | None = None
        self._foreign_versions: set[int] = set()

    def _bind(self, setting: str, send_limit: int, payload_limit: int) -> Socket:
        endpoint = getattr(self._settings, setting)
        if self._gate is None or not is_tcp(endpoint):
            return router(self._context, endpoint, send_limit=send_limit, payload_limit=payload_limit)
        door, guard = self._gate.door(SOCKETS[setting])
        bound = router(self._context, endpoint, send_limit=send_limit, payload_limit=payload_limit, guard=guard)
        self._doors[bound] = door
        return bound

    def _intake(self, source: Socket, handle: Handler) -> Intake:
        """An Intake. With keys, it drops the messages whose key is not allowed."""
        door = self._doors.get(source)
        if door is None:
            return Intake(source, handle)

        def admit(peer: Peer, frames: list[Payload], first: zmq.Frame | None) -> None:
            if door.admits(peer, first):
                handle(peer, frames, first)
            else:
                self._core.counters["bad_frames"] += 1

        return Intake(source, admit)

    # --- the loop -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serves until a signal, drains, says farewell.

        Raises:
            SocketLostError: the run directory was cleaned; the next broker will bind its sockets again.
            MemoryLimitError, OverlongMultipartError: only a new broker gets rid of what some peer has sent.
        """
        settings = self._settings
        self._log.info("broker_started", pid=os.getpid(), epoch=self._core.epoch.hex(), endpoint=settings.endpoint)
        self._perform(self._resources.on_start())
        try:
            while not self._is_done():
                self._turn()
            self._perform(self._core.farewell())
            self._log.info("broker_stopped", **self._core.counters)
        finally:
            self._dead_tasks.close(CLOSE_S)
            linger_ms = FAREWELL_LINGER_MS if self._is_done() else 0
            destroy(self._context, linger_ms)

    def _is_done(self) -> bool:
        if self._drain_until is None:
            return False
        return self._core.ledger.in_flight == 0 or clock.now() >= self._drain_until

    def _turn(self) -> None:
        """One round: drain the sockets first, then look at processes, then judge silence.

        A flood can keep a socket from being drained. It delays the judgement by `_max_pause_s` at most: libzmq serves
        its peers in turns, so by then all others have been heard. No sleep is longer than that either, because a pause
        during a sleep is noticed only if it lasts longer than the sleep.
        """
        until_check_s = self._core.next_check() - clock.now()
        asleep_s = max(0.0, min(until_check_s, self._outlet.patience_s, MAX_SLEEP_S, self._max_pause_s))
        ready = dict(self._poller.poll(ceil(asleep_s * 1000)))
        self._outlet.flush_if_due()
        if self._termination.fileno() in ready:
            self._on_termination()
        if self._gate is not None:
            self._serve_gate(self._gate, is_asked=self._gate.source in ready)
        undrained = [each.socket for each in self._intakes if each.socket in ready and not each.drain()]
        now = clock.now()
        stood_still_s = now - self._woke_at - asleep_s
        self._woke_at = now
        if stood_still_s > self._max_pause_s:
            self._perform(self._core.on_pause(now))
        if any(each.is_stuck for each in self._intakes):
            self._judged_at = now  # other peers may have spoken, and cannot be heard
        is_due = now > self._judged_at + self._max_pause_s
        if self._backend not in undrained or is_due:
            ended = self._processes.ended() if self._processes.fileno() in ready else []
            signals = self._processes.death_signals(ended)
            self._perform(self._core.on_process_exit(ended, now, signals))
        if not undrained or is_due:
            self._judged_at = now
            self._perform(self._core.on_tick(now))
        self._look_after_itself(now)

    def _serve_gate(self, gate: Gate, *, is_asked: bool) -> None:
        """Answers new connections, and ends the sessions whose key is not allowed any more."""
        if is_asked:
            gate.answer()
        now = clock.now()
        evicted = gate.look(now)
        for peer in evicted.get("backend", ()):
            self._perform(self._core.on_worker_revoked(peer, now))
        for peer in evicted.get("frontend", ()):
            self._perform(self._core.on_client(peer, Bye(), now))

    # --- what comes in ------------------------------------------------------------------------------------------------

    def _on_worker_frames(self, peer: Peer, frames: list[Payload], source: zmq.Frame | None) -> None:
        message = self._decoded(self._backend, peer, frames, FROM_WORKER)
        if message is not None:
            local_pid = _local_pid(source, message.pid) if isinstance(message, Ready) else None
            self._perform(self._core.on_worker(peer, message, clock.now(), local_pid))

    def _on_heartbeat_frames(self, peer: Peer, frames: list[Payload], source: zmq.Frame | None) -> None:
        beat = self._decoded(self._heartbeat, peer, frames, FROM_HEARTBEAT)
        if beat is not None:
            is_known = beat.incarnation in self._core.roster.workers
            local_pid = None if is_known else _local_pid(source, beat.pid)
            self._perform(self._core.on_heartbeat(peer, beat, clock.now(), local_pid))

    def _on_client_frames(self, peer: Peer, frames: list[Payload], source: zmq.Frame | None) -> None:
        message = self._decoded(self._frontend, peer, frames, FROM_CLIENT)
        if message is not None:
            can_share = isinstance(message, Hello) and self._segments.can_read(message, sender_pid(source))
            self._perform(self._core.on_client(peer, message, clock.now(), can_share=can_share))

    def _on_stats_frames(self, peer: Peer, frames: list[Payload], _source: zmq.Frame | None) -> None:
        """Any request of one frame gets the stats. The empty delimiter of a REQ socket goes back with them."""
        delimiter = [b""] if len(frames) == 2 and not frames[0] else []
        if len(frames) != 1 + len(delimiter):
            self._core.counters["bad_frames"] += 1
            return
        self._send(self._stats, [peer, *delimiter, self._snapshot()])

    def _decoded(self, source: Socket, peer: Peer, frames: list[Payload], inlet: Inlet[M]) -> M | None:
        try:
            return decode(frames, inlet)
        except ForeignVersionError as error:
            self._core.counters["bad_frames"] += 1
            self._warn_of(error)
            self._send(source, [peer, *encode(Who())])
        except BadFrameError as error:
            self._core.counters["bad_frames"] += 1
            self._log.debug("bad_frame", reason=str(error))
            self._answer_nonsense(source, peer, task_in(frames), text(str(error)))
        return None

    def _answer_nonsense(self, source: Socket, peer: Peer, task_id: Id | None, why: Text) -> None:
        """Tells a peer that its message was none. Otherwise its task would wait for an answer for ever."""
        if source is self._backend:
            self._perform(self._core.on_worker_nonsense(peer, clock.now()))
        elif source is self._frontend and task_id is not None:
            self._send(source, [peer, *encode(Refused(task_id, why))])

    def _warn_of(self, error: ForeignVersionError) -> None:
        """Warns once for each version: such a peer speaks again and again."""
        if error.version not in self._foreign_versions and len(self._foreign_versions) < MAX_FOREIGN_VERSIONS:
            self._foreign_versions.add(error.version)
            self._log.warning("foreign_version", reason=f"{error}; install the same racepool everywhere")

    # --- what goes out ------------------------------------------------------------------------------------------------

    def _perform(self, actions: Iterable[Action]) -> None:
        """Performs the actions, and those that follow from them. Reports come last, because peers wait."""
        todo, reports = deque(actions), []
        while todo:
            action = todo.popleft()
            if isinstance(action, Report):
                reports.append(action)
            else:
                todo.extend(self._done(action))
        for report in reports:
            self._report(report)

    def _done(self, action: Effect) -> Iterable[Action]:  # noqa: C901, PLR0912  # one case per action
        match action:
            case SendToWorker(peer, message):
                if not self._send(self._backend, [peer, *encode(message)]):
                    return self._core.on_worker_unreachable(peer, message, clock.now())
            case SendToClient(peer, message):
                if not self._send(self._frontend, [peer, *encode(message)]):
                    return self._core.on_client_unreachable(peer)
            case SendByValue(peer, assignment):
                try:
                    payload = self._by_value(assignment.payload, assignment.task_id)
                except UnreadableError as error:
                    return self._core.on_unreadable(peer, assignment.lease, str(error), clock.now())
                message = replace(assignment, is_shared=False, payload=payload)
                return self._done(SendToWorker(peer, message))
            case SendToHeartbeat(peer, message):
                self._send(self._heartbeat, [peer, *encode(message)])
            case SendStats(peer):
                self._send(self._frontend, [peer, *encode(Stats(self._snapshot()))])
            case WatchProcess(session_id, pid):
                if not self._processes.watch(session_id, pid):
                    return self._core.on_process_gone(session_id, clock.now())
            case UnwatchProcess(session_id):
                self._processes.unwatch(session_id)
            case KillProcess(session_id):
                self._processes.kill(session_id)
            case ProbeProcess(session_id):
                has_progress = self._processes.has_progress(session_id)
                return self._core.on_probe(session_id, clock.now(), has_progress=has_progress)
            case KeepDeadTask():
                self._keep_dead_task(action)
            case _:
                assert_never(action)
        return ()

    def _by_value(self, reference: Payload, task_id: Id) -> bytes:
        return self._segments.read(reference, task_id, self._settings.payload_limit).payload()

    def _keep_dead_task(self, task: KeepDeadTask) -> None:
        if task.is_shared:
            try:
                task = replace(task, payload=self._by_value(task.payload, task.task_id), is_shared=False)
            except UnreadableError as error:
                self._log.error("quarantine_failed", task_id=task.task_id.hex(), reason=str(error))
                return
        self._dead_tasks.keep(task, time.time() - clock.now())

    def _send(self, sink: Socket, frames: Sequence[Payload]) -> bool:
        """Sends without waiting; false if the peer is gone or reads nothing."""
        try:
            send(sink, frames)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            return False
        return True

    def _report(self, report: Report) -> None:
        self._statistics.on_report(report)
        if report.event in ERRORS:
            self._log.error(report.event, **report.fields)
        elif report.event in WARNINGS:
            self._log.warning(report.event, **report.fields)
        else:
            self._log.info(report.event, **report.fields)

    def _snapshot(self) -> bytes:
        return self._statistics.snapshot().model_dump_json().encode()

    # --- the process --------------------------------------------------------------------------------------------------

    def _on_termination(self) -> None:
        self._termination.drain()
        if self._drain_until is None:
            self._drain_until = clock.now() + DRAIN_S
            self._perform(self._core.on_drain())

    def _look_after_itself(self, now: float) -> None:
        self._segments.let_go()
        if now - self._memory_checked_at > MEMORY_CHECK_S:
            self._memory_checked_at = now
            if self._resources.is_over(resident_bytes()):
                trim_memory()  # much of it may be free, and only needs to go back to the kernel
                self._resources.require_memory(resident_bytes())
        if now - self._sockets_checked_at > SOCKET_CHECK_S:
            self._sockets_checked_at = now
            self._check_sockets()
            self._perform(self._resources.on_files(open_files()))
            if self._resources.has_grown(resident_bytes()):
                trim_memory()

    def _check_sockets(self) -> None:
        for path, inode in self._bound.items():
            with suppress(FileNotFoundError):
                if path.stat().st_ino == inode:
                    continue
            raise SocketLostError(f"{path} was removed or replaced by somebody; was the run directory cleaned?")


def _local_pid(source: zmq.Frame | None, told_pid: int) -> int | None:
    """The sender's process as the kernel knows it; None if the sender says that it is another process.

    libzmq knows a connection by the number of its descriptor. When the sender is gone, that number may belong to
    another connection. The process behind that one must not be taken for a worker, and killed for its silence.
    """
    pid = sender_pid(source)
    return pid if pid is not None and (pid == told_pid or own_pid(pid) == told_pid) else None


def _inodes(endpoints: Iterable[str]) -> dict[Path, int]:
    paths = [path for path in map(socket_path, endpoints) if path is not None]
    return {path: path.stat().st_ino for path in paths}
