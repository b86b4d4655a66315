"""Many races through one pool: how many are submitted at once, and what happens when the backlog is full.

Knows no clock, thread or loop. racepool.client.iteration takes the races from the input, waits, and yields the results.
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

RETRY_S = 0.05  # the first pause after a refusal; doubled each time
MAX_RETRY_S = 0.5


@dataclass(slots=True, eq=False)
class StreamTask:
    """One race of the stream."""

    index: int  # its place in the input, from 0
    parcel: Parcel | None  # None once it is answered
    submitted_at: float = -inf
    future: PoolFuture[Any] | None = None

    @property
    def units(self) -> int:
        """How much of the stream's memory it takes."""
        return 1 if self.parcel is None else 1 + self.parcel.size_bytes // UNIT_BYTES

    def __lt__(self, other: "StreamTask") -> bool:
        return self.index < other.index


@dataclass(frozen=True, slots=True)
class Take:
    """Get the next race from the input, then call `take`; at the end of the input call `end_input`."""


@dataclass(frozen=True, slots=True)
class HandOver:
    """Yield this race: it is finished."""

    task: StreamTask
    future: PoolFuture[Any]


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait until `wake` is called, or until this instant."""

    until: float


@dataclass(frozen=True, slots=True)
class End:
    """All races were handed over."""


Step: TypeAlias = Take | HandOver | Wait | End


class Stream:
    """The races between an input and the caller who takes their results.

    Invariant: each race that was taken is in exactly one place: submitted, refused, finished or handed over. At most
    `limit` races are taken and not yet released by the caller. Together they take at most `WINDOW_UNITS` of memory,
    but `least` races are always allowed. Like a TCP window, the limit grows by one with each prompt answer, and is
    halved when the backlog is full.

    Args:
        pack: makes a parcel of a race; a PoolError is the race's result.
        submit: makes a future of a parcel; BacklogFullError means that the race is submitted again later.
        start: the first limit.
        least: how many may be taken however large they are, so that no worker is idle.
        prompt_s: an answer within this time, in seconds, is prompt.
    """

    def __init__(
        self,
        pack: Callable[[RaceInput], Parcel],
        submit: Callable[[Parcel], PoolFuture[Any]],
        *,
        start: int,
        least: int = 1,
        prompt_s: float,
    ) -> None:
        self.limit = start
        self.wake: Callable[[], None] = lambda: None  # called in the I/O thread when a race has finished
        self._pack = pack
        self._submit = submit
        self._least = least
        self._prompt_s = prompt_s
        self._taken = 0
        self._has_input = True
        self._kept = 0  # races taken and not released
        self._kept_units = 0
        self._submitted: dict[int, StreamTask] = {}
        self._refused: list[StreamTask] = []
        self._finished: deque[StreamTask] = deque()
        self._answered_at = -inf  # the last answer of this stream
        self._retry_at = -inf
        self._retry_s = RETRY_S

    def next_step(self, now: float, *, may_take: bool = True) -> Step:
        """Decides what to do next. `may_take` is False while the input has not given the race of the last Take.

        Raises:
            PoolClosedError, PoolBrokenError: nothing can be submitted any more.
        """
        while self._finished:
            task = self._finished.popleft()
            future = self._settled(task, now)
            if future is not None:
                return HandOver(task, future)
        while self._refused and now >= self._retry_at and len(self._submitted) < self.limit:
            self._submit_task(heappop(self._refused), now)
        if self._finished:
            return self.next_step(now, may_take=may_take)
        if self._has_input and self._has_room:
            return Take() if may_take else Wait(inf)
        if not self._has_input and not self._submitted and not self._refused:
            return End()
        return Wait(self._retry_at if self._refused and len(self._submitted) < self.limit else inf)

    def take(self, race: RaceInput, now: float) -> None:
        """Submits the next race of the input."""
        task = StreamTask(self._taken, None)
        self._taken += 1
        self._kept += 1
        try:
            task.parcel = self._pack(race)
        except PoolError as error:
            task.future = failed(error)
            self._finished.append(task)
        else:
            self._submit_task(task, now)
        self._kept_units += task.units

    def end_input(self) -> None:
        """The input has no more races."""
        self._has_input = False

    def release(self, task: StreamTask) -> None:
        """The caller has this result, so its place is free."""
        self._kept -= 1
        self._kept_units -= task.units

    def cancel(self) -> None:
        """Cancels all races that are not finished."""
        for task in list(self._submitted.values()):
            if task.future is not None:
                task.future.cancel()

    @property
    def _has_room(self) -> bool:
        is_small = self._kept < self._least or self._kept_units < WINDOW_UNITS
        return not self._refused and self._kept < self.limit and is_small

    def _submit_task(self, task: StreamTask, now: float) -> None:
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
        """The finished task's future; None if the task was refused and must be submitted again."""
        assert task.future is not None, "it was submitted"  # noqa: S101
        self._submitted.pop(task.index, None)
        if self._is_refusal(task, task.future):
            self._refuse(task, now)
            return None
        self._kept_units -= task.units
        task.parcel = None
        self._kept_units += task.units
        if now - task.submitted_at <= self._prompt_s:
            self.limit = min(self.limit + 1, WINDOW_UNITS)
        if task.submitted_at > -inf and not _timed_out_in_queue(task.future):
            self._answered_at, self._retry_s = now, RETRY_S
        return task.future

    def _is_refusal(self, task: StreamTask, future: Future[Any]) -> bool:
        """Whether the backlog was full, or the task only waited too long behind others of this stream."""
        if _timed_out_in_queue(future):
            return self._answered_at > task.submitted_at
        return not future.cancelled() and isinstance(future.exception(), BacklogFullError)

    def _refuse(self, task: StreamTask, now: float) -> None:
        heappush(self._refused, task)
        if now >= self._retry_at:  # once for all races that were refused together
            self.limit = max(1, self.limit // 2)
            self._retry_at = now + self._retry_s
            self._retry_s = min(2 * self._retry_s, MAX_RETRY_S)


def _timed_out_in_queue(future: Future[Any]) -> bool:
    error = None if future.cancelled() else future.exception()
    return isinstance(error, TaskTimeoutError) and error.state == "queued"
