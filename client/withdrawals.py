"""The tasks that the client took back, until the broker has certainly heard it."""

from dataclasses import dataclass
from math import inf

from racepool.protocol.messages import Epoch, Id


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """The broker of this epoch may still have the task. It has heard the CANCEL once it answers a later ping.

    The messages of a session keep their order: a broker that answers a ping has heard everything before it.
    """

    epoch: Epoch
    kill: bool
    heard_by_ping: float  # the number of that ping in this session; infinity: not said in this session yet


class Withdrawals:
    """Counts the pings and pongs of a session, and keeps each withdrawal until a pong proves that it was heard."""

    def __init__(self) -> None:
        self._unheard: dict[Id, Withdrawal] = {}
        self._pings = self._pongs = 0

    def __len__(self) -> int:
        return len(self._unheard)

    def epoch_of(self, task_id: Id) -> Epoch | None:
        """The broker that may still have the task; None if this withdrawal is not known, or was heard."""
        known = self._unheard.get(task_id)
        return None if known is None else known.epoch

    def keep(self, task_id: Id, epoch: Epoch, *, kill: bool) -> None:
        """Notes a withdrawal that the next session must report."""
        self._unheard[task_id] = Withdrawal(epoch, kill, inf)

    def on_said(self, task_id: Id, epoch: Epoch, *, kill: bool) -> None:
        """Notes that a withdrawal was sent: the next ping comes after it."""
        self._unheard[task_id] = Withdrawal(epoch, kill, self._pings + 1)

    def on_ping(self) -> None:
        """Notes that a ping was sent."""
        self._pings += 1

    def on_pong(self) -> None:
        """Notes that a ping was answered, and forgets what was heard by then."""
        self._pongs += 1
        if self._unheard:
            self._unheard = {
                task_id: each for task_id, each in self._unheard.items() if each.heard_by_ping > self._pongs
            }

    def on_session_lost(self) -> None:
        """Counts from 0 for the next session. What was not heard yet is said again at its welcome, before any pong."""
        self._pings = self._pongs = 0

    def on_welcome(self, epoch: Epoch) -> dict[Id, Withdrawal]:
        """What this broker must be told. Withdrawals of another epoch are forgotten: that broker is gone."""
        self._unheard = {task_id: each for task_id, each in self._unheard.items() if each.epoch == epoch}
        return dict(self._unheard)
