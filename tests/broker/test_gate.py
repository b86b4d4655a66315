"""The gate with real tcp sockets, alone and in a broker process: which peers are heard, and which are cut off."""

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from socket import create_connection, create_server
from typing import Any

import pytest
import structlog
import zmq
from structlog.testing import CapturingLogger
from zmq.utils.monitor import recv_monitor_message

from racepool.broker.allow_list import OPENS
from racepool.broker.gate import LOOK_S, MIN_PRUNED, REFUSALS_LOG_S, SHOWN_KEY_CHARS, Door, Gate
from racepool.protocol.endpoints import SOCKETS
from racepool.protocol.frames import TO_CLIENT, TO_WORKER, decode, encode
from racepool.protocol.keys import Role
from racepool.protocol.messages import (
    Assign,
    Heartbeat,
    Hello,
    Id,
    Name,
    Outcome,
    Ping,
    Pong,
    Ready,
    Result,
    Submit,
    Welcome,
)
from racepool.protocol.sockets import Context, PeerKeys, Socket, connect, dealer, receive_from, router, say
from racepool.protocol.stats import PoolStats
from tests.broker.building import ended
from tests.key_files import Keyring, allow, allowed_file, key_pair, tcp_endpoints, write_key
from tests.running import ROOT, WaitUntil, environment

PATIENCE_MS = 60_000
REFUSED_S = 1.0  # an answer over loopback takes a hundredth of that
SLOW = {"liveness": 60, "heartbeat_interval": 1}  # raw peers send no heartbeats
QUESTIONS: dict[str, Callable[[], list[Any]]] = {
    "frontend": lambda: encode(Hello(Id(os.urandom(16)), 1, 1, 0)),
    "backend": lambda: encode(Ready(Id(os.urandom(16)), 1, Name(os.urandom(8).hex()), 1, Name("raw"), 0)),
    "heartbeat": lambda: encode(
        Heartbeat(Id(os.urandom(16)), Name("x"), 1, Name("raw"), 0, busy=False, draining=False, rss_bytes=1)
    ),
    "stats": lambda: [b"?"],
}
SETTING = {domain: setting for setting, domain in SOCKETS.items()}


@pytest.fixture
def directory() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="rp-", dir="/tmp"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def ring(directory: Path) -> Keyring:
    return Keyring(directory / "keys")


@pytest.fixture
def context() -> Iterator[Context]:
    context: Context = zmq.Context()
    yield context
    context.destroy(linger=0)


Dial = Callable[[str, PeerKeys | None], Socket]


@pytest.fixture
def dial(context: Context) -> Iterator[Dial]:
    """Connects dealers; all are closed at the end."""
    opened: list[Socket] = []

    def connected(endpoint: str, keys: PeerKeys | None) -> Socket:
        opened.append(dealer(context, endpoint, keys))
        return opened[-1]

    yield connected
    for socket in opened:
        socket.close(linger=0)


# --- a gate in this process -------------------------------------------------------------------------------------------


class Guarded:
    """A gate with one socket behind it, served by the test."""

    def __init__(self, context: Context, ring: Keyring, domain: str) -> None:
        self.log = CapturingLogger()
        self.gate = Gate(context, ring.broker, ring.dir, structlog.wrap_logger(self.log, processors=[]))
        self.endpoint = tcp_endpoints()["endpoint"]
        self.door, guard = self.gate.door(domain)
        self.socket = router(context, self.endpoint, send_limit=10, payload_limit=1_000, guard=guard)
        self._poller = zmq.Poller()
        self._poller.register(self.gate.source, zmq.POLLIN)
        self._poller.register(self.socket, zmq.POLLIN)

    def next_message(self, timeout_s: float = PATIENCE_MS / 1_000) -> tuple[bytes, list[Any], zmq.Frame | None] | None:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            ready = dict(self._poller.poll(20))
            if self.gate.source in ready:
                self.gate.answer()
            if self.socket in ready:
                return receive_from(self.socket)
        return None

    def heard_from(self, peer: Socket, word: bytes = b"x") -> tuple[bytes, zmq.Frame | None]:
        peer.send(word)
        message = self.next_message()
        assert message is not None
        assert message[1] == [word]
        return message[0], message[2]

    def close(self) -> None:
        self.socket.close(linger=0)
        self.gate.source.close(linger=0)

    def logged(self, event: str) -> list[dict[str, Any]]:
        return [call.kwargs for call in self.log.calls if call.kwargs["event"] == event]


