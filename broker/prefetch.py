"""Whether a prefetched task pays, and how long it may wait in a worker's hands. Knows no message and no backlog.

Between two tasks a worker waits for a whole round trip through the broker. So where tasks are short and many wait, a
busy worker gets its next task in advance. That task must not wait behind a slow one: then it is recalled.
"""

from collections.abc import Iterable
from heapq import heappop, heappush
from math import inf

from racepool.broker.workers import Worker

SHORT_S = 0.02
MIN_WAIT_S = 0.002
MAX_WAIT_S = 0.02
WAIT_IN_RUNS = 3
"""A prefetched task waits for this many average run times, between the two bounds above."""
WEIGHT = 1 / 8
"""The weight of each new run in the moving average."""


class Prefetch:
    """The average run time, and when each prefetched task will have waited for too long.

    Invariant: each prefetched task has its entry in the heap until it is overdue. An entry whose task is not
    prefetched any more is skipped when it comes up.
    """

    def __init__(self) -> None:
        self._average_s = inf
        self._due: list[tuple[float, int, Worker]] = []

    @property
    def pays(self) -> bool:
        """Whether tasks are so short that the round trip matters; false before the first result."""
        return self._average_s <= SHORT_S

    @property
    def max_wait_s(self) -> float:
        """How long a prefetched task waits behind the task that runs."""
        return min(MAX_WAIT_S, max(MIN_WAIT_S, WAIT_IN_RUNS * self._average_s))

    def observe(self, run_s: float) -> None:
        """A task has run for this long."""
        known = self._average_s < inf
        self._average_s = self._average_s + WEIGHT * (run_s - self._average_s) if known else run_s

    def expect(self, worker: Worker, now: float) -> None:
        """The worker was given a prefetched task."""
        assert worker.prefetched is not None, "it has just been given one"  # noqa: S101
        heappush(self._due, (now + self.max_wait_s, worker.prefetched.lease, worker))

    def overdue(self, now: float) -> list[Worker]:
        """The workers whose prefetched task has waited for too long. Names each task once."""
        workers = []
        while self.next_due() <= now:
            workers.append(heappop(self._due)[2])
        return workers

    def next_due(self) -> float:
        """When the next prefetched task will have waited for too long."""
        while self._due and not _is_waiting(*self._due[0][1:]):
            heappop(self._due)
        return self._due[0][0] if self._due else inf

    def audit(self, workers: Iterable[Worker]) -> Iterable[str]:
        """The invariants that do not hold."""
        leases = {lease for _, lease, _ in self._due}
        for worker in workers:
            if worker.prefetched is not None and worker.prefetched.lease not in leases:
                yield f"the prefetched task of {worker.name} would wait for ever"


def _is_waiting(lease: int, worker: Worker) -> bool:
    return worker.prefetched is not None and worker.prefetched.lease == lease
