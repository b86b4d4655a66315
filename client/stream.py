"""Many races through one pool: how many are on their way at once, and what is done where the backlog is full.

Knows no clock, thread or loop; racepool.client.iteration takes the races, waits and hands the results over.
"""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf
from typing import Any, TypeAlias

from racepool.client.future import PoolFuture, failed
from racepool.client.task import UNIT_BYTES
from racepool.client.window import WINDOW_UNITS
from racepool.protocol.errors import BacklogFullError, PoolError, TaskTimeoutError
from racepool.protocol.parcel import Parcel
from racepool.races.race import RaceInput

RETRY_S = 0.05
MAX_RETRY_S = 0.5


@dataclass(slots=True, eq=False)
class StreamTask:
    """One race of the stream, the `index`th. `parcel` is let go when it is answered."""

    index: int
    parcel: Parcel | None
    submitted_at: float = -inf
    future: PoolFuture[Any] | None = None

    @property
    def units(self) -> int:
        """Its share of the memory that the stream may take."""
        return 1 if self.parcel is None else 1 + self.parcel.size_bytes // UNIT_BYTES

    def __lt__(self, other: "StreamTask") -> bool:
        return self.index < other.index


@dataclass(frozen=True, slots=True)
class Take:
    """Take the next race from the input: `take` it, or `end_input`."""


@dataclass(frozen=True, slots=True)
class HandOver:
    """The next race that is finished."""

    task: StreamTask
    future: PoolFuture[Any]


@dataclass(frozen=True, slots=True)
class Wait:
    """Until `wake`, or until this instant."""

    until: float


@dataclass(frozen=True, slots=True)
class End:
    """All is handed over."""


Step: TypeAlias = Take | HandOver | Wait | End


class Stream:
    """The races between an input and whoever consumes their results.

    Invariant: each race that was taken is in exactly one place: submitted, refused, finished or handed over. Those that
    the consumer has not released take at most `limit` places, and `WINDOW_UNITS` of memory unless they are `least`. The
    limit grows by one with each answer that was not long in coming, as a TCP window does, and is halved when the
    backlog has no room.

    Args:
        pack: a race to its parcel; a PoolError is that race's result.
        submit: a parcel to its future; BacklogFullError means later.
        start: the first limit.
        least: how many may be on their way however large they are, so that no worker idles.
        patience_s: an answer that took longer shows that enough is on its way.
    """

    def __init__(
        self,
        pack: Callable[[RaceInput], Parcel],
        submit: Callable[[Parcel], PoolFuture[Any]],
        *,
        start: int,
        least: int = 1,
        patience_s: float,
    ) -> None:
        self.limit = start
        self.wake: Callable[[], None] = lambda: None  # called in the I/O thread when something has finished
        self._pack = pack
        self._submit = submit
        self._least = least
        self._patience_s = patience_s
        self._taken = 0
        self._has_input = True
        self._kept = 0
        self._kept_units = 0
        self._submitted: dict[int, StreamTask] = {}
        self._refused: list[StreamTask] = []
        self._finished: deque[StreamTask] = deque()
        self._answered_at = -inf
        self._retry_at = -inf
        self._retry_s = RETRY_S

    def next_step(self, now: float, *, may_take: bool = True) -> Step:
        """What is to be done. `may_take` is False while the input is still being waited for.

        Raises:
            PoolClosedError, PoolBrokenError: nothing can be submitted any more.
        """
        while self._finished:
            task = self._finished.popleft()
            future = self._settled(task, now)
            if future is not None:
                return HandOver(task, future)
        while self._refused and now >= self._retry_at and len(self._submitted) < self.limit:
            self._put_out(heappop(self._refused), now)
        if self._finished:
            return self.next_step(now, may_take=may_take)
        if self._has_input and self._has_room:
            return Take() if may_take else Wait(inf)
        if not self._has_input and not self._submitted and not self._refused:
            return End()
        return Wait(self._retry_at if self._refused and len(self._submitted) < self.limit else inf)

    def take(self, race: RaceInput, now: float) -> None:
        """The next race of the input."""
        task = StreamTask(self._taken, None)
        self._taken += 1
        self._kept += 1
        try:
            task.parcel = self._pack(race)
        except PoolError as error:
            task.future = failed(error)
            self._finished.append(task)
        else:
            self._put_out(task, now)
        self._kept_units += task.units

    def end_input(self) -> None:
        """There are no more races."""
        self._has_input = False

    def release(self, task: StreamTask) -> None:
        """The consumer has this result, and so its place is free."""
        self._kept -= 1
        self._kept_units -= task.units

    def cancel(self) -> None:
        """Takes back whatever is not finished."""
        for task in list(self._submitted.values()):
            if task.future is not None:
                task.future.cancel()

    @property
    def _has_room(self) -> bool:
        is_small = self._kept < self._least or self._kept_units < WINDOW_UNITS
        return not self._refused and self._kept < self.limit and is_small

    def _put_out(self, task: StreamTask, now: float) -> None:
        assert task.parcel is not None, "it is not answered"  # noqa: S101
        try:
            task.future, task.submitted_at = self._submit(task.parcel), now
        except BacklogFullError:
            self._refuse(task, now)
            return
        self._submitted[task.index] = task
        task.future.add_done_callback(lambda _: self._on_done(task))

    def _on_done(self, task: StreamTask) -> None:
        """In the I/O thread."""
        self._finished.append(task)
        self.wake()

    def _settled(self, task: StreamTask, now: float) -> PoolFuture[Any] | None:
        """Its future, if that is its end; else it is to be submitted again."""
        assert task.future is not None, "it was put out"  # noqa: S101
        self._submitted.pop(task.index, None)
        if self._is_refusal(task, task.future):
            self._refuse(task, now)
            return None
        self._kept_units -= task.units
        task.parcel = None
        self._kept_units += task.units
        if now - task.submitted_at <= self._patience_s:
            self.limit = min(self.limit + 1, WINDOW_UNITS)
        if task.submitted_at > -inf and not _has_waited_in_vain(task.future):
            self._answered_at, self._retry_s = now, RETRY_S
        return task.future

    def _is_refusal(self, task: StreamTask, future: Future[Any]) -> bool:
        """No room in the backlog; or its waiting time ran out behind others of this very stream, which went on."""
        if _has_waited_in_vain(future):
            return self._answered_at > task.submitted_at
        return not future.cancelled() and isinstance(future.exception(), BacklogFullError)

    def _refuse(self, task: StreamTask, now: float) -> None:
        heappush(self._refused, task)
        if now >= self._retry_at:  # once for all that were refused together
            self.limit = max(1, self.limit // 2)
            self._retry_at = now + self._retry_s
            self._retry_s = min(2 * self._retry_s, MAX_RETRY_S)


def _has_waited_in_vain(future: Future[Any]) -> bool:
    error = None if future.cancelled() else future.exception()
    return isinstance(error, TaskTimeoutError) and error.state == "queued"
