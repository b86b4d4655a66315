"""The clients' sessions: who has one, at which peer, and who has fallen silent. Knows no worker."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from racepool.broker.actions import Action, Report, SendToClient
from racepool.broker.ledger import Ledger
from racepool.broker.tasks import Client, Peer
from racepool.protocol.messages import Bye, Hello, Id, Welcome

MAX_CLIENTS = 4_096


class Clients:
    """All clients by their ids, and by the peer of their latest session.

    Invariant: each peer leads to a client that is known. A client that could not be reached is known, and has no peer
    here until it opens a new session.

    Args:
        ledger: has the clients' tasks, and the counters.
        liveness_s: after this silence a client is forgotten.
        welcome: answers each HELLO that opens a session.
        check_by: called with the instant of the next check.
    """

    def __init__(self, ledger: Ledger, liveness_s: float, welcome: Welcome, check_by: Callable[[float], None]) -> None:
        self.by_id: dict[Id, Client] = {}
        self.by_peer: dict[Peer, Client] = {}
        self._ledger = ledger
        self._liveness_s = liveness_s
        self._welcome = welcome
        self._check_by = check_by
        self._is_crowded = False

    def greet(self, peer: Peer, hello: Hello, now: float, *, can_share: bool) -> list[Action]:
        """Opens a session, unless a later one of this client is open, or there are too many clients."""
        client = self.by_id.get(hello.client_id)
        if client is not None and hello.session < client.session_number:
            return []
        stranger = self.by_peer.get(peer)
        if stranger is not None and stranger is not client:
            self._ledger.counters["bad_frames"] += 1
            return []
        if client is None:
            if len(self.by_id) >= MAX_CLIENTS:
                return self._refuse()
            client = Client(hello.client_id, hello.session, peer, now, hello.held, can_share)
            self.by_id[hello.client_id] = client
        self.by_peer.pop(client.peer, None)
        self.by_peer[peer] = client
        client.session_number, client.peer, client.last_seen, client.held = hello.session, peer, now, hello.held
        client.can_share = can_share
        self._check_by(now + self._liveness_s)
        return [SendToClient(peer, replace(self._welcome, can_share=can_share))]

    def on_unreachable(self, peer: Peer) -> None:
        """Ends a session; the client stays known."""
        self._ledger.counters["dropped"] += 1
        self.by_peer.pop(peer, None)

    def forget(self, client: Client, now: float) -> list[Action]:
        """The client is gone: its queued tasks end, and nobody waits for those in flight."""
        del self.by_id[client.id]
        self._is_crowded = False
        self.by_peer.pop(client.peer, None)
        queued, in_flight = self._ledger.abandon(client, now)
        if not queued and not in_flight:
            return []
        return [Report("task_abandoned", {"queued": queued, "in_flight": in_flight})]

    def forget_silent(self, now: float) -> list[Action]:
        """Forgets the clients that have been silent for the liveness."""
        silent = [client for client in self.by_id.values() if client.last_seen + self._liveness_s <= now]
        return [action for client in silent for action in self.forget(client, now)]

    def on_pause(self, now: float) -> None:
        """The broker itself stood still: the clients' messages may be unread, so their silence counts from now."""
        for client in self.by_id.values():
            client.last_seen = now

    def farewell(self) -> list[Action]:
        """Tells all clients that the broker ends."""
        return [SendToClient(client.peer, Bye()) for client in self.by_id.values()]

    def checks(self) -> Iterator[float]:
        """When each client will have been silent for the liveness."""
        for client in self.by_id.values():
            yield client.last_seen + self._liveness_s

    def audit(self) -> Iterator[str]:
        """The invariants that do not hold."""
        if any(self.by_id.get(client.id) is not client for client in self.by_peer.values()):
            yield "a peer leads to a client that is forgotten"

    def _refuse(self) -> list[Action]:
        """Drops a HELLO. Reports the first one only, until some client has left."""
        self._ledger.counters["dropped"] += 1
        is_told, self._is_crowded = self._is_crowded, True
        return [] if is_told else [Report("client_refused", {"clients": len(self.by_id)})]
