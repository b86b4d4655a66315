"""A hostile peer as a process of its own: `python -m tests.fuzzing.peer KIND SEED SECONDS RATE RUN_DIR`.

Prints how much it sent of each kind, as JSON. It lives only a short time: a broker gives tasks to any peer that says
READY, and gets them back only when that process ends.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from math import inf
from pathlib import Path
from random import Random

import zmq

from racepool.commands.chaos.corpus import real
from racepool.protocol.endpoints import SOCKETS, sockets_in
from racepool.protocol.frames import TO_WORKER, BadFrameError, decode, encode
from racepool.protocol.messages import (
    AskStats,
    Bye,
    Cancel,
    Epoch,
    Expire,
    Heartbeat,
    Hello,
    Name,
    Payload,
    Ping,
    Ready,
    Result,
    Submit,
    Welcome,
)
from racepool.protocol.sockets import Context, Socket, dealer, receive
from tests.fuzzing.corpus import any_frames
from tests.fuzzing.payloads import HOSTILE
from tests.fuzzing.strangers import ATTEMPTS
from tests.fuzzing.zmtp import RawPeer, frame, multipart, plausible_routing_id

SEND_LIMIT = 1_000  # libzmq must not queue more: it would use all memory
PIDS = (0, 1, 2**31, 2**40, 2**53 - 1)
FLOOD = 4_200  # more than the broker knows clients or workers
CLAIMS = 1_000
LINGER_MS = 200


class Doors:
    """The four addresses of a run directory, and DEALER sockets for them."""

    def __init__(self, directory: str, dice: Random) -> None:
        self.endpoints = sockets_in(Path(directory))
        self.sent: Counter[str] = Counter()
        self.dice = dice
        self._context: Context = zmq.Context()

    def dealer(self, setting: str) -> Socket:
        socket = dealer(self._context, self.endpoints[setting])
        socket.set(zmq.SNDHWM, SEND_LIMIT)
        socket.set(zmq.SNDTIMEO, 1_000)
        return socket

    def any_endpoint(self) -> str:
        return self.endpoints[self.dice.choice(list(SOCKETS))]

    def say(self, socket: Socket, frames: list[Payload], kind: str) -> None:
        with suppress(zmq.Again):
            socket.send_multipart(frames)
            self.sent[kind] += 1

    def close(self) -> None:
        self._context.destroy(linger=LINGER_MS)


def turns(seconds: float, rate: float) -> Iterator[int]:
    """Yields at this rate until the time is over: a flood without bound would only measure the machine."""
    started_at = time.monotonic()
    index = 0
    while (now := time.monotonic()) < started_at + seconds:
        ahead_s = started_at + index / rate - now  # with an infinite rate, index / rate is 0
        if ahead_s > 0:
            time.sleep(ahead_s)
        yield index
        index += 1


Peer = Callable[[Doors, float, float], None]


def bytes_of_all_sorts(doors: Doors, seconds: float, rate: float) -> None:
    """Connections that speak no ZMTP, or break it; the last few stay open."""
    names = list(ATTEMPTS)
    opened: list[RawPeer] = []
    for index in turns(seconds, rate):
        name = names[index % len(names)]
        peer = RawPeer(doors.any_endpoint())
        opened.append(peer)
        ATTEMPTS[name](peer, doors.dice)
        doors.sent[name] += 1
        if doors.dice.random() < 0.5:
            peer.half_close()
        if len(opened) > 50:
            opened.pop(doors.dice.randrange(50)).close()


def broken_messages(doors: Doors, seconds: float, rate: float) -> None:
    """Sends `any_frames` to all sockets."""
    sockets = [doors.dealer(setting) for setting in SOCKETS]
    for index in turns(seconds, rate):
        doors.say(sockets[index % 4], any_frames(doors.dice), "broken_messages")
        _drain(sockets[index % 4])


def false_clients(doors: Doors, seconds: float, rate: float) -> None:
    """Valid messages out of order: without a session, for unknown tasks, under one name in two places."""
    dice = doors.dice
    sockets = [doors.dealer("endpoint") for _ in range(4)]
    names = [real(Hello, dice).client_id for _ in range(3)]
    for index in turns(seconds, rate):
        socket = dice.choice(sockets)
        message = dice.choice(
            [
                Hello(dice.choice(names), dice.choice([0, 1, index, 2**53 - 1]), dice.choice(PIDS), 0),
                real(Expire, dice),
                real(Cancel, dice),
                Ping(0),
                AskStats(),
                Bye(),
            ]
        )
        doors.say(socket, encode(message), "false_clients")
        _drain(socket)


def costly_clients(doors: Doors, seconds: float, rate: float) -> None:
    """A client with costly payloads; some tasks are cancelled, some abandoned."""
    dice = doors.dice
    socket = doors.dealer("endpoint")
    doors.say(socket, encode(real(Hello, dice, session=1, held=0)), "costly_clients")
    for _ in turns(seconds, rate / 50):
        payload = dice.choice([*HOSTILE.values(), dice.randbytes(2_000)])
        submit = real(Submit, dice, payload=payload, waited_ms=0, run_timeout_ms=5_000)
        doors.say(socket, encode(submit), "costly_clients")
        if dice.random() < 0.2:
            doors.say(socket, encode(Cancel(submit.task_id, kill=False)), "costly_clients")
        _drain(socket)


def false_workers(doors: Doors, seconds: float, rate: float) -> None:
    """READY with names and pids of other workers, stale results, heartbeats of sessions that never existed."""
    dice = doors.dice
    beats = doors.dealer("heartbeat_endpoint")
    sockets = [doors.dealer("backend") for _ in range(4)]
    epochs = [real(Welcome, dice).epoch]
    for _ in turns(seconds, rate):
        at = dice.randrange(4)
        name = Name(dice.choice(["worker-0", "worker-1", "worker-2", "worker-9", "nobody"]))
        message = dice.choice(
            [
                real(Ready, dice, name=name, pid=dice.choice(PIDS)),
                real(Result, dice, epoch=dice.choice(epochs), lease=dice.randrange(500)),
                real(Result, dice),
            ]
        )
        doors.say(sockets[at], encode(message), "false_workers")
        doors.say(beats, encode(real(Heartbeat, dice, name=name, pid=dice.choice(PIDS))), "false_workers")
        epochs += _epochs_heard(sockets[at])
        if dice.random() < 0.1:
            sockets[at].close(linger=0)
            sockets[at] = doors.dealer("backend")
        _drain(beats)


def crowd_of_clients(doors: Doors, seconds: float, _rate: float) -> None:
    """More HELLOs than the broker may know clients, each through its own connection."""
    _crowd(doors, "endpoint", seconds, lambda: encode(real(Hello, doors.dice, session=1, held=0)))


def crowd_of_workers(doors: Doors, seconds: float, _rate: float) -> None:
    """More READYs than the broker may know workers, each through its own connection."""
    _crowd(doors, "backend", seconds, lambda: encode(real(Ready, doors.dice)))


def _crowd(doors: Doors, setting: str, seconds: float, words: Callable[[], list[Payload]]) -> None:
    """Connects in batches. A batch must be quick, or the broker forgets the first peers before the last ones come."""
    crowd: list[RawPeer] = []
    for _ in turns(seconds, inf):
        if len(crowd) < FLOOD:
            batch = [RawPeer(doors.endpoints[setting]) for _ in range(100)]
            for peer in batch:
                peer.offer_hand()
            crowd += [peer for peer in batch if peer.await_hand()]
            for peer in batch:
                doors.sent[f"crowd at {setting}"] += peer.send(multipart([bytes(each) for each in words()]))
    for peer in crowd:
        peer.close()


def claims_of_identities(doors: Doors, seconds: float, rate: float) -> None:
    """Routing ids in the form that the ROUTER itself chooses, each on an open connection, between anonymous ones."""
    peers = []
    endpoint = doors.any_endpoint()
    for index in turns(seconds, rate):
        if index == CLAIMS:
            return
        peers.append(RawPeer(endpoint))
        peers[-1].shake_hands(plausible_routing_id() if index % 4 else b"")
        peers[-1].send(frame(b"x"))
        doors.sent["claims_of_identities"] += 1


def endless_messages(doors: Doors, seconds: float, _rate: float) -> None:
    """Messages of very many frames, to any socket."""
    for _ in turns(seconds, 2):
        socket = doors.dealer(doors.dice.choice(list(SOCKETS)))
        doors.say(socket, [b""] * doors.dice.choice([100, 20_000, 200_000]), "endless_messages")
        socket.close(linger=LINGER_MS)


def deaf_peers(doors: Doors, seconds: float, rate: float) -> None:
    """Clients that ask all the time and read no answer."""
    clients, monitors = doors.dealer("endpoint"), doors.dealer("stats_endpoint")
    for socket in (clients, monitors):
        socket.set(zmq.RCVHWM, 1)
    doors.say(clients, encode(real(Hello, doors.dice, session=1, held=0)), "deaf_peers")
    for _ in turns(seconds, rate / 2):
        doors.say(clients, encode(Ping(0)), "deaf_peers")
        doors.say(monitors, [b"?"], "deaf_peers")


def _drain(socket: Socket) -> None:
    while receive(socket) is not None:
        pass


def _epochs_heard(socket: Socket) -> list[Epoch]:
    epochs = []
    while (frames := receive(socket)) is not None:
        with suppress(BadFrameError):
            message = decode(frames, TO_WORKER)
            epochs += [message.epoch] if isinstance(message, Welcome) else []
    return epochs


PEERS: dict[str, Peer] = {
    peer.__name__: peer
    for peer in (
        bytes_of_all_sorts,
        broken_messages,
        false_clients,
        costly_clients,
        false_workers,
        crowd_of_clients,
        crowd_of_workers,
        claims_of_identities,
        endless_messages,
        deaf_peers,
    )
}


def main(kind: str, seed: str, seconds: str, rate: str, directory: str) -> None:
    """Runs one hostile peer."""
    doors = Doors(directory, Random(seed))
    PEERS[kind](doors, float(seconds), float(rate))
    print(json.dumps(doors.sent), flush=True)  # noqa: T201  # the campaign reads it
    doors.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
