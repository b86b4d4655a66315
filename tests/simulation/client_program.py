"""A client process in the simulation: the real core; the `Witness` checks what its callers get."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import inf
from typing import assert_never

from racepool.client import actions as client_actions
from racepool.client import core as client_core
from racepool.client.task import ClientTask
from racepool.protocol.messages import (
    Id,
    Submit,
    Welcome,
)
from racepool.protocol.shared_memory import SHARE_FROM_BYTES
from tests.simulation.network import Link, Port
from tests.simulation.promises import Caller, Wanted
from tests.simulation.stage import Stage


@dataclass(frozen=True)
class Load:
    """A packed race: small on the fake wire, of any size in the client's window."""

    number: int
    size_bytes: int
    head: bytes = field(default=b"", repr=False)
    body: bytes = field(default=b"", repr=False)

    def payload(self) -> bytes:
        return b"%d" % self.number


class ClientProgram(Caller):
    """One client process."""

    def __init__(self, id_: Id, stage: Stage, limits: client_core.Limits) -> None:
        super().__init__(stage.clock)
        self.id = id_
        self.core = client_core.ClientCore(client_core.Identity(id_, 1), "ipc://here", limits)
        self.connect_timeout_s = limits.connect_timeout_s
        self.sessions = 0
        self.was_welcome = False
        self.asked = self.told = 0
        self._network = stage.network
        self._witness = stage.witness
        self._link: Link | None = None
        self._liveness_s = limits.liveness_s
        self._stood_still_s = 0.0
        self._perform(self.core.start(stage.clock.now))
        self.wake(stage.clock.now)

    def submit(self, wanted: Wanted, size_bytes: int) -> None:
        now = self.clock.now
        task = ClientTask(
            wanted.id, Load(wanted.number, size_bytes), round(wanted.run_timeout_s * 1000), wanted.queue_timeout_s,  # type: ignore[arg-type]  # has all that the core looks at
            now, now,
        )  # fmt: skip
        self._do(lambda: self.core.on_submit(task, now))

    def cancel(self, wanted: Wanted, *, kill: bool) -> None:
        if wanted.end is None:
            self._witness.on_end(wanted, "cancelled")
        self._do(lambda: self.core.on_withdraw(wanted.id, kill=kill))

    def ask_stats(self) -> None:
        self.asked += 1
        self._do(lambda: self.core.on_ask_stats(self.clock.now))

    def die(self) -> None:
        self.is_dead = True
        if self._link is not None:
            self._network.close(self._link)

    def leave(self) -> None:
        """Says goodbye with tasks unresolved, as at the exit of its interpreter."""
        self._perform(self.core.farewell())
        if self._link is not None:
            self._network.close(self._link, lingers=True)
        self.is_dead = True

    def on_resumed(self, stood_still_s: float) -> None:
        self._stood_still_s += stood_still_s
        self._network.resumed(self)

    def next_check(self) -> float:
        arrives_at = self._link.to_dealer[0][0] if self._link is not None and self._link.to_dealer else inf
        return min(self.core.next_check(), arrives_at)

    def turn(self) -> None:
        link = self._link
        while self._link is link and link is not None:
            message = next(link.received(self.clock.now), None)
            if message is None:
                break
            self.was_welcome |= isinstance(message, Welcome)
            self._perform(self.core.on_message(message, self.clock.now))
        stood_still_s, self._stood_still_s = self._stood_still_s, 0.0
        if stood_still_s > self._liveness_s / 2:
            self.core.on_pause(self.clock.now)
        self._perform(self.core.on_tick(self.clock.now))

    def _do(self, event: Callable[[], list[client_actions.Action]]) -> None:
        self._perform(event())
        self.wake(max(self.next_check(), self.clock.now))

    def _perform(self, actions: Iterable[client_actions.Action]) -> None:  # noqa: C901  # one case per action
        for action in actions:
            match action:
                case client_actions.Send(message):
                    if self._link is not None:
                        self._network.send_to_broker(self._link, message)
                case client_actions.SendTask(task, waited_ms, again, can_share):
                    if self._link is not None:
                        is_shared = can_share and task.parcel.size_bytes > SHARE_FROM_BYTES
                        words = Submit(task.id, task.run_timeout_ms, waited_ms, again, is_shared, task.parcel.payload())
                        self._network.send_to_broker(self._link, words)
                case client_actions.OpenSession(hello):
                    if self._link is not None:
                        self._network.close(self._link)
                    self.sessions += 1
                    self._link = self._network.connect(Port.FRONTEND, self, None)
                    self._network.send_to_broker(self._link, hello)
                case client_actions.Deliver(task, answer):
                    self._witness.on_answer(task.id, answer)
                case client_actions.Fail(task, error):
                    self._witness.on_failure(task.id, error("the task"))
                case client_actions.Log():
                    pass
                case client_actions.DeliverStats() | client_actions.FailStats():
                    self.told = self.asked
                case _:
                    assert_never(action)