@pytest.fixture
def guard(context: Context, ring: Keyring) -> Iterator[Callable[[str], Guarded]]:
    made: list[Guarded] = []

    def make(domain: str) -> Guarded:
        made.append(Guarded(context, ring, domain))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def guarded(guard: Callable[[str], Guarded]) -> Guarded:
    return guard("backend")


def test_message_of_a_revoked_key_is_not_admitted(guarded: Guarded, ring: Keyring, dial: Dial) -> None:
    peer = dial(guarded.endpoint, ring.admit(Role.WORKER, "mill"))
    guarded.gate.look(0.0)
    name, source = guarded.heard_from(peer)
    assert guarded.door.admits(name, source)

    ring.dismiss(Role.WORKER, "mill")
    guarded.gate._allowed.refresh()  # like `look`, but without evicting anybody
    monitor = peer.get_monitor_socket(zmq.EVENT_DISCONNECTED)

    peer.send(b"x")
    late = guarded.next_message()
    assert late is not None
    assert not guarded.door.admits(late[0], late[2])
    assert monitor.poll(PATIENCE_MS), "its connection is cut"
    peer.disable_monitor()
    monitor.close(linger=0)
    assert guarded.door.evict() == [name]


def test_connection_of_a_revoked_key_is_cut_even_if_it_is_silent(guarded: Guarded, ring: Keyring, dial: Dial) -> None:
    revoked, kept = (dial(guarded.endpoint, ring.admit(Role.WORKER, name)) for name in ("mill", "barn"))
    guarded.gate.look(0.0)
    names = {}
    for peer in (revoked, kept):
        names[peer], source = guarded.heard_from(peer)
        assert guarded.door.admits(names[peer], source)
    monitor = revoked.get_monitor_socket(zmq.EVENT_DISCONNECTED)

    ring.dismiss(Role.WORKER, "mill")
    evicted = guarded.gate.look(LOOK_S)

    assert evicted == {"backend": [names[revoked]]}
    assert monitor.poll(PATIENCE_MS)
    assert recv_monitor_message(monitor)["event"] == zmq.EVENT_DISCONNECTED
    revoked.disable_monitor()
    monitor.close(linger=0)
    guarded.heard_from(kept)
    assert guarded.next_message(REFUSED_S) is None
    assert guarded.logged("key_revoked") == [{"event": "key_revoked", "name": "mill", "role": Role.WORKER}]
    assert guarded.gate.look(2 * LOOK_S) == {}


def test_key_that_is_allowed_later_may_connect(guarded: Guarded, ring: Keyring, dial: Dial) -> None:
    keys = ring.stranger()
    dial(guarded.endpoint, keys).send(b"early")
    assert guarded.next_message(REFUSED_S) is None

    allow(ring.dir, Role.WORKER, "mill", keys.own)
    guarded.gate.look(0.0)

    guarded.heard_from(dial(guarded.endpoint, keys))


def test_message_of_a_refused_peer_is_never_received(
    guarded: Guarded, ring: Keyring, dial: Dial, wait_until: WaitUntil
) -> None:
    peer = dial(guarded.endpoint, ring.stranger())
    assert guarded.next_message(REFUSED_S) is None
    wait_until(lambda: not peer.poll(0, zmq.POLLOUT))  # a blocking send would never return

    say(peer, [b"x"])

    assert guarded.next_message(REFUSED_S) is None


def test_refusals_are_one_line_with_the_first_characters_of_the_key(
    guarded: Guarded, ring: Keyring, dial: Dial
) -> None:
    strangers = [ring.stranger() for _ in range(5)]
    for keys in strangers:
        dial(guarded.endpoint, keys)
    assert guarded.next_message(REFUSED_S) is None

    guarded.gate.look(0.0)
    guarded.gate.look(0.1)

    (line,) = guarded.logged("key_refused")
    assert (line["socket"], line["count"]) == ("backend", 5)
    assert line["key"] in {f"{keys.own.public.decode()[:SHOWN_KEY_CHARS]}…" for keys in strangers}

    dial(guarded.endpoint, ring.stranger())
    assert guarded.next_message(REFUSED_S) is None
    guarded.gate.look(REFUSALS_LOG_S / 2)
    assert len(guarded.logged("key_refused")) == 1
    guarded.gate.look(REFUSALS_LOG_S)
    assert [line["count"] for line in guarded.logged("key_refused")] == [5, 1]


