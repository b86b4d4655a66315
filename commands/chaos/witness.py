"""The witness: compares the clients' records with the right results, checks the broker's stats, keeps what is wrong.

Knows no process, socket or clock. Keeps a few hundred bytes for each exec.
"""

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappush, heappushpop
from typing import Final

from racepool.commands.chaos.plan import Fault
from racepool.commands.chaos.records import Resolved, Submitted
from racepool.protocol.stats import OUTCOMES, PoolStats

LONGEST_KEPT: Final = 2_000

Exec = tuple[str, int]
"""An exec's name: its client, and its number among that client's execs, from 1."""


@dataclass(frozen=True)
class Truth:
    """How a race ends on the quiet pool: the outcome, and the digest of the result."""

    outcome: str
    digest: str


@dataclass(frozen=True, slots=True)
class Life:
    """One exec from its submission to its end; sorts by its duration."""

    took_s: float
    submitted: Submitted
    ended_at: float

    def __lt__(self, other: "Life") -> bool:
        return self.took_s < other.took_s


class Witness:
    """Takes the records of each client in their order; `verdict` judges what it has found.

    Args:
        truth: how each race must end, by the race's index.
        faults: of the plan, by their numbers.

    Attributes:
        counts: `execs` and, among them, those that ended `right`.
        errors: expected errors of races with a fault in them, by outcome.
        open: execs that are not resolved yet.
        failed: execs that ended neither right nor with the error that their race asked for, for `verdict` to explain.
        twice: called back more than once, as text.
        books: counters that do not add up, as text.
        longest: a heap of the execs that took longest.
    """

    def __init__(self, truth: Sequence[Truth], faults: Sequence[Fault]) -> None:
        self.counts: Counter[str] = Counter(execs=0, right=0)
        self.errors: Counter[str] = Counter()
        self.open: dict[Exec, Submitted] = {}
        self.failed: list[tuple[Submitted, Resolved]] = []
        self.twice: list[str] = []
        self.books: list[str] = []
        self.longest: list[Life] = []
        self.took_s = array("f")
        self.samples = 0
        self.exec_of: dict[str, Exec] = {}
        self.fault_of: dict[str, int] = {}
        self._truth = truth
        self._faults = faults
        self._last: PoolStats | None = None

    def on_submitted(self, submitted: Submitted) -> None:
        """A client called exec()."""
        key = (submitted.client, submitted.n)
        self.counts["execs"] += 1
        self.open[key] = submitted
        self.exec_of[submitted.task_id] = key
        if submitted.fault is not None:
            self.fault_of[submitted.task_id] = submitted.fault

    def on_resolved(self, resolved: Resolved) -> None:
        """A future called back."""
        key = (resolved.client, resolved.n)
        submitted = self.open.pop(key, None)
        if submitted is None:
            self.twice.append(f"{named(*key)} called back again, with {resolved.outcome}")
            return
        life = Life(resolved.at - submitted.at, submitted, resolved.at)
        self.took_s.append(life.took_s)
        if len(self.longest) < LONGEST_KEPT:
            heappush(self.longest, life)
        else:
            heappushpop(self.longest, life)
        self._judge(submitted, resolved)

    def on_stats(self, stats: PoolStats) -> None:
        """Takes the broker's stats of one moment."""
        self.samples += 1
        counters, before = stats.counters.model_dump(), self._last and self._last.counters.model_dump()
        accounted = stats.queue_depth - stats.held_by_clients + stats.in_flight + sum(counters[end] for end in OUTCOMES)
        if counters["submitted"] != accounted:
            self.books.append(f"{counters['submitted']} were submitted, {accounted} are accounted for")
        if self._last is not None and before and self._last.broker.epoch == stats.broker.epoch:
            self.books += [
                f"the counter {name} fell from {before[name]} to {now}"
                for name, now in counters.items()
                if now < before[name]
            ]
        self._last = stats

    def _judge(self, submitted: Submitted, resolved: Resolved) -> None:
        """A race must end as on the quiet pool, or, with a fault inside, with the error of that fault."""
        shows = frozenset[str]() if submitted.fault is None else self._faults[submitted.fault].kind.shows
        truth = self._truth[submitted.race]
        if resolved.outcome in shows:
            self.errors[resolved.outcome] += 1
        elif not shows and (resolved.outcome, resolved.digest) == (truth.outcome, truth.digest):
            self.counts["right"] += 1
        else:
            self.failed.append((submitted, resolved))


def named(client: str, n: int) -> str:
    """An exec, as the report names it."""
    return f"exec {n} of {client}"
