"""The worker's main thread: the data socket, the clock and the transform around the core that decides."""

import contextvars
import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from math import ceil
from typing import assert_never

import zmq

from racepool.protocol import VERSION, clock
from racepool.protocol.exits import Exit as ExitCode
from racepool.protocol.frames import TO_WORKER, BadFrameError, decode, encode
from racepool.protocol.logs import Log, Outlet
from racepool.protocol.messages import Assign, FromWorker, Id, Name, Outcome
from racepool.protocol.processes import end_forks_with_this_process, resident_bytes
from racepool.protocol.settings import MAX_SECONDS
from racepool.protocol.shared_memory import SegmentReader, UnreadableError
from racepool.protocol.signals import Termination
from racepool.protocol.sockets import Context, PeerKeys, Socket, dealer, receive, say
from racepool.worker.core import Action, Execute, Exit, Identity, OpenSession, Report, Send, WorkerCore
from racepool.worker.execution import Execution, Transform
from racepool.worker.pulse import MainThread, Pulse
from racepool.worker.settings import WorkerSettings
from racepool.worker.surroundings import LostDescriptorsError, SpoiledError, Surroundings

LINGER_MS = 1_000
MAX_SLEEP_S = 1.0
EXIT_S = 2.0  # how long threads and exit handlers of a transform may hold up the end