def test_known_key_at_the_wrong_socket_is_refused_by_its_name(guarded: Guarded, ring: Keyring, dial: Dial) -> None:
    keys = ring.admit(Role.CLIENT, "web")
    guarded.gate.look(0.0)

    dial(guarded.endpoint, keys)
    assert guarded.next_message(REFUSED_S) is None
    guarded.gate.look(0.0)

    assert [line["key"] for line in guarded.logged("key_refused")] == ["web"]


def test_broken_key_file_allows_nobody_and_the_others_count(guarded: Guarded, ring: Keyring, dial: Dial) -> None:
    keys = ring.admit(Role.WORKER, "mill")
    secret = key_pair()
    write_key(allowed_file(ring.dir, Role.WORKER, "secret"), secret.public, secret.secret)
    for name, text in (("empty", ""), ("no-key", 'public-key = "short"'), ("garbage", "public-key\nsecret-key\n")):
        allowed_file(ring.dir, Role.WORKER, name).write_text(text)

    guarded.gate.look(0.0)

    guarded.heard_from(dial(guarded.endpoint, keys))
    reasons = [line["reason"] for line in guarded.logged("key_unreadable")]
    assert sorted(Path(reason.partition(": ")[0]).stem for reason in reasons) == [
        "empty",
        "garbage",
        "no-key",
        "secret",
    ]
    assert secret.secret.decode() not in str(reasons)


def test_peers_that_have_left_are_forgotten(guard: Callable[[str], Guarded], ring: Keyring, dial: Dial) -> None:
    keys = ring.admit(Role.CLIENT, "web")
    guarded = guard("stats")

    for _ in range(3 * MIN_PRUNED):
        peer = dial(guarded.endpoint, keys)
        with closing(peer):
            assert guarded.door.admits(*guarded.heard_from(peer))

    assert len(guarded.door._inside) <= MIN_PRUNED + 1


def test_many_peers_that_stay_are_remembered(guard: Callable[[str], Guarded], ring: Keyring, dial: Dial) -> None:
    keys = ring.admit(Role.CLIENT, "web")
    guarded = guard("stats")

    for _ in range(MIN_PRUNED + 10):
        assert guarded.door.admits(*guarded.heard_from(dial(guarded.endpoint, keys)))
    assert guarded.door._prune_at == 2 * MIN_PRUNED, "it does not look at all of them for each new one"

    ring.dismiss(Role.CLIENT, "web")
    assert len(guarded.gate.look(LOOK_S)["stats"]) == MIN_PRUNED + 10


def test_message_without_a_key_is_not_admitted(guarded: Guarded) -> None:
    assert not guarded.door.admits(b"peer", None)
    assert not guarded.door.admits(b"peer", zmq.Frame(b"made here"))


class Wiretap:
    """A tcp relay in front of a socket, which keeps all that a peer sends through it."""

    def __init__(self, endpoint: str) -> None:
        self._address = address_of(endpoint)
        self._listening = create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self._listening.getsockname()[1]}"
        self.taken = b""
        threading.Thread(target=self._relay, daemon=True).start()

    def _relay(self) -> None:
        peer, _ = self._listening.accept()
        with peer, create_connection(self._address) as beyond, self._listening:
            while True:
                for source in select.select([peer, beyond], [], [])[0]:
                    part = source.recv(65_536)
                    if not part:
                        return
                    if source is peer:
                        self.taken += part
                    (beyond if source is peer else peer).sendall(part)


def address_of(endpoint: str) -> tuple[str, int]:
    host, port = endpoint.removeprefix("tcp://").split(":")
    return host, int(port)


