"""Decides which poll is next, with which previous amounts, and the order of the races. Knows no file, clock or pool."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from math import inf
from typing import Final

from racepool.commands.replay.poll import CapturedPoll, PollEntry
from racepool.races.previous_amounts import PreviousAmounts

RETRY_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class Turn:
    """A poll to submit, with the amounts of the last good poll of its race."""

    poll: CapturedPoll
    number: int
    previous: PreviousAmounts | None


class Schedule:
    """The polls of a day on their way through a pool.

    Invariant: at most one poll of a race is out, the one after its last settled poll. So each poll gets the amounts of
    the last good poll before it. At most `limit` polls are out. The race with the most polls left goes first, so that
    no long race is left alone at the end.

    Args:
        chains: race id -> its polls in order of time.
        limit: how many polls may be out.
        entries: polls that an earlier run settled; they count as if this run had settled them.

    Raises:
        ValueError: an entry is not that of its race's next poll.
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
        """The next poll to submit; None if it must wait for an answer or until `retry_at`."""
        if now < self.retry_at:
            return None
        _, race_id = heappop(self._waiting)
        self._out.add(race_id)
        number = self._settled[race_id]
        return Turn(self._chains[race_id][number], number, self._previous.get(race_id))

    @property
    def retry_at(self) -> float:
        """The instant of the next turn if no answer comes; infinity if an answer must come first."""
        return self._retry_at if self._waiting and len(self._out) < self._room else inf

    def settle(self, entry: PollEntry) -> None:
        """Takes the outcome of a poll that is out.

        Raises:
            ValueError: no poll of this race is out.
        """
        if entry.race_id not in self._out:
            raise ValueError(f"no poll of race {entry.race_id} is out")
        self._take(entry)
        self._room = min(self._room + 1, self._limit)
        self._put_back(entry.race_id)

    def refuse(self, race_id: str, now: float) -> None:
        """The pool has no room for this race's poll: it is submitted again later, and fewer polls may be out."""
        self._retry_at = now + RETRY_S
        self._room = max(1, self._room // 2)
        self._put_back(race_id)

    def written_order(self) -> list[str]:
        """The races that have a good poll, sorted by their last known start, then by id."""
        return sorted(self._starts, key=self._starts.__getitem__)

    def _take(self, entry: PollEntry) -> None:
        polls = self._chains.get(entry.race_id, ())
        if entry.number >= len(polls) or entry.number != self._settled[entry.race_id]:
            raise ValueError(f"poll {entry.number} of race {entry.race_id} is not its next one")
        self._settled[entry.race_id] += 1
        if entry.result is None:
            self.failures.append((polls[entry.number], entry.error or ""))
            return
        self._previous[entry.race_id] = PreviousAmounts(entry.race_id, entry.result.baseline or {})
        self._starts[entry.race_id] = (entry.result.start_time.timestamp(), entry.race_id)

    def _put_back(self, race_id: str) -> None:
        self._out.remove(race_id)
        if left := self._left(race_id):
            heappush(self._waiting, (-left, race_id))

    def _left(self, race_id: str) -> int:
        return len(self._chains[race_id]) - self._settled[race_id]
