"""A task as the client knows it, from its submission to its answer."""

from dataclasses import dataclass
from math import inf

from racepool.client.timing import TaskTiming
from racepool.protocol.messages import Epoch, Id
from racepool.protocol.parcel import Parcel

UNIT_BYTES = 16_384
"""The size of a unit, in which the client counts how much it has on the way."""


@dataclass(slots=True, eq=False)
class ClientTask:
    """An unresolved task. All instants are on the client's clock, in seconds."""

    id: Id
    parcel: Parcel
    run_timeout_ms: int
    queue_timeout_s: float
    submitted_at: float
    waiting_since: float | None  # None while it is known to run; the time from here on is not in `waited_s` yet
    waited_s: float = 0.0  # all waiting before `waiting_since`
    check_at: float = inf  # when its timeouts are looked at
    is_sent: bool = False  # in this session
    sent_in: Epoch | None = None  # the broker that may have it; None if it was never sent

    @property
    def units(self) -> int:
        """How much of the window it takes."""
        return 1 + self.parcel.size_bytes // UNIT_BYTES

    def total_waited_s(self, now: float) -> float:
        """How long it has waited up to now, over all sessions."""
        return self.waited_s + (now - self.waiting_since if self.waiting_since is not None else 0.0)

    def timing_unanswered(self, now: float) -> TaskTiming:
        """What the task cost if it ends now without an ANSWER. As far as this client knows, it has only waited."""
        return TaskTiming(round(self.total_waited_s(now) * 1000, 3), 0.0, 0, None)