def test_what_an_allowed_peer_has_sent_opens_nothing_when_it_is_sent_again(
    guarded: Guarded, ring: Keyring, dial: Dial
) -> None:
    keys, tap = ring.admit(Role.WORKER, "mill"), Wiretap(guarded.endpoint)
    guarded.gate.look(0.0)
    guarded.heard_from(dial(tap.endpoint, keys), b"a secret word")
    assert b"CURVE" in tap.taken
    assert b"a secret word" not in tap.taken

    with create_connection(address_of(guarded.endpoint)) as replaying:
        replaying.sendall(tap.taken)
        assert guarded.next_message(REFUSED_S) is None


def test_handshakes_that_never_end_keep_no_allowed_peer_out(guarded: Guarded, ring: Keyring, dial: Dial) -> None:
    """Half of them stop in the greeting, the others after a whole greeting and half a command."""
    keys, tap = ring.admit(Role.WORKER, "mill"), Wiretap(guarded.endpoint)
    guarded.gate.look(0.0)
    guarded.heard_from(dial(tap.endpoint, keys))

    with ExitStack() as half_open:
        for number in range(200):
            stranger = half_open.enter_context(create_connection(address_of(guarded.endpoint)))
            stranger.sendall(tap.taken[: (10, 100)[number % 2]])
        guarded.heard_from(dial(guarded.endpoint, keys))
        guarded.heard_from(dial(guarded.endpoint, keys))


