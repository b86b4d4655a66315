"""Second tasks: whether they pay, and how long one may wait behind the first. Knows no message and no backlog.

Between two tasks a worker would sleep for a whole round trip through the broker. Where tasks are short and many wait,
it is given the next one while it is still at work. That one must not wait behind a slow task: it is recalled then.
"""

from collections.abc import Iterable
from heapq import heappop, heappush
from math import inf

from racepool.broker.workers import Worker

SHORT_S = 0.02
MIN_PATIENCE_S = 0.002
MAX_PATIENCE_S = 0.02
PATIENCE = 3
"""How many times the average run time a second waits."""
WEIGHT = 1 / 8
"""Of each run in the average."""


class Seconds:
    """The average run time, and when each second will have waited for too long.

    Invariant: each second has its entry in the heap, until it is overdue; entries of those that are seconds no more
    are skipped when they come up.
    """

    def __init__(self) -> None:
        self._average_s = inf
        self._due: list[tuple[float, int, Worker]] = []

    @property
    def are_worth_it(self) -> bool:
        """Whether tasks are so short that the way through the broker tells; unknown before the first result."""
        return self._average_s <= SHORT_S

    @property
    def patience_s(self) -> float:
        """How long a second waits behind a task that runs."""
        return min(MAX_PATIENCE_S, max(MIN_PATIENCE_S, PATIENCE * self._average_s))

    def observe(self, run_s: float) -> None:
        """A task has run for so long."""
        known = self._average_s < inf
        self._average_s = self._average_s + WEIGHT * (run_s - self._average_s) if known else run_s

    def expect(self, worker: Worker, now: float) -> None:
        """The worker was given a second."""
        assert worker.second is not None, "it has just been given one"  # noqa: S101
        heappush(self._due, (now + self.patience_s, worker.second.lease, worker))

    def overdue(self, now: float) -> list[Worker]:
        """Those whose second has waited for too long; each is named once."""
        workers = []
        while self.next_due() <= now:
            workers.append(heappop(self._due)[2])
        return workers

    def next_due(self) -> float:
        """When the next second will have waited for too long."""
        while self._due and not _is_waiting(*self._due[0][1:]):
            heappop(self._due)
        return self._due[0][0] if self._due else inf

    def audit(self, workers: Iterable[Worker]) -> Iterable[str]:
        """The invariants that do not hold."""
        leases = {lease for _, lease, _ in self._due}
        for worker in workers:
            if worker.second is not None and worker.second.lease not in leases:
                yield f"the second of {worker.name} would wait for ever"


def _is_waiting(lease: int, worker: Worker) -> bool:
    return worker.second is not None and worker.second.lease == lease
