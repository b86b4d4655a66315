"""What a service imports: `ZmqPool`, and `pool`, the instance for the whole application."""

import asyncio
import os
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from math import inf
from pathlib import Path
from types import TracebackType
from typing import Self

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
from racepool.client.requests import checked_timeout, packed
from racepool.client.stream import Stream
from racepool.protocol import clock
from racepool.protocol.errors import BrokerUnavailableError, PoolClosedError, SettingsError
from racepool.protocol.parcel import Parcel
from racepool.protocol.settings import Settings
from racepool.protocol.stats import PoolStats
from racepool.races.previous_amounts import Previous
from racepool.races.race import RaceInput
from racepool.races.transformed_race import TransformedRace

POLL_S = 0.05

_pools: "weakref.WeakSet[ZmqPool]" = weakref.WeakSet()


class ZmqPool:
    """A client of the racepool broker.

    It works in threads, in any event loop, and in a forked child. The constructor does nothing else than keep its
    arguments; the first call connects, and starts one I/O thread. `with ZmqPool() as p:` and `async with` shut the pool
    down at the end. A pool that nobody holds, as in `ZmqPool().exec(race)`, lives until its futures resolve.

    Args:
        endpoint: the broker's address for clients, `ipc://PATH` or `tcp://HOST:PORT`. None = RACEPOOL_ENDPOINT.
        connect_timeout_s: how long to wait for a first broker, in seconds. None = RACEPOOL_CONNECT_TIMEOUT.
        max_in_flight: how many unresolved tasks this pool may hold. None = RACEPOOL_MAX_IN_FLIGHT.
        curve: the key directory for a tcp endpoint; ipc needs none. None = RACEPOOL_KEYS.

    Example:
        >>> async with ZmqPool() as pool:  # doctest: +SKIP
        ...     result = await pool.exec(body)
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
        """A pool with these settings; the environment is not read."""
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
        """Submits one poll of a race to a worker. Returns at once.

        Args:
            race: the HTTP body as `bytes` or `str` exactly as fetched (nothing is parsed in this process), or a
                mapping, or a `RaceData`.
            polled_at: when the race was polled, with a time zone. None = now.
            previous: the TransformedRace of the same race's last poll, or its records; makes the increments.
            queue_timeout_s: how long the task may wait, over all attempts, in seconds. None = RACEPOOL_QUEUE_TIMEOUT.
            run_timeout_s: how long one attempt may run, in seconds. None = RACEPOOL_RUN_TIMEOUT.

        Returns:
            The future of the TransformedRace, or of what another RACEPOOL_TRANSFORM returns. It fails with a PoolError;
            with a SettingsError if a setting breaks its rule.

        Raises:
            InvalidRaceError: the race cannot be packed, or `polled_at` or `previous` breaks its rule.
            PayloadTooLargeError: the packed race is larger than RACEPOOL_PAYLOAD_LIMIT.
            BacklogFullError: this pool already holds `max_in_flight` unresolved tasks.
            PoolClosedError: the pool was shut down.
            PoolBrokenError: the pool's I/O thread died, or cannot start.
            ValueError: a timeout is not a positive number, or too large.

        Example:
            >>> result = pool.exec(body, previous=last).result(timeout=10)  # doctest: +SKIP
        """
        try:
            engine = self._connected()
        except SettingsError as error:
            return failed(error)
        settings = engine.settings
        queue_timeout_s = checked_timeout("queue_timeout_s", queue_timeout_s, settings.queue_timeout)
        run_timeout_s = checked_timeout("run_timeout_s", run_timeout_s, settings.run_timeout)
        engine.require_room()
        polled_at = datetime.now(UTC) if polled_at is None else polled_at
        parcel = packed(race, polled_at, previous, settings.payload_limit)
        return engine.submit(parcel, queue_timeout_s, run_timeout_s)

    def map(self, races: Iterable[RaceInput], *, timeout: float | None = None) -> Iterator[TransformedRace]:
        """Transforms many races, as `Executor.map` does, but lazily and in bounded memory.

        It takes races from the input while the caller consumes results, so the input may be endless. The first `next()`
        submits the first race. When the backlog is full, it waits and submits again. A race does not run into its queue
        timeout while other races of this call are answered. When the iteration ends, unresolved races are cancelled.

        Args:
            races: each as for `exec`. A race is polled when it is taken.
            timeout: of the whole iteration, in seconds from this call. None = no limit.

        Returns:
            An iterator of the results, in the order of the input.

        Raises:
            PoolClosedError: at this call or later: the pool was shut down.
            PoolBrokenError: at this call or later: the pool's I/O thread died, or cannot start.
            SettingsError: at this call: a setting breaks its rule.
            TimeoutError: while iterating: the next result did not come in time.
            PoolError: while iterating: the next race failed. This ends the iteration.

        Example:
            >>> for result in pool.map(bodies):  # doctest: +SKIP
            ...     print(result.race_name)
        """
        stream = self._stream()
        return in_order(stream, completed(stream, races, _deadline(timeout)))

    def map_async(self, races: Races, *, timeout: float | None = None) -> AsyncIterator[TransformedRace]:
        """As `map`, for `async for` in an event loop. `races` may also be an asynchronous iterable."""
        stream = self._stream()
        return in_order_async(stream, completed_async(stream, races, _deadline(timeout)))

    def as_completed(self, races: Iterable[RaceInput]) -> Iterator[tuple[int, PoolFuture[TransformedRace]]]:
        """Transforms many races, and yields each one when it finishes. Lazy and in bounded memory, as `map`.

        A race that fails does not end the iteration, even if it cannot be packed: its future has the error.

        Args:
            races: each as for `exec`. A race is polled when it is taken.

        Returns:
            An iterator of (index, future): the race's place in the input, from 0, and its finished future.

        Raises:
            PoolClosedError, PoolBrokenError, SettingsError: as for `map`.

        Example:
            >>> for index, future in pool.as_completed(bodies):  # doctest: +SKIP
            ...     print(index, future.exception() or future.result().race_id)
        """
        stream = self._stream()
        return as_they_come(stream, completed(stream, races))

    def as_completed_async(self, races: Races) -> AsyncIterator[tuple[int, PoolFuture[TransformedRace]]]:
        """As `as_completed`, for `async for` in an event loop. `races` may also be an asynchronous iterable."""
        stream = self._stream()
        return as_they_come_async(stream, completed_async(stream, races))

    def stats(self) -> PoolStats:
        """Asks the broker for its stats. Blocks until they come.

        Raises:
            BrokerUnavailableError: no broker answered within the connect timeout.
            ProtocolMismatchError: the broker speaks another protocol version.
            PoolError: the stats cannot be read.
            PoolClosedError, PoolBrokenError, SettingsError: as for `map`.

        Example:
            >>> pool.stats().idle_workers  # doctest: +SKIP
            3
        """
        return self._connected().ask_stats().result()

    async def stats_async(self) -> PoolStats:
        """As `stats`, for an event loop."""
        return await self._connected().ask_stats()

    def wait_for_workers(self, n: int | None = None, timeout_s: float | None = None) -> None:
        """Blocks until workers are ready. For the start of an application: an `exec` after it finds a worker.

        Args:
            n: how many workers. None = as many as the broker expects (RACEPOOL_WORKERS).
            timeout_s: how long to wait, in seconds. None = the connect timeout.

        Raises:
            BrokerUnavailableError: no broker answered in time, or too few workers were ready. If a worker cannot start
                because of its set-up, this is raised at once, and says why.
            ProtocolMismatchError, PoolError, PoolClosedError, PoolBrokenError, SettingsError: as for `stats`.

        Example:
            >>> pool.wait_for_workers(timeout_s=10)  # doctest: +SKIP
        """
        deadline, remedy, readiness = self._deadline(timeout_s), self._remedy(), Readiness(n)
        while not readiness.is_reached(self._stats_by(deadline)):
            if readiness.obstacle or clock.now() >= deadline:
                raise _too_few(readiness, remedy)
            clock.sleep(POLL_S)

    async def wait_for_workers_async(self, n: int | None = None, timeout_s: float | None = None) -> None:
        """As `wait_for_workers`, for an event loop."""
        deadline, remedy, readiness = self._deadline(timeout_s), self._remedy(), Readiness(n)
        while not readiness.is_reached(await self._stats_by_async(deadline)):
            if readiness.obstacle or clock.now() >= deadline:
                raise _too_few(readiness, remedy)
            await asyncio.sleep(POLL_S)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002  # as Executor
        """Ends the pool: it takes no more tasks, and its I/O thread ends when all futures are resolved.

        Args:
            wait: block until all futures are resolved and the thread has ended.
            cancel_futures: cancel all unresolved futures.
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
            except BaseException as error:  # noqa: BLE001  # every error goes to the caller, who waits
                closed.resolve(None, error)
            else:
                closed.resolve(None, None)

        # no thread of the loop's executor: the end of a loop waits for those, also after Ctrl-C
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
        """In the child: the thread and the socket are the parent's, and a thread that is not here may hold the lock."""
        self._lock = threading.Lock()
        self._engine = None

    def _stream(self) -> Stream:
        settings = self._connected().settings

        def submit(parcel: Parcel) -> PoolFuture[TransformedRace]:
            engine = self._connected()
            engine.require_room()
            return engine.submit(parcel, settings.queue_timeout, settings.run_timeout)

        return Stream(
            lambda race: packed(race, datetime.now(UTC), None, settings.payload_limit),
            submit,
            start=2 * settings.workers,
            least=2 * settings.workers,
            prompt_s=settings.queue_timeout / 4,
        )

    # --- waiting for workers ------------------------------------------------------------------------------------------

    def _deadline(self, timeout_s: float | None) -> float:
        return clock.now() + (self._connected().settings.connect_timeout if timeout_s is None else timeout_s)

    def _remedy(self) -> str:
        settings = self._connected().settings
        return settings.remedy(settings.endpoint)

    def _stats_by(self, deadline: float) -> PoolStats | None:
        asked = self._connected().ask_stats()
        with suppress(TimeoutError, BrokerUnavailableError):  # the connect timeout may be shorter than ours
            return asked.result(max(0.0, deadline - clock.now()))
        return None

    async def _stats_by_async(self, deadline: float) -> PoolStats | None:
        with suppress(TimeoutError, BrokerUnavailableError):
            return await asyncio.wait_for(self._connected().ask_stats(), deadline - clock.now())
        return None


pool = ZmqPool()
"""The instance for the whole application. It connects at its first use; after a fork the child connects again."""


def _deadline(timeout_s: float | None) -> float:
    return inf if timeout_s is None else clock.now() + timeout_s


def _too_few(readiness: Readiness, remedy: str) -> BrokerUnavailableError:
    if readiness.shortage is None:
        return BrokerUnavailableError(f"no broker answered in time; {remedy}")
    why = readiness.obstacle or "look at the workers' logs"
    return BrokerUnavailableError(f"{readiness.shortage} are ready; {why}")


def _after_fork() -> None:
    for one in list(_pools):
        one._after_fork()  # noqa: SLF001


os.register_at_fork(after_in_child=_after_fork)