def test_error_in_the_gate_is_raised(guarded: Guarded, dial: Dial, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the handler ran in a thread of its own and died, no new peer could connect, and nobody would know."""

    def fail(_domain: str, _key: str | None) -> str | None:
        raise LookupError("the list is gone")

    monkeypatch.setattr(guarded.gate._allowed, "name_of", fail)
    dial(guarded.endpoint, PeerKeys(key_pair(), guarded.gate._keys.public))

    with pytest.raises(LookupError):
        guarded.next_message()


def test_every_socket_of_a_broker_has_a_door() -> None:
    assert set(OPENS) == set(SOCKETS.values())
    assert all(isinstance(Door(domain, None), Door) for domain in OPENS)  # type: ignore[arg-type]


# --- a broker process -------------------------------------------------------------------------------------------------


class Broker:
    """A broker process on tcp, and the sockets of its peers."""

    def __init__(self, directory: Path, ring: Keyring, dial: Dial) -> None:
        self.endpoints = tcp_endpoints()
        self.ring = ring
        self._dial = dial
        self._monitor = ring.admit(Role.MONITOR, "watcher")
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "racepool.broker"],
            cwd=ROOT,
            env=environment(directory / "run", keys=ring.dir, log_level="debug", **SLOW, **self.endpoints),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def dealer(self, domain: str, keys: PeerKeys | None) -> Socket:
        socket = self._dial(self.endpoints[SETTING[domain]], keys)
        socket.set(zmq.RCVTIMEO, PATIENCE_MS)
        return socket

    def client(self, keys: PeerKeys) -> Socket:
        socket = self.dealer("frontend", keys)
        say(socket, QUESTIONS["frontend"]())
        assert isinstance(decode(socket.recv_multipart(), TO_CLIENT), Welcome)
        return socket

    def worker(self, keys: PeerKeys) -> Socket:
        socket = self.dealer("backend", keys)
        say(socket, QUESTIONS["backend"]())
        assert isinstance(decode(socket.recv_multipart(), TO_WORKER), Welcome)
        return socket

    def stats(self) -> PoolStats:
        with self.dealer("stats", self._monitor) as socket:
            socket.send(b"?")
            return PoolStats.model_validate_json(socket.recv())

    def end(self) -> str:
        """All its output."""
        self.process.send_signal(signal.SIGTERM)
        output, _ = self.process.communicate(timeout=20)
        assert self.process.returncode == 0
        return str(output)


@pytest.fixture
def start(directory: Path, ring: Keyring, dial: Dial) -> Iterator[Callable[[], Broker]]:
    """Starts the broker. It knows the keys that were allowed before."""
    started: list[Broker] = []

    def start_it() -> Broker:
        started.append(Broker(directory, ring, dial))
        return started[-1]

    yield start_it
    for each in started:
        each.process.kill()
        each.process.communicate()


@pytest.mark.parametrize("domain", sorted(OPENS))
def test_each_key_opens_the_sockets_of_its_role_and_no_other(
    start: Callable[[], Broker], ring: Keyring, domain: str
) -> None:
    visitors: dict[str, PeerKeys | None] = {role: ring.admit(role, f"a-{role}") for role in Role}
    visitors["unknown"], visitors["none"] = ring.stranger(), None
    for role in Role:
        own = visitors[role]
        assert own is not None
        visitors[f"{role} of another broker"] = PeerKeys(own.own, key_pair().public)
    broker = start()
    sockets = {who: broker.dealer(domain, keys) for who, keys in visitors.items()}

    for socket in sockets.values():
        say(socket, QUESTIONS[domain]())

    expected = {str(role) for role in OPENS[domain]}
    assert all(sockets[who].poll(PATIENCE_MS) for who in expected)
    deadline = time.monotonic() + REFUSED_S
    while time.monotonic() < deadline:
        assert {who for who, socket in sockets.items() if socket.poll(10)} == expected


def test_plain_request_with_a_key_gets_stats(start: Callable[[], Broker], ring: Keyring, context: Context) -> None:
    keys = ring.admit(Role.CLIENT, "web")
    broker = start()
    with context.socket(zmq.REQ) as socket:
        connect(socket, broker.endpoints["stats_endpoint"], keys)
        socket.send(b"stats")
        assert socket.poll(PATIENCE_MS)
        assert PoolStats.model_validate_json(socket.recv()).total_workers == 0


def test_revoked_worker_loses_its_session_and_its_task_goes_back(start: Callable[[], Broker], ring: Keyring) -> None:
    client_keys, mill, barn = (
        ring.admit(Role.CLIENT, "web"),
        ring.admit(Role.WORKER, "mill"),
        ring.admit(Role.WORKER, "barn"),
    )
    broker = start()
    client, revoked = broker.client(client_keys), broker.worker(mill)
    task_id = Id(os.urandom(16))
    say(client, encode(Submit(task_id, 60_000, 0, again=False, is_shared=False, payload=b"race")))
    first = decode(revoked.recv_multipart(), TO_WORKER)
    assert isinstance(first, Assign)
    kept = broker.worker(barn)

    ring.dismiss(Role.WORKER, "mill")
    second = decode(kept.recv_multipart(), TO_WORKER)  # the liveness here is a minute
    assert isinstance(second, Assign)
    assert (second.task_id, second.attempt) == (task_id, 2)
    say(revoked, encode(Result(first.epoch, first.lease, task_id, Outcome.OK, recycle=False, payload=b"forged")))
    assert broker.stats().total_workers == 1
    say(kept, encode(Result(second.epoch, second.lease, task_id, Outcome.OK, recycle=False, payload=b"done")))

    assert ended(decode(client.recv_multipart(), TO_CLIENT)) == (task_id, Outcome.OK, 2, b"done")
    output = broker.end()
    assert output.count('"event":"key_revoked"') == 1
    assert '"reason":"revoked"' in output
    assert [secret for secret in ring.secrets if secret.decode() in output] == []


def test_revoked_client_is_forgotten_at_once_and_others_are_not(
    start: Callable[[], Broker], ring: Keyring, wait_until: WaitUntil
) -> None:
    web, shop = ring.admit(Role.CLIENT, "web"), ring.admit(Role.CLIENT, "shop")
    broker = start()
    revoked, kept = broker.client(web), broker.client(shop)
    say(revoked, encode(Submit(Id(os.urandom(16)), 60_000, 0, again=False, is_shared=False, payload=b"race")))
    wait_until(lambda: broker.stats().queue_depth == 1)

    ring.dismiss(Role.CLIENT, "web")

    wait_until(lambda: broker.stats().clients == 1)
    assert broker.stats().counters.abandoned == 1
    say(revoked, encode(Ping(0)))
    assert not revoked.poll(round(REFUSED_S * 1000))
    say(kept, encode(Ping(0)))
    assert isinstance(decode(kept.recv_multipart(), TO_CLIENT), Pong)


def test_broker_without_its_keys_refuses_to_start(directory: Path) -> None:
    (directory / "keys").mkdir(mode=0o700)
    env = environment(directory / "run", keys=directory / "keys", **tcp_endpoints())

    done = subprocess.run(
        [sys.executable, "-P", "-m", "racepool.broker"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )

    assert done.returncode == 78
    assert "broker.key_secret: is not there; make it with `racepool keygen broker`" in done.stderr
