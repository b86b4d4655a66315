"""The pool's I/O thread: the socket, the clock and the futures around the core that decides."""

import atexit
import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from math import ceil
from typing import Any, assert_never

import zmq

from racepool.client.actions import (
    Action,
    Deliver,
    DeliverStats,
    Fail,
    FailStats,
    Log,
    OpenSession,
    Send,
    SendTask,
)
from racepool.client.answers import label, result_of, stats_of, timing_of
from racepool.client.core import STATS, ClientCore, Identity, Limits
from racepool.client.future import PoolFuture
from racepool.client.greenlets import Deliveries, RealThread, in_use
from racepool.client.task import ClientTask
from racepool.client.timing import TaskTiming
from racepool.protocol import clock
from racepool.protocol.endpoints import is_tcp
from racepool.protocol.errors import BacklogFullError, PoolBrokenError, PoolClosedError, PoolError, SettingsError
from racepool.protocol.frames import TO_CLIENT, BadFrameError, ForeignVersionError, decode, encode
from racepool.protocol.keys import Role, peer_keys
from racepool.protocol.messages import Id, Payload, Submit
from racepool.protocol.parcel import Parcel
from racepool.protocol.settings import Settings
from racepool.protocol.shared_memory import SHARE_FROM_BYTES, Segment
from racepool.protocol.sockets import Context, Socket, dealer, destroy, receive, say
from racepool.protocol.stats import PoolStats

MESSAGES_PER_TURN = 64
MAX_SLEEP_S = 1.0
FAREWELL_LINGER_MS = 100  # how long the last messages may take to go out
EXIT_S = 2.0  # how long the interpreter's exit waits for all I/O threads

_log = logging.getLogger("racepool")
_engines: "weakref.WeakSet[Engine]" = weakref.WeakSet()
"""All engines, also those whose pool nobody holds any more: their futures live on."""


