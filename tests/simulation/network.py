"""A fake clock, and a fake network: it delays messages, and loses those that the socket of a dead peer loses."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from heapq import heappop, heappush
from itertools import count
from math import inf
from random import Random
from typing import Any

from racepool.protocol.messages import Message

DELAYS_S = (0.0002, 0.0002, 0.001, 0.004, 0.03)
RECONNECT_S = 0.05
NOTICE_S = 0.003  # for this long after its end, a connection still takes messages, which nobody reads


class Clock:
    """Fake time, in seconds, and the events that will happen, with their instants."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = count()

    def at(self, instant: float, event: Callable[[], None]) -> None:
        """Adds an event. It happens after earlier added events of the same instant."""
        heappush(self._events, (max(instant, self.now), next(self._number), event))

    def run_until(self, instant: float) -> None:
        """Runs all events up to this instant."""
        while self._events and self._events[0][0] <= instant:
            self.now, _, event = heappop(self._events)
            event()
        self.now = max(self.now, instant)


class Program(ABC):
    """A process, or one of its threads. It takes a turn when it is woken, unless it is frozen or dead."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.is_dead = False
        self.frozen_since: float | None = None
        self.troubled_at = -inf
        self._wake_at = inf

    @property
    def is_running(self) -> bool:
        return not self.is_dead and self.frozen_since is None

    def wake(self, at: float) -> None:
        """Makes it take a turn at this instant, unless it takes one sooner."""
        if at < self._wake_at:
            self._wake_at = at
            self.clock.at(at, lambda: self._on_wake(at))

    def freeze(self) -> None:
        if self.is_running:
            self.frozen_since = self.clock.now

    def resume(self) -> None:
        if not self.is_dead and self.frozen_since is not None:
            stood_still_s = self.clock.now - self.frozen_since
            self.frozen_since, self.troubled_at = None, self.clock.now
            self.on_resumed(stood_still_s)
            self.wake(self.clock.now)

    def is_well_since(self, instant: float) -> bool:
        """Whether nothing has kept it from sending messages since then."""
        return self.is_running and self.troubled_at < instant

    @abstractmethod
    def on_resumed(self, stood_still_s: float) -> None:
        """It runs again, after it stood still for this long."""

    @abstractmethod
    def turn(self) -> None: ...

    @abstractmethod
    def next_check(self) -> float: ...

    def _on_wake(self, at: float) -> None:
        if at != self._wake_at:
            return
        self._wake_at = inf
        if self.is_running:
            self.turn()
            self.wake(max(self.next_check(), self.clock.now + 0.001))


class Port(Enum):
    """The broker's sockets, in the order of its turn."""

    BACKEND = 1
    HEARTBEAT = 2
    FRONTEND = 3


@dataclass(slots=True, eq=False)
class Link:
    """A DEALER's connection to one of the broker's sockets. `peer` is its routing id there, empty without a broker."""

    port: Port
    dealer: Program
    pid: int | None
    peer: bytes = b""
    to_broker: deque[tuple[float, Message]] = field(default_factory=deque)
    to_dealer: deque[tuple[float, Message]] = field(default_factory=deque)
    closed_at: float | None = None
    is_cut: bool = False

    def received(self, now: float) -> Iterator[Any]:
        """The messages that have come from the broker by now."""
        while self.to_dealer and self.to_dealer[0][0] <= now:
            yield self.to_dealer.popleft()[1]