class Runner:
    """One worker, from its first READY to its BYE. `run` returns after SIGTERM, SIGINT or recycling."""

    def __init__(
        self, settings: WorkerSettings, transform: Transform, log: Log, outlet: Outlet, keys: PeerKeys | None = None
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._log = log
        self._outlet = outlet
        self._context: Context = zmq.Context()
        identity = Identity(Name(settings.name), os.getpid(), Name(VERSION), round(time.time() * 1000))
        self._core = WorkerCore(
            identity, lambda: Id(os.urandom(16)), liveness_s=settings.liveness, max_tasks=settings.max_tasks_per_worker
        )
        self._execution = Execution(transform)
        self._segments = SegmentReader()
        self._socket: Socket | None = None
        self._termination = Termination()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        main = MainThread(
            lambda: os.eventfd_write(self._wake, 1),
            outlet.flush_if_due,  # a long task must not hold back the log lines of the task before
            lambda: self._termination.is_asked,
        )
        self._pulse = Pulse(self._context, settings, self._core, main, keys)
        self._poller = zmq.Poller()
        self._poller.register(self._termination, zmq.POLLIN)
        self._poller.register(self._wake, zmq.POLLIN)
        self._has_left = False
        self._surroundings = Surroundings(self._termination)
        end_forks_with_this_process()

    def run(self) -> None:
        """Works until a signal or the broker ends it."""
        settings = self._settings
        self._log.info("worker_started", pid=os.getpid(), backend=settings.backend, transform=settings.transform)
        self._perform(self._core.start(clock.now()))
        self._pulse.start()
        while not self._has_left:
            self._turn()
        self._pulse.stop()
        self._context.term()
        signal.setitimer(signal.ITIMER_REAL, EXIT_S)  # a thread that a transform left would hold up the exit for ever
        self._log.info("worker_stopped", pid=os.getpid(), tasks_done=self._core.tasks_done)

    def _turn(self) -> None:
        until_check_s = self._core.next_check() - clock.now()
        asleep_s = max(0.0, min(until_check_s, self._outlet.patience_s, MAX_SLEEP_S))
        ready = dict(self._poller.poll(ceil(asleep_s * 1000)))
        self._outlet.flush_if_due()
        self._segments.let_go()
        if self._wake in ready:
            os.eventfd_read(self._wake)
        if self._termination.fileno() in ready:
            self._termination.drain()
        self._check_session()
        if self._socket in ready:
            self._work()
        self._perform(self._core.on_tick(clock.now()))

    def _work(self) -> None:
        """Does all tasks that are there. Receives all messages before each one: it may have been recalled."""
        while not self._has_left:
            self._receive()
            begun = self._core.begin()
            if not begun:
                return
            self._perform(begun)
            self._outlet.flush_if_due()
            self._segments.let_go()

    def _check_session(self) -> None:
        """Acts on what the heartbeat thread and the signals have reported: a lost session, a request to end."""
        if self._pulse.lost == self._core.session.id:
            self._perform(self._core.on_session_lost(self._core.session.id, clock.now()))
        if self._termination.is_asked and not self._core.is_leaving:
            self._perform(self._core.on_terminate())

    def _receive(self) -> None:
        """Receives all messages that are there."""
        while self._socket is not None and not self._has_left and (frames := receive(self._socket)) is not None:
            try:
                message = decode(frames, TO_WORKER)
            except BadFrameError as error:
                self._log.warning("bad_frame", reason=str(error))
                continue
            self._perform(self._core.on_message(message, clock.now()))

    def _perform(self, actions: Iterable[Action]) -> None:
        for action in actions:
            if self._has_left:
                return
            match action:
                case OpenSession(ready):
                    self._replace_socket()
                    self._say(ready)
                case Send(message):
                    self._say(message)
                case Execute(task):
                    self._execute(task)
                case Exit():
                    self._leave()
                case Report(event):
                    self._log.info(event)
                case _:
                    assert_never(action)

    def _execute(self, task: Assign) -> None:
        """Runs the transform under a kernel timer: no thread could end a C call that holds the GIL.

        The log line comes last, because the client waits for the result.
        """
        started_at = clock.now()
        run_timeout_s = min(task.run_timeout_ms / 1000, MAX_SECONDS)  # a client may send any number
        signal.setitimer(signal.ITIMER_REAL, run_timeout_s + self._settings.liveness)
        outcome, payload = self._outcome_of(task, min(self._core.payload_limit, self._settings.payload_limit))
        is_spoiled = self._is_spoiled()
        self._check_session()  # before the result: it may be stale, or the last one
        now = clock.now()
        limit = self._settings.worker_memory_limit
        wants_recycling = is_spoiled or (bool(limit) and resident_bytes() > limit)
        self._perform(self._core.on_finished(outcome, payload, now, wants_recycling=wants_recycling))
        self._log.info(
            "task_executed",
            task_id=task.task_id.hex(),
            attempt=task.attempt,
            race_id=self._execution.race_id,
            outcome=outcome.value,
            duration_ms=round((now - started_at) * 1000, 3),
        )

    def _outcome_of(self, task: Assign, limit_bytes: int) -> tuple[Outcome, bytes]:
        try:
            request = self._segments.read(task.payload, task.task_id, limit_bytes) if task.is_shared else task.payload
        except UnreadableError as error:
            self._log.info("payload_unreadable", task_id=task.task_id.hex(), reason=str(error))
            return Outcome.UNREADABLE, b""
        return contextvars.copy_context().run(self._execution.run, request, limit_bytes)

    def _is_spoiled(self) -> bool:
        """Puts back what the task has changed. True if this worker must be replaced after the result.

        Without its descriptors it cannot even say goodbye, and ends here.
        """
        try:
            self._surroundings.put_back()
        except LostDescriptorsError as error:
            self._log.error("worker_spoiled", race_id=self._execution.race_id, reason=str(error))
            self._outlet.flush()
            os._exit(ExitCode.FAILURE)
        except SpoiledError as error:
            self._log.warning("worker_spoiled", race_id=self._execution.race_id, reason=str(error))
            return True
        return False

    def _say(self, message: FromWorker) -> None:
        if self._socket is not None:
            say(self._socket, encode(message))

    def _replace_socket(self) -> None:
        if self._socket is not None:
            self._poller.unregister(self._socket)
            self._socket.close(linger=0)
            self._socket = None
        with suppress(FileNotFoundError):  # the broker will make its directory again; the core repeats the READY
            self._socket = dealer(self._context, self._settings.backend, self._keys)
            self._poller.register(self._socket, zmq.POLLIN)

    def _leave(self) -> None:
        self._has_left = True
        if self._socket is not None:
            self._socket.close(linger=LINGER_MS)
