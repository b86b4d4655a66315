"""The pool as a service sees it: `ZmqPool`, and `pool`, the one instance of an application."""

import asyncio
import os
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from math import inf
from pathlib import Path
from types import TracebackType
from typing import Self

from racepool.client.answers import race_of
from racepool.client.engine import Engine, broken, started
from racepool.client.future import PoolFuture, failed
from racepool.client.iteration import (
    Races,
    as_they_come,
    as_they_come_async,
    completed,
    completed_async,
    in_order,
    in_order_async,
)
from racepool.client.readiness import Readiness
from racepool.client.stream import Stream
from racepool.protocol.errors import (
    BrokerUnavailableError,
    InvalidRaceError,
    PayloadTooLargeError,
    PoolClosedError,
    SettingsError,
)
from racepool.protocol.parcel import Parcel
from racepool.protocol.settings import MAX_SECONDS, Settings
from racepool.protocol.stats import PoolStats
from racepool.races.payloads import pack_request
from racepool.races.race import RaceInput
from racepool.races.transformed_race import Previous, PreviousAmounts, TransformedRace

POLL_S = 0.05

_pools: "weakref.WeakSet[ZmqPool]" = weakref.WeakSet()


class ZmqPool:
    """A client of the racepool broker. Thread-safe, usable from any event loop and from none, and after a fork.

    It connects at the first call, with one I/O thread of its own. Used as a temporary, `ZmqPool().exec(race)`, it lives
    until its future resolves. `with ZmqPool() as p:` and `async with` shut it down at the end.

    Args:
        endpoint: the broker's address for clients, None = RACEPOOL_ENDPOINT.
        connect_timeout_s: how long to try to reach a first broker, in seconds, None = RACEPOOL_CONNECT_TIMEOUT.
        max_in_flight: unresolved tasks that this pool holds at most, None = RACEPOOL_MAX_IN_FLIGHT.
        curve: the key directory for a tcp endpoint, None = RACEPOOL_KEYS; over ipc none is needed.

    Example:
        >>> result = await ZmqPool().exec(body)  # doctest: +SKIP
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        connect_timeout_s: float | None = None,
        max_in_flight: int | None = None,
        curve: Path | str | None = None,
    ) -> None:
        given = {
            "endpoint": endpoint,
            "connect_timeout": connect_timeout_s,
            "max_in_flight": max_in_flight,
            "keys": curve,
        }
        self._settings: Callable[[], Settings] = partial(
            Settings.load, **{name: value for name, value in given.items() if value is not None}
        )
        self._engine: Engine | None = None
        self._is_shut_down = False
        self._lock = threading.Lock()
        _pools.add(self)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """A pool with these very settings, whatever the environment says."""
        made = cls()
        made._settings = lambda: settings
        return made

    def __repr__(self) -> str:
        if self._is_shut_down:
            return "<ZmqPool shut down>"
        if self._engine is None:
            return "<ZmqPool not connected yet>"
        return f"<ZmqPool {self._engine.settings.endpoint} unresolved={self._engine.unresolved}>"

    def exec(
        self,
        race: RaceInput,
        *,
        polled_at: datetime | None = None,
        previous: Previous = None,
        queue_timeout_s: float | None = None,
        run_timeout_s: float | None = None,
    ) -> PoolFuture[TransformedRace]:
        """Has a worker transform one poll of a race. Returns at once.

        Args:
            race: the HTTP body as `bytes` or `str` exactly as fetched (then nothing is parsed in this process), a
                mapping, or `RaceData`.
            polled_at: when the race was polled, timezone-aware; None = now.
            previous: the last poll's TransformedRace of the same race, or its records, for the increments.
            queue_timeout_s: total time of waiting over all attempts, in seconds; None = RACEPOOL_QUEUE_TIMEOUT.
            run_timeout_s: time of one attempt in the worker, in seconds; None = RACEPOOL_RUN_TIMEOUT.

        Returns:
            A future of the TransformedRace, or of what another RACEPOOL_TRANSFORM returns. It fails with a PoolError.

        Raises:
            InvalidRaceError: the race cannot be packed, or `polled_at` or `previous` breaks its rule.
            PayloadTooLargeError: it is larger than RACEPOOL_PAYLOAD_LIMIT.
            BacklogFullError: this pool already holds `max_in_flight` unresolved tasks.
            PoolClosedError: the pool was shut down.
            PoolBrokenError: the pool's I/O thread died, or cannot start.
            ValueError: a timeout is not a positive number.
        """
        try:
            engine = self._connected()
        except SettingsError as error:
            return failed(error)
        settings = engine.settings
        queue_timeout_s = _checked("queue_timeout_s", queue_timeout_s, settings.queue_timeout)
        run_timeout_s = _checked("run_timeout_s", run_timeout_s, settings.run_timeout)
        engine.require_room()
        parcel = _packed(race, polled_at or datetime.now(UTC), previous, settings)
        return engine.submit(parcel, queue_timeout_s, run_timeout_s)

    def map(self, races: Iterable[RaceInput], *, timeout: float | None = None) -> Iterator[TransformedRace]:
        """The results in the order of the input, as `Executor.map`; but lazily, in bounded memory.

        Races are taken from the input as results are consumed, so it may be endless; nothing is submitted before the
        first `next()`. Where the backlog is full it waits, and submits again. A race's queue timeout does not count
        while others of this map are being answered. What is unresolved when the iteration ends is cancelled.

        Args:
            races: each as for `exec`; polled when it is taken.
            timeout: of the whole iteration, in seconds from this call; None = no limit.

        Raises:
            TimeoutError: while iterating, when the next result is not there in time.
            PoolError: while iterating, in place of the result of a race that failed; that ends the iteration.
            PoolClosedError, PoolBrokenError, SettingsError: as for `exec`.
        """
        stream = self._stream()
        return in_order(stream, completed(stream, races, _deadline(timeout)))

    def map_async(self, races: Races, *, timeout: float | None = None) -> AsyncIterator[TransformedRace]:
        """As `map`, for `async for` in an event loop; `races` may be an asynchronous iterable, too."""
        stream = self._stream()
        return in_order_async(stream, completed_async(stream, races, _deadline(timeout)))

    def as_completed(self, races: Iterable[RaceInput]) -> Iterator[tuple[int, PoolFuture[TransformedRace]]]:
        """Each race's index in the input, and its future, as they finish. Lazy, bounded and patient as `map`.

        No race ends the iteration: one that cannot even be packed comes as a future that failed.

        Args:
            races: each as for `exec`; polled when it is taken.

        Raises:
            PoolClosedError, PoolBrokenError, SettingsError: as for `exec`.

        Example:
            >>> for index, future in pool.as_completed(bodies):  # doctest: +SKIP
            ...     print(index, future.exception() or future.result().race_id)
        """
        stream = self._stream()
        return as_they_come(stream, completed(stream, races))

    def as_completed_async(self, races: Races) -> AsyncIterator[tuple[int, PoolFuture[TransformedRace]]]:
        """As `as_completed`, for `async for` in an event loop; `races` may be an asynchronous iterable, too."""
        stream = self._stream()
        return as_they_come_async(stream, completed_async(stream, races))

    def stats(self) -> PoolStats:
        """The broker's figures of this moment.

        Raises:
            BrokerUnavailableError: no broker answered within the connect timeout.
            SettingsError, PoolClosedError, PoolBrokenError: as for `exec`.
        """
        return self._connected().ask_stats().result()

    async def stats_async(self) -> PoolStats:
        """As `stats`, for an event loop."""
        return await self._connected().ask_stats()

    def wait_for_workers(self, n: int | None = None, timeout_s: float | None = None) -> None:
        """Returns when workers are ready; an `exec` right after it finds one. For application start-up.

        Args:
            n: how many workers; None = as many as the broker expects (RACEPOOL_WORKERS).
            timeout_s: how long to wait, in seconds; None = the connect timeout.

        Raises:
            BrokerUnavailableError: there was no broker, or too few workers, when the time was up.
        """
        deadline, remedy, readiness = self._deadline(timeout_s), self._remedy(), Readiness(n)
        while not readiness.is_reached(self._stats_by(deadline)):
            if time.monotonic() >= deadline:
                raise _too_few(readiness, remedy)
            time.sleep(POLL_S)

    async def wait_for_workers_async(self, n: int | None = None, timeout_s: float | None = None) -> None:
        """As `wait_for_workers`, for an event loop."""
        deadline, remedy, readiness = self._deadline(timeout_s), self._remedy(), Readiness(n)
        while not readiness.is_reached(await self._stats_by_async(deadline)):
            if time.monotonic() >= deadline:
                raise _too_few(readiness, remedy)
            await asyncio.sleep(POLL_S)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002  # as Executor
        """Takes no more tasks, and ends the I/O thread when all are resolved. May be called again.

        Args:
            wait: return only when all futures are resolved and the thread has ended.
            cancel_futures: cancel all that are unresolved.
        """
        with self._lock:
            self._is_shut_down = True
            engine = self._engine
        if engine is None or engine.pid != os.getpid():
            return
        if cancel_futures:
            engine.cancel_all()
        engine.close()
        if wait:
            engine.join()

    async def aclose(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002  # twin
        """As `shutdown`, for an event loop."""
        closed: PoolFuture[None] = PoolFuture()

        def close() -> None:
            try:
                self.shutdown(wait, cancel_futures=cancel_futures)
            except BaseException as error:  # noqa: BLE001  # whatever it is, its caller waits for it
                closed.resolve(None, error)
            else:
                closed.resolve(None, None)

        # not in the loop's executor: the end of a loop waits for that, also after a Ctrl-C
        threading.Thread(target=close, name="racepool-close", daemon=True).start()
        await closed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown(cancel_futures=error is not None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose(cancel_futures=error is not None)

    # --- the engine ---------------------------------------------------------------------------------------------------

    def _connected(self) -> Engine:
        engine = self._engine
        if engine is None or engine.pid != os.getpid() or self._is_shut_down:
            engine = self._connect()
        if engine.cause_of_death is not None:
            raise broken(engine.cause_of_death)
        return engine

    def _connect(self) -> Engine:
        with self._lock:
            if self._is_shut_down:
                raise PoolClosedError("this pool was shut down; make a new one")
            if self._engine is None or self._engine.pid != os.getpid():
                settings = self._settings()
                settings.guard(settings.endpoint)
                self._engine = started(settings)
                weakref.finalize(self, self._engine.close).atexit = False
            return self._engine

    def _after_fork(self) -> None:
        """In the child: the parent's thread and socket are not ours, and its lock may be held by no one."""
        self._lock = threading.Lock()
        self._engine = None

    def _stream(self) -> Stream:
        settings = self._connected().settings

        def submit(parcel: Parcel) -> PoolFuture[TransformedRace]:
            engine = self._connected()
            engine.require_room()
            return engine.submit(parcel, settings.queue_timeout, settings.run_timeout)

        return Stream(
            lambda race: _packed(race, datetime.now(UTC), None, settings),
            submit,
            start=2 * settings.workers,
            least=2 * settings.workers,
            patience_s=settings.queue_timeout / 4,
        )

    # --- waiting for workers ------------------------------------------------------------------------------------------

    def _deadline(self, timeout_s: float | None) -> float:
        return time.monotonic() + (self._connected().settings.connect_timeout if timeout_s is None else timeout_s)

    def _remedy(self) -> str:
        settings = self._connected().settings
        return settings.remedy(settings.endpoint)

    def _stats_by(self, deadline: float) -> PoolStats | None:
        asked = self._connected().ask_stats()
        with suppress(TimeoutError, BrokerUnavailableError):  # the connect timeout may be shorter than ours
            return asked.result(max(0.0, deadline - time.monotonic()))
        return None

    async def _stats_by_async(self, deadline: float) -> PoolStats | None:
        with suppress(TimeoutError, BrokerUnavailableError):
            return await asyncio.wait_for(self._connected().ask_stats(), deadline - time.monotonic())
        return None