class Network:
    """All connections. Messages arrive in order, some time later, or are lost with one end of their connection."""

    def __init__(self, clock: Clock, random: Random, send_limit: int) -> None:
        self._clock = clock
        self._random = random
        self._send_limit = send_limit
        self._broker: Program | None = None
        self._links: dict[Port, list[Link]] = {port: [] for port in Port}
        self._at: dict[tuple[Port, bytes], Link] = {}
        self._peers = count(1)

    # --- the dealers' end ---------------------------------------------------------------------------------------------

    def connect(self, port: Port, dealer: Program, pid: int | None) -> Link:
        link = Link(port, dealer, pid)
        self._links[port].append(link)
        if self._broker is not None:
            self._meet(link)
        return link

    def close(self, link: Link, *, lingers: bool = False) -> None:
        """The dealer's end is closed or dead. The first messages that it sent still arrive, the others are lost."""
        if link.closed_at is not None:
            return
        link.closed_at = self._clock.now
        link.to_dealer.clear()
        if not link.peer:
            link.to_broker.clear()
        elif not lingers:
            self._drop_last(link.to_broker)

    def resumed(self, program: Program) -> None:
        """The program runs again. Its I/O thread stood still too: what came meanwhile arrives a little later."""
        for links in self._links.values():
            for link in links:
                if program is self._broker:
                    link.to_broker = self._late(link.to_broker)
                elif program is link.dealer:
                    link.to_dealer = self._late(link.to_dealer)

    def cut(self, dealer: Program) -> None:
        """No message passes through these connections any more, and neither end notices."""
        for links in self._links.values():
            for link in links:
                if link.dealer is dealer and link.closed_at is None:
                    link.is_cut = True
                    link.to_broker.clear()
                    link.to_dealer.clear()

    def send_to_broker(self, link: Link, message: Message) -> None:
        if link.is_cut:
            return
        at = self._arrival(link.to_broker) if link.peer else inf
        link.to_broker.append((at, message))
        if self._broker is not None and link.peer:
            self._broker.wake(at)

    # --- the broker's end ---------------------------------------------------------------------------------------------

    def broker_starts(self, broker: Program) -> None:
        """Open connections reach it after a while, and send the messages in their queues."""
        self._broker = broker
        for links in self._links.values():
            links[:] = [link for link in links if link.closed_at is None]
            for link in links:
                delay_s = self._random.random() * RECONNECT_S
                self._clock.at(self._clock.now + delay_s, partial(self._meet_again, link, broker))

    def broker_ends(self) -> None:
        """Unread messages are lost, except those that had not left their sender. Some of those that it sent arrive."""
        self._broker = None
        self._at.clear()
        for links in self._links.values():
            for link in links:
                link.peer, link.is_cut = b"", False
                self._drop_last(link.to_dealer)
                for _ in range(self._random.randint(0, len(link.to_broker))):
                    link.to_broker.popleft()
                link.to_broker = deque((inf, message) for _, message in link.to_broker)

    def receive(self, port: Port) -> tuple[Link, Any] | None:
        """The next message that has come in. The peers take turns."""
        links = self._links[port]
        for _ in range(len(links)):
            link = links.pop(0)
            if link.closed_at is None or link.to_broker:
                links.append(link)
            else:
                continue
            if link.to_broker and link.to_broker[0][0] <= self._clock.now:
                return link, link.to_broker.popleft()[1]
        return None

    def send_to_dealer(self, port: Port, peer: bytes, message: Message) -> bool:
        """Sends a message; false if there is no such peer any more, or it reads nothing."""
        link = self._at.get((port, peer))
        if link is None:
            return False
        if link.closed_at is not None:
            if self._clock.now > link.closed_at + NOTICE_S:
                del self._at[port, peer]
                return False
            return True
        if link.is_cut:
            return True
        if len(link.to_dealer) >= self._send_limit and link.dealer.frozen_since is not None:
            return False
        at = self._arrival(link.to_dealer)
        link.to_dealer.append((at, message))
        link.dealer.wake(at)
        return True

    def next_arrival(self) -> float:
        """When the broker will have something to read."""
        return min(
            (link.to_broker[0][0] for links in self._links.values() for link in links if link.to_broker), default=inf
        )

    def _meet(self, link: Link) -> None:
        link.peer = b"peer-%d" % next(self._peers)
        self._at[link.port, link.peer] = link

    def _meet_again(self, link: Link, broker: Program) -> None:
        if link.closed_at is not None or link.peer or self._broker is not broker:
            return
        self._meet(link)
        unsent, link.to_broker = link.to_broker, deque()
        for _, message in unsent:
            self.send_to_broker(link, message)

    def _late(self, queue: deque[tuple[float, Message]]) -> deque[tuple[float, Message]]:
        at = self._clock.now + self._random.choice(DELAYS_S)
        return deque((max(arrival, at), message) for arrival, message in queue)

    def _arrival(self, queue: deque[tuple[float, Message]]) -> float:
        at = self._clock.now + self._random.choice(DELAYS_S)
        return max(at, queue[-1][0]) if queue else at

    def _drop_last(self, queue: deque[tuple[float, Message]]) -> None:
        for _ in range(self._random.randint(0, len(queue))):
            queue.pop()
