"""The heartbeats' decisions: when to beat, when to open a fresh socket, when the session is lost. Knows no thread."""

from dataclasses import dataclass
from typing import TypeAlias

from racepool.protocol.messages import Id, Pong, ToHeartbeat
from racepool.worker.core import Session


@dataclass(frozen=True, slots=True)
class OpenSocket:
    """Close the socket, if there is one, and open a fresh one."""


@dataclass(frozen=True, slots=True)
class Beat:
    """Send a heartbeat of this session through the socket."""

    session: Session


Action: TypeAlias = OpenSocket | Beat


class HeartbeatCore:
    """The heartbeats of one worker, over all its sessions.

    It beats at its interval, or more often if the broker's liveness is short. Each session has a socket of its own. A
    socket on which nothing came for the liveness is replaced: a broker on another host may vanish without a sign.
    """

    def __init__(self, session: Session, now: float, *, interval_s: float, liveness_s: float) -> None:
        self._session = session
        self._interval_s = interval_s
        self._liveness_s = liveness_s
        self._heard_at = now - liveness_s
        self._beat_at = now

    def on_tick(self, session: Session, now: float) -> list[Action]:
        """Beats if it is time. `session` is the worker's present session."""
        actions: list[Action] = []
        is_due = now >= self._beat_at
        if now >= self._heard_at + self._liveness_s or (is_due and session.id != self._session.id):
            self._heard_at, is_due = now, True
            actions.append(OpenSocket())
        if is_due:
            self._session, self._beat_at = session, now + min(self._interval_s, session.beat_s)
            if session.epoch is not None:  # not welcomed yet: a beat could overtake the READY
                actions.append(Beat(session))
        return actions

    def on_answer(self, reply: ToHeartbeat, now: float) -> Id | None:
        """The id of the session, if the broker does not know it or has another epoch; None if all is well."""
        self._heard_at = now
        is_known = isinstance(reply, Pong) and reply.epoch == self._session.epoch
        return None if is_known else self._session.id

    def next_check(self) -> float:
        """The instant at which `on_tick` has something to do."""
        return min(self._beat_at, self._heard_at + self._liveness_s)