class Engine:
    """One client of the broker: a thread that owns the socket, and the futures of all unresolved tasks.

    Other threads only append to `_inbox` and wake the thread. After `close`, the thread ends when nothing is
    unresolved; after `stop`, at once. If it dies of an error, all futures fail with PoolBrokenError.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.pid = os.getpid()
        self.cause_of_death: BaseException | None = None
        self._keys = peer_keys(settings, Role.CLIENT, settings.endpoint)
        limits = Limits(settings.heartbeat_interval, settings.liveness, settings.connect_timeout)
        remedy = settings.remedy(settings.endpoint)
        self._segment = None if is_tcp(settings.endpoint) else Segment.made()
        segment = (0, 0) if self._segment is None else self._segment.name
        self._core = ClientCore(
            Identity(Id(os.urandom(16)), self.pid, segment),
            settings.endpoint,
            limits,
            remedy,
            least=2 * settings.workers,
        )
        self._unresolved: dict[Id, tuple[ClientTask, PoolFuture[Any]]] = {}
        self._asking: deque[PoolFuture[PoolStats]] = deque()
        self._inbox: deque[Callable[[float], list[Action]]] = deque()  # each is called with the time
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        weakref.finalize(self, os.close, self._wake).atexit = False  # not at the thread's end: others may still write
        self._is_awake = False  # True: the thread will look into the inbox without another wake-up
        self._is_closing = False
        self._is_stopping = False
        self._has_ended = False
        self._resolving: tuple[ClientTask, PoolFuture[Any]] | None = None  # just taken out of `_unresolved`
        self._socket: Socket | None = None
        self._context: Context = zmq.Context()
        self._poller = zmq.Poller()
        self._poller.register(self._wake, zmq.POLLIN)
        self._deliveries: Deliveries | None = None  # under gevent and eventlet only
        self._thread = self._started()
        _engines.add(self)

    # --- from any thread ----------------------------------------------------------------------------------------------

    @property
    def unresolved(self) -> int:
        """How many tasks have no answer yet."""
        return len(self._unresolved)

    def require_room(self) -> None:
        """Raises BacklogFullError if this client already holds as many tasks as it may."""
        limit = self.settings.max_in_flight
        if self.unresolved >= limit:
            of = "unresolved tasks (RACEPOOL_MAX_IN_FLIGHT)"
            raise BacklogFullError("this pool holds all it may", self.unresolved, limit, of=of)

    def submit(
        self, parcel: Parcel, queue_timeout_s: float, run_timeout_s: float, task_id: Id | None = None
    ) -> PoolFuture[Any]:
        """Gives a packed race to the thread. With `task_id`, an ended task is submitted again under its old id."""
        task_id = task_id or Id(os.urandom(16))
        now = clock.now()
        task = ClientTask(task_id, parcel, max(1, round(run_timeout_s * 1000)), queue_timeout_s, now, now)
        future: PoolFuture[Any] = PoolFuture(self._withdrawer(task_id), task_id=task_id.hex())
        if self._is_too_late():
            return future
        self._unresolved[task_id] = (task, future)
        self._expect_delivery()
        self._post(lambda now: self._core.on_submit(task, now))
        if self._has_ended:  # since the caller checked
            self._fail_all()
        return future

    def ask_stats(self) -> PoolFuture[PoolStats]:
        """Asks the broker for its stats."""
        future: PoolFuture[PoolStats] = PoolFuture()
        if self._is_too_late():
            return future
        self._asking.append(future)
        self._expect_delivery()
        self._post(self._core.on_ask_stats)
        if self._has_ended:
            self._fail_all()
        return future

    def cancel_all(self) -> None:
        """Cancels every unresolved future, the last one first: no held task is submitted only to be withdrawn."""
        for _, future in reversed(list(self._unresolved.values())):
            future.cancel()

    def close(self) -> None:
        """Ends the thread when nothing is unresolved any more. Returns at once."""
        self._is_closing = True
        self._post(lambda _now: [])

    def stop(self) -> None:
        """Ends the thread at the interpreter's exit. Unresolved futures fail, but no callback is called."""
        self._is_stopping = True
        self._post(lambda _now: [])

    def join(self, timeout_s: float | None = None) -> None:
        """Waits for the thread's end."""
        if self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def _started(self) -> threading.Thread | RealThread:
        """The I/O thread: a real one, also where `threading` would make a greenlet."""
        greenlets = in_use()
        if greenlets is not None:
            return RealThread(greenlets, self._run)
        thread = threading.Thread(target=self._run, name="racepool-client", daemon=True)
        thread.start()
        return thread

    def fail_in_child(self) -> None:
        """In a forked child: fails all futures, because the thread, the socket and the answers are the parent's."""
        for task, future in [*self._unresolved.values(), *filter(None, [self._resolving])]:
            future.fail_in_child(label(task))
        self._unresolved = {}
        self._close_segment()

    def _is_too_late(self) -> bool:
        """Whether a daemon thread asks at the interpreter's exit: it would only print an error while it dies."""
        return self._is_stopping and threading.current_thread().daemon

    def _withdrawer(self, task_id: Id) -> Callable[[bool], None]:
        """What a cancelled future calls. It holds the engine weakly: the future must not keep its eventfd open."""
        engine = weakref.ref(self)

        def withdraw(kill: bool) -> None:  # noqa: FBT001  # PoolFuture's contract
            alive = engine()
            if alive is not None:
                alive._post(lambda _now: alive._withdraw(task_id, kill=kill))  # noqa: SLF001

        return withdraw

    def _expect_delivery(self) -> None:
        """Under gevent and eventlet: makes sure that a greenlet waits for what the thread resolves."""
        if self._deliveries is None:
            greenlets = in_use()
            if greenlets is None:
                return
            self._deliveries = Deliveries(greenlets)
        self._deliveries.expect()

    def _hand_out(self, call: Callable[[], None]) -> None:
        """From the thread: resolves a future, in a greenlet if need be."""
        if self._deliveries is None:
            call()
        else:
            self._deliveries.put(call)

    def _post(self, event: Callable[[float], list[Action]]) -> None:
        self._inbox.append(event)
        if not self._is_awake:
            self._is_awake = True
            os.eventfd_write(self._wake, 1)

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._perform(self._core.start(clock.now()))
            self._serve()
            self._perform(self._core.farewell())
        except BaseException as error:  # noqa: BLE001  # every error: otherwise callers would wait for ever
            self.cause_of_death = error
        finally:
            self._has_ended = True
            self._fail_all()
            destroy(self._context, FAREWELL_LINGER_MS)
            self._close_segment()

    def _serve(self) -> None:
        woke_at = clock.now()
        while not self._is_over():
            asleep_s = max(0.0, min(self._core.next_check() - clock.now(), MAX_SLEEP_S))
            if dict(self._poller.poll(ceil(asleep_s * 1000))).get(self._wake):
                os.eventfd_read(self._wake)
            self._is_awake = False
            while self._inbox:
                self._perform(self._inbox.popleft()(clock.now()))
            is_drained = self._receive()
            now = clock.now()
            if now - woke_at - asleep_s > self.settings.liveness / 2:
                self._core.on_pause(now)
            woke_at = now
            if is_drained:
                self._perform(self._core.on_tick(now))

    def _is_over(self) -> bool:
        return self._is_stopping or (self._is_closing and not self._unresolved and not self._inbox)

    def _receive(self) -> bool:
        """Receives up to MESSAGES_PER_TURN messages, so that submissions get their turn. True if none is left."""
        for _ in range(MESSAGES_PER_TURN):
            frames = receive(self._socket) if self._socket is not None else None
            if frames is None:
                return True
            try:
                message = decode(frames, TO_CLIENT)
            except ForeignVersionError as error:
                self._perform(self._core.on_foreign_version(error.version))
            except BadFrameError:
                continue  # no racepool broker sends this
            else:
                self._perform(self._core.on_message(message, clock.now()))
        return False

    def _perform(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Send(message):
                    self._send(encode(message))
                case SendTask():
                    self._send(encode(self._submit_of(action)))
                case Deliver(task, answer, trouble):
                    self._resolve(task.id, *result_of(answer, task, trouble), timing_of(answer))
                case Fail(task, error, timing):
                    self._resolve(task.id, None, error(label(task)), timing)
                case OpenSession(hello):
                    self._replace_socket()
                    self._send(encode(hello))
                case DeliverStats(payload):
                    self._answer_stats(*stats_of(payload))
                case FailStats(failure):
                    self._answer_stats(None, failure)
                case Log(text, is_warning):
                    _log.log(logging.WARNING if is_warning else logging.INFO, text)
                case _:
                    assert_never(action)

    def _submit_of(self, action: SendTask) -> Submit:
        task, reference = action.task, None
        if action.can_share and self._segment is not None and len(task.parcel.body) >= SHARE_FROM_BYTES:
            reference = self._segment.reference(task.id, task.parcel)
        payload = task.parcel.payload() if reference is None else reference.packed()
        is_shared = reference is not None
        return Submit(task.id, task.run_timeout_ms, action.waited_ms, action.again, is_shared, payload)

    def _send(self, frames: list[Payload]) -> None:
        if self._socket is not None:
            say(self._socket, frames)

    def _replace_socket(self) -> None:
        if self._socket is not None:
            self._poller.unregister(self._socket)
            self._socket.close(linger=0)
            self._socket = None
        try:
            self._socket = dealer(self._context, self.settings.endpoint, self._keys)
        except FileNotFoundError:
            return  # the broker will make its directory again; the core soon opens the next session
        except SettingsError as error:
            _log.warning("racepool: %s", error)
            return
        self._poller.register(self._socket, zmq.POLLIN)

    def _resolve(
        self, task_id: Id, result: object, error: BaseException | None, timing: TaskTiming | None = None
    ) -> None:
        if self._segment is not None:
            self._segment.free(task_id)
        entry = self._unresolved.get(task_id)
        self._resolving = entry  # `fail_in_child` must find it if a fork happens here
        self._unresolved.pop(task_id, None)
        if entry is not None:
            self._hand_out(partial(entry[1].resolve, result, error, timing))
        self._resolving = None

    def _withdraw(self, task_id: Id, *, kill: bool) -> list[Action]:
        self._resolve(task_id, None, None)
        return self._core.on_withdraw(task_id, kill=kill)

    def _close_segment(self) -> None:
        segment, self._segment = self._segment, None
        if segment is not None:
            segment.close()

    def _answer_stats(self, stats: PoolStats | None, error: PoolError | None) -> None:
        for _ in range(len(self._asking)):  # not those that ask from now on: they want newer stats
            with suppress(IndexError):  # another thread has taken it
                self._hand_out(partial(self._asking.popleft().resolve, stats, error))

    def _fail_all(self) -> None:
        """Fails everything that is unresolved: the thread has ended. Several threads may call this at once."""
        while self._unresolved:
            with suppress(KeyError):
                _, (task, future) = self._unresolved.popitem()
                self._fail(future, self._end(label(task)))
        while self._asking:
            with suppress(IndexError):
                self._fail(self._asking.popleft(), self._end(STATS))

    def _fail(self, future: PoolFuture[Any], error: PoolError) -> None:
        if self._is_stopping:  # only daemon threads still wait, and they would print the error while they die
            future.fail_at_exit(error)
        else:
            self._hand_out(partial(future.resolve, None, error))

    def _end(self, about: str) -> PoolError:
        if self.cause_of_death is None:
            return PoolClosedError(f"{about}: the pool was shut down before the answer came; submit it to a new pool")
        return broken(self.cause_of_death, f"{about}: ")


def started(settings: Settings) -> Engine:
    """Starts an engine.

    Raises:
        SettingsError: the keys cannot be used.
        PoolBrokenError: no thread or file descriptor is left.
    """
    try:
        return Engine(settings)
    except (OSError, RuntimeError, zmq.ZMQError) as error:
        what = f"the pool's I/O thread cannot start: {error!r}"
        raise PoolBrokenError(f"{what}; free threads or file descriptors, and try again") from error


def broken(cause: BaseException, about: str = "") -> PoolBrokenError:
    """The error of a pool whose I/O thread died."""
    remedy = "make a new pool (for the application-wide `pool`: restart the program)"
    error = PoolBrokenError(f"{about}the pool's I/O thread died of {cause!r}; {remedy}")
    error.__cause__ = cause
    return error


def _fail_all_in_child() -> None:
    for engine in list(_engines):
        engine.fail_in_child()
    _engines.clear()


def _stop_all() -> None:
    deadline = clock.now() + EXIT_S
    alive = list(_engines)
    with suppress(KeyboardInterrupt):  # a second Ctrl-C: the program already ends because of the first
        for engine in alive:
            engine.stop()
        for engine in alive:
            engine.join(max(0.0, deadline - clock.now()))


os.register_at_fork(after_in_child=_fail_all_in_child)
atexit.register(_stop_all)
