"""The broker in the simulation: the real core, in turns like those of racepool.broker.server."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from math import inf
from typing import assert_never

from racepool.broker import actions as broker_actions
from racepool.broker.core import BrokerCore
from racepool.protocol.messages import (
    Id,
    Ready,
    Stats,
)
from tests.simulation.network import Port, Program
from tests.simulation.promises import Books, Caller, WorkerProcess
from tests.simulation.stage import Stage

MESSAGES_PER_TURN = 64
DRAIN_S = 3.0


class BrokerProgram(Program):
    """One epoch of the broker."""

    def __init__(
        self,
        core: BrokerCore,
        stage: Stage,
        caller_of: dict[Id, Caller],
        on_done: Callable[[], None],
        *,
        can_share: bool,
    ) -> None:
        super().__init__(stage.clock)
        self.core = core
        self.books = Books(core, stage.witness, stage.clock, caller_of)
        self._on_done = on_done
        self._can_share = can_share
        self.drain_until = inf
        self._network = stage.network
        self._witness = stage.witness
        self._max_pause_s = core.settings.liveness / 4
        self._watched: dict[Id, WorkerProcess] = {}
        self._stood_still_s = 0.0
        self._network.broker_starts(self)
        self.wake(stage.clock.now)

    @property
    def is_done(self) -> bool:
        """Whether a drain is over."""
        return self.drain_until < inf and (self.core.ledger.in_flight == 0 or self.clock.now >= self.drain_until)

    def terminate(self) -> None:
        if self.drain_until == inf:
            self.drain_until = self.clock.now + DRAIN_S
            self._perform(self.core.on_drain())

    def on_resumed(self, stood_still_s: float) -> None:
        self._stood_still_s += stood_still_s
        self._network.resumed(self)
        self.books.resumed_at = self.clock.now

    def next_check(self) -> float:
        ended = self.clock.now if any(process.is_dead for process in self._watched.values()) else inf
        return min(self.core.next_check(), self._network.next_arrival(), ended, self.drain_until)

    def turn(self) -> None:
        is_drained = [self._drain(port) for port in Port]
        stood_still_s, self._stood_still_s = self._stood_still_s, 0.0
        if stood_still_s > self._max_pause_s:
            self._perform(self.core.on_pause(self.clock.now))
        if is_drained[0]:
            ended = [session_id for session_id, process in self._watched.items() if process.is_dead]
            self._perform(self.core.on_process_exit(ended, self.clock.now))
        if all(is_drained):
            self._perform(self.core.on_tick(self.clock.now))
        self.books.check(has_read_results=is_drained[0])
        if self.is_done:
            self._perform(self.core.farewell())
            self._on_done()

    def die(self) -> None:
        self.is_dead = True
        self.books.close()
        self._network.broker_ends()

    def _drain(self, port: Port) -> bool:
        for _ in range(MESSAGES_PER_TURN):
            received = self._network.receive(port)
            if received is None:
                return True
            link, message = received
            pid = link.pid if link.closed_at is None else None  # the kernel names only processes that exist
            now = self.clock.now
            match port:
                case Port.BACKEND:
                    is_ready = isinstance(message, Ready)
                    if is_ready:
                        self.books.session_at[link.peer] = message.incarnation
                    self.books.on_worker(link.peer, message)
                    self._perform(self.core.on_worker(link.peer, message, now, pid if is_ready else None))
                case Port.HEARTBEAT:
                    is_known = message.incarnation in self.core.roster.workers
                    self._perform(self.core.on_heartbeat(link.peer, message, now, None if is_known else pid))
                case Port.FRONTEND:
                    client = self.books.client_at(link.peer)
                    actions = self.core.on_client(link.peer, message, now, can_share=self._can_share)
                    self.books.on_client(client, message, actions)
                    self._perform(actions)
                case _:
                    assert_never(port)
        return False

    def _perform(self, actions: Iterable[broker_actions.Action]) -> None:
        todo = deque(actions)
        while todo:
            action = todo.popleft()
            self.books.on_action(action)
            todo.extend(self._done(action))
        self.books.on_forgotten_clients()  # those that had no task
        self.books.note_sessions()

    def _done(self, action: broker_actions.Action) -> Iterable[broker_actions.Action]:  # noqa: C901, PLR0912  # one case per action
        match action:
            case broker_actions.SendToWorker(peer, message):
                if not self._network.send_to_dealer(Port.BACKEND, peer, message):
                    self.books.on_unsent(peer, message)
                    return self.core.on_worker_unreachable(peer, message, self.clock.now)
            case broker_actions.SendByValue(peer, assignment):
                return self._done(broker_actions.SendToWorker(peer, replace(assignment, is_shared=False)))
            case broker_actions.SendToClient(peer, message):
                if not self._network.send_to_dealer(Port.FRONTEND, peer, message):
                    self.books.unsent += 1
                    return self.core.on_client_unreachable(peer)
            case broker_actions.SendToHeartbeat(peer, message):
                self._network.send_to_dealer(Port.HEARTBEAT, peer, message)
            case broker_actions.SendStats(peer):
                self._network.send_to_dealer(Port.FRONTEND, peer, Stats(b"stats"))
            case broker_actions.WatchProcess(session_id):
                process = self._witness.process_of[session_id]
                if process.is_dead:
                    self.books.never_reached.add(session_id)
                    return self.core.on_process_gone(session_id, self.clock.now)
                self._watched[session_id] = process
                process.watchers.append(self)
            case broker_actions.UnwatchProcess(session_id):
                self._watched.pop(session_id, None)
            case broker_actions.KillProcess(session_id):
                if session_id in self._watched:
                    self._watched.pop(session_id).die()
            case broker_actions.ProbeProcess(session_id):
                watched = self._watched.get(session_id)
                has_progress = watched is not None and watched.uses_cpu
                return self.core.on_probe(session_id, self.clock.now, has_progress=has_progress)
            case broker_actions.KeepDeadTask() | broker_actions.Report():
                pass
            case _:
                assert_never(action)
        return ()
