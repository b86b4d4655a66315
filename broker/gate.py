"""Who may speak at the broker's tcp sockets: the ZAP handler for new connections, and a check of each message's key.

libzmq asks the ZAP handler once, at the handshake of a connection. A key that is revoked later must not be used through
a connection that is open already. So the key of each message is checked again, and a revoked key's connections are cut.
"""

from collections.abc import Mapping
from math import inf
from pathlib import Path

import zmq
from zmq.auth import Authenticator

from racepool.broker.allow_list import AllowList
from racepool.broker.tasks import Peer
from racepool.protocol.logs import Log
from racepool.protocol.sockets import Connection, Context, Guard, KeyPair, sender_connection, sender_key

KNOCKS_PER_TURN = 16
LOOK_S = 1.0
REFUSALS_LOG_S = 10.0
SHOWN_KEY_CHARS = 6
MIN_PRUNED = 64


class Door:
    """One tcp socket: its peers, each with its key and its connection."""

    def __init__(self, domain: str, allowed: AllowList) -> None:
        self.domain = domain
        self._allowed = allowed
        self._inside: dict[Peer, tuple[str, Connection | None]] = {}
        self._prune_at = MIN_PRUNED

    def admits(self, peer: Peer, source: zmq.Frame | None) -> bool:
        """Whether the sender of this frame may speak here. If not, its connection is cut."""
        key = sender_key(source)
        if key is None or self._allowed.name_of(self.domain, key) is None:
            connection = sender_connection(source)
            if connection is not None:
                connection.cut()
            return False
        if peer not in self._inside:
            self._inside[peer] = (key, sender_connection(source))
            self._prune()
        return True

    def evict(self) -> list[Peer]:
        """Cuts the connections whose key is not allowed any more; returns their peers."""
        evicted = [peer for peer, (key, _) in self._inside.items() if self._allowed.name_of(self.domain, key) is None]
        for peer in evicted:
            _, connection = self._inside.pop(peer)
            if connection is not None:
                connection.cut()
        return evicted

    def _prune(self) -> None:
        """Forgets closed connections, each time that the number of peers has doubled."""
        if len(self._inside) >= self._prune_at:
            self._inside = {
                peer: (key, connection)
                for peer, (key, connection) in self._inside.items()
                if connection is not None and connection.is_open
            }
            self._prune_at = max(MIN_PRUNED, 2 * len(self._inside))


class Gate:
    """All tcp sockets of a broker. Poll `source`, and call `answer` when it is readable.

    It answers in the broker's own thread, so that an error here ends the broker. In a thread of its own, an error would
    go unnoticed, and no peer could connect.
    """

    def __init__(self, context: Context, keys: KeyPair, directory: Path, log: Log) -> None:
        self._log = log
        self._keys = keys
        self._allowed = AllowList(directory)
        self._doors: dict[str, Door] = {}
        self._refused = 0
        self._first_refused: Mapping[str, str] = {}
        self._told_at = -inf
        self._looked_at = -inf
        self._authenticator = Authenticator(context)
        self._authenticator.start()
        self._tell_broken()
        if self._allowed.is_empty:
            log.warning("nobody_allowed", reason="no key may come in over tcp yet; see `racepool keys allow`")

    @property
    def source(self) -> zmq.Socket[bytes]:
        """The socket on which libzmq asks about a key."""
        return self._authenticator.zap_socket

    def door(self, domain: str) -> tuple[Door, Guard]:
        """A door for the socket of this name, and the guard that this socket must be bound with."""
        door = self._doors[domain] = Door(domain, self._allowed)
        self._authenticator.configure_curve_callback(domain, self)
        return door, Guard(domain, self._keys)

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether the key is allowed at the socket. zmq.auth calls it."""
        shown = key.decode()
        if self._allowed.name_of(domain, shown) is not None:
            return True
        if not self._refused:
            who = ", ".join(self._allowed.names_of(shown)) or f"{shown[:SHOWN_KEY_CHARS]}…"
            self._first_refused = {"socket": domain, "key": who}
        self._refused += 1
        return False

    def answer(self) -> None:
        """Answers new connections, within a quota: a flood of strangers must not delay the peers that are connected."""
        zap = self.source
        for _ in range(KNOCKS_PER_TURN):
            if not zap.poll(0):
                return
            answering = self._authenticator.handle_zap_message(zap.recv_multipart())
            try:
                answering.send(None)  # it is a coroutine because a callback may wait; ours never does
            except StopIteration:
                continue
            raise RuntimeError("the ZAP handler waits for something")

    def look(self, now: float) -> Mapping[str, list[Peer]]:
        """Looks at the list, once in `LOOK_S`; returns the peers that were cut off, by socket."""
        self._tell_refused(now)
        if now < self._looked_at + LOOK_S:
            return {}
        self._looked_at = now
        change = self._allowed.refresh()
        if change is None:
            return {}
        new, gone = change
        for entry in sorted(new):
            self._log.info("key_allowed", name=entry.name, role=entry.role)
        for entry in sorted(gone):
            self._log.warning("key_revoked", name=entry.name, role=entry.role)
        self._tell_broken()
        return {domain: door.evict() for domain, door in self._doors.items()}

    def _tell_broken(self) -> None:
        for reason in self._allowed.broken.values():
            self._log.error("key_unreadable", reason=reason)

    def _tell_refused(self, now: float) -> None:
        """Logs one line for all refusals in a while: a refused peer tries again and again."""
        if self._refused and now >= self._told_at + REFUSALS_LOG_S:
            self._log.warning("key_refused", **self._first_refused, count=self._refused)
            self._told_at, self._refused = now, 0