pool = ZmqPool()
"""The application-wide instance. It connects at its first use, anew after a fork."""


def _packed(race: RaceInput, polled_at: datetime, previous: Previous, settings: Settings) -> Parcel:
    try:
        amounts = None if previous is None else PreviousAmounts.of(previous)
        parcel = pack_request(race, polled_at, amounts)
    except InvalidRaceError as error:
        raise InvalidRaceError(error.errors, about=f"the race{race_of(race)}") from None
    if parcel.size_bytes > settings.payload_limit:
        raise PayloadTooLargeError(f"the packed race{race_of(parcel)}", parcel.size_bytes, settings.payload_limit)
    return parcel


def _deadline(timeout_s: float | None) -> float:
    return inf if timeout_s is None else time.monotonic() + timeout_s


def _too_few(readiness: Readiness, remedy: str) -> BrokerUnavailableError:
    if readiness.shortage is None:
        return BrokerUnavailableError(f"no broker answered in time; {remedy}")
    return BrokerUnavailableError(f"{readiness.shortage} are ready; look at the workers' logs")


def _checked(name: str, timeout_s: float | None, default_s: float) -> float:
    if timeout_s is None:
        return default_s
    if not 0 < timeout_s <= MAX_SECONDS:  # false for nan, too
        raise ValueError(f"{name} must be a number of seconds, above 0 and at most {MAX_SECONDS}, not {timeout_s!r}")
    return timeout_s


def _after_fork() -> None:
    for one in list(_pools):
        one._after_fork()  # noqa: SLF001


os.register_at_fork(after_in_child=_after_fork)
