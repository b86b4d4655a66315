"""Which poll is next, what it counts from, and in which order races are written. Knows no file, clock or pool."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from math import inf
from typing import Final

from racepool.commands.replay.poll import CapturedPoll, PollEntry
from racepool.races.transformed_race import PreviousAmounts

RETRY_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class Turn:
    """A poll whose turn it is, and the amounts at the last good poll of its race, from which it counts."""

    poll: CapturedPoll
    number: int
    previous: PreviousAmounts | None


class Schedule:
    """The polls of a day on their way through a pool.

    Invariant: of each race at most one poll is out, the one after the last that is settled; so each counts from the
    last good one before it. At most `limit` are out at a time. The race with the most polls left goes first, so that
    none is left alone at the end.

    Args:
        chains: race id -> its polls in their order.
        limit: how many polls may be out.
        entries: what an earlier run settled; they are taken as this one's are, so that what follows is the same.

    Raises:
        ValueError: an entry is not of its race's next poll.
    """

    def __init__(
        self, chains: Mapping[str, Sequence[CapturedPoll]], limit: int, entries: Iterable[PollEntry] = ()
    ) -> None:
        self.failures: list[tuple[CapturedPoll, str]] = []
        self._chains = chains
        self._limit = self._room = limit
        self._settled = dict.fromkeys(chains, 0)
        self._previous: dict[str, PreviousAmounts] = {}
        self._starts: dict[str, tuple[float, str]] = {}
        self._out: set[str] = set()
        self._retry_at = -inf
        for entry in entries:
            self._take(entry)
        self._waiting = [(-left, race_id) for race_id in chains if (left := self._left(race_id))]
        heapify(self._waiting)

    @property
    def is_done(self) -> bool:
        """Whether every poll is settled."""
        return not self._waiting and not self._out

    @property
    def settled(self) -> int:
        """How many polls are settled."""
        return sum(self._settled.values())

    def next_turn(self, now: float) -> Turn | None:
        """The next poll to submit, None while that has to wait: for an answer, or until `retry_at`."""
        if now < self.retry_at:
            return None
        _, race_id = heappop(self._waiting)
        self._out.add(race_id)
        number = self._settled[race_id]
        return Turn(self._chains[race_id][number], number, self._previous.get(race_id))

    @property
    def retry_at(self) -> float:
        """From when on there is a next turn, though no answer comes; infinity where only an answer helps."""
        return self._retry_at if self._waiting and len(self._out) < self._room else inf

    def settle(self, entry: PollEntry) -> None:
        """Takes what became of a poll that is out.

        Raises:
            ValueError: it is not out.
        """
        if entry.race_id not in self._out:
            raise ValueError(f"no poll of race {entry.race_id} is out")
        self._take(entry)
        self._room = min(self._room + 1, self._limit)
        self._put_back(entry.race_id)

    def refuse(self, race_id: str, now: float) -> None:
        """The pool has no room for the race's poll: it comes again later, and fewer are out at a time."""
        self._retry_at = now + RETRY_S
        self._room = max(1, self._room // 2)
        self._put_back(race_id)

    def written_order(self) -> list[str]:
        """The races that have a good poll, by their start as last known, then by their id."""
        return sorted(self._starts, key=self._starts.__getitem__)

    def _take(self, entry: PollEntry) -> None:
        polls = self._chains.get(entry.race_id, ())
        if entry.number >= len(polls) or entry.number != self._settled[entry.race_id]:
            raise ValueError(f"poll {entry.number} of race {entry.race_id} is not its next one")
        self._settled[entry.race_id] += 1
        if entry.error is not None:
            self.failures.append((polls[entry.number], entry.error))
            return
        self._previous[entry.race_id] = PreviousAmounts(entry.race_id, PreviousAmounts.of(entry.rows).amounts)
        if entry.start_time is not None:
            self._starts[entry.race_id] = (entry.start_time.timestamp(), entry.race_id)

    def _put_back(self, race_id: str) -> None:
        self._out.remove(race_id)
        if left := self._left(race_id):
            heappush(self._waiting, (-left, race_id))

    def _left(self, race_id: str) -> int:
        return len(self._chains[race_id]) - self._settled[race_id]
