import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from socket import (
    AF_INET,
    IPPROTO_TCP,
    SO_DOMAIN,
    SO_KEEPALIVE,
    SOCK_STREAM,
    SOL_SOCKET,
    TCP_KEEPIDLE,
    TCP_USER_TIMEOUT,
    create_connection,
    create_server,
    fromfd,
)
from socket import socket as KernelSocket  # noqa: N812  # a class

import pytest
import zmq

from racepool.protocol.errors import SettingsError
from racepool.protocol.messages import Payload
from racepool.protocol.sockets import (
    KEEPALIVE_IDLE_S,
    MAX_FRAMES,
    UNACKNOWLEDGED_MS,
    Connection,
    Context,
    Guard,
    PeerKeys,
    Socket,
    dealer,
    destroy,
    receive,
    receive_from,
    router,
    say,
    send,
    sender_pid,
    skip,
)
from tests.key_files import key_pair, tcp_endpoints
from tests.running import ROOT, WaitUntil

PATIENCE_MS = 5_000
REFUSED_MS = 1_000  # a peer that is let in is there in a hundredth of this
Pair = Callable[..., tuple[Socket, Socket]]


@pytest.fixture
def opened() -> list[Socket]:
    """All sockets of a test, to be closed after it: the garbage collector complains about one that is open."""
    return []


@pytest.fixture
def context(opened: list[Socket]) -> Iterator[Context]:
    context: Context = zmq.Context()
    yield context
    for socket in opened:
        socket.close(linger=0)
    context.term()


@pytest.fixture
def pair(context: Context, endpoint: str, opened: list[Socket]) -> Pair:
    """A ROUTER, and a DEALER that is connected to it."""

    def make(at: str = endpoint, send_limit: int = 100, payload_limit: int = 10_000) -> tuple[Socket, Socket]:
        bound = router(context, at, send_limit=send_limit, payload_limit=payload_limit)
        connected = dealer(context, at if at == endpoint else last_endpoint(bound))
        opened.extend((bound, connected))
        return bound, connected

    return make


def last_endpoint(socket: Socket) -> str:
    last = socket.get(zmq.LAST_ENDPOINT)
    assert isinstance(last, bytes)
    return last.rstrip(b"\0").decode()


def next_from(bound: Socket) -> tuple[bytes, list[Payload], zmq.Frame | None]:
    assert bound.poll(PATIENCE_MS)
    received = receive_from(bound)
    assert received is not None
    return received


def test_nothing_to_receive_is_none(pair: Pair) -> None:
    bound, connected = pair()

    assert receive(connected) is None
    assert receive_from(bound) is None


@pytest.mark.parametrize("count", [1, 2, MAX_FRAMES])
def test_message_arrives_whole(pair: Pair, count: int) -> None:
    bound, connected = pair()
    frames = [bytes([index]) * index for index in range(count)]

    connected.send_multipart(frames)
    peer, received, _ = next_from(bound)
    bound.send_multipart([peer, *frames])

    assert received == frames
    assert connected.poll(PATIENCE_MS)
    assert receive(connected) == frames


def test_of_a_multipart_without_end_the_first_frames_are_kept(pair: Pair) -> None:
    bound, connected = pair()

    connected.send_multipart([b"x"] * 20_000)
    connected.send(b"next")
    peer, received, _ = next_from(bound)
    assert received == [b"x"] * MAX_FRAMES
    assert not skip(bound, 10_000)
    assert skip(bound, 10_000)
    assert skip(bound, 10_000)  # also if nothing is left
    assert next_from(bound)[1] == [b"next"]

    bound.send_multipart([peer, *[b"y"] * 20_000])
    bound.send_multipart([peer, b"next"])
    assert connected.poll(PATIENCE_MS)
    assert receive(connected) == [b"y"] * MAX_FRAMES
    assert connected.poll(PATIENCE_MS)
    assert receive(connected) == [b"next"]


def test_rest_of_a_multipart_is_dropped_up_to_the_limit_and_no_further(pair: Pair) -> None:
    bound, connected = pair()
    connected.send_multipart([b"x"] * (MAX_FRAMES + 5))
    next_from(bound)

    assert not skip(bound, 3)
    assert skip(bound, 2)


def test_message_that_cannot_be_sent_is_dropped(context: Context, opened: list[Socket]) -> None:
    nobody_reads = context.socket(zmq.PUSH)
    opened.append(nobody_reads)

    with pytest.raises(zmq.Again):
        send(nobody_reads, [b"lost"])
    say(nobody_reads, [b"lost"])


@pytest.fixture
def connections() -> Iterator[list[KernelSocket]]:
    """The accepted ends of two tcp connections, and after them their clients' ends."""
    with create_server(("127.0.0.1", 0)) as server, ExitStack() as stack:
        clients = [stack.enter_context(create_connection(server.getsockname()[:2])) for _ in range(2)]
        accepted = [stack.enter_context(server.accept()[0]) for _ in clients]
        yield [*accepted, *clients]


def test_connection_is_cut(connections: list[KernelSocket]) -> None:
    ours, _, theirs, _ = connections
    connection = Connection(ours.fileno(), ours.getpeername())
    assert connection.is_open

    connection.cut()

    theirs.settimeout(PATIENCE_MS / 1_000)
    assert theirs.recv(1) == b""


def test_connection_whose_descriptor_belongs_to_another_one_is_closed_and_not_cut(
    connections: list[KernelSocket],
) -> None:
    gone, other, _, others_peer = connections
    connection = Connection(gone.fileno(), gone.getpeername())
    os.dup2(other.fileno(), gone.fileno())

    connection.cut()

    assert not connection.is_open
    other.sendall(b"still there")
    others_peer.settimeout(PATIENCE_MS / 1_000)
    assert others_peer.recv(100) == b"still there"


def test_sender_over_ipc_is_known_by_the_kernel(pair: Pair, endpoint: str) -> None:
    bound, connected = pair()
    code = f"import zmq; s = zmq.Context().socket(zmq.DEALER); s.connect({endpoint!r}); s.send(b'x'); input()"
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE) as child:
        assert sender_pid(next_from(bound)[2]) == child.pid

    connected.send(b"x")
    assert sender_pid(next_from(bound)[2]) == os.getpid()


def test_sender_over_tcp_is_unknown(pair: Pair) -> None:
    bound, connected = pair("tcp://127.0.0.1:*")

    connected.send(b"x")

    assert sender_pid(next_from(bound)[2]) is None


def test_no_frame_has_no_sender() -> None:
    assert sender_pid(None) is None
    assert sender_pid(zmq.Frame(b"made here")) is None


def test_router_tells_what_it_cannot_deliver(pair: Pair) -> None:
    bound, connected = pair()

    with pytest.raises(zmq.ZMQError) as unknown:
        bound.send_multipart([b"nobody", b"x"], zmq.NOBLOCK)
    assert unknown.value.errno == zmq.EHOSTUNREACH

    connected.send(b"x")
    peer, _, _ = next_from(bound)
    bound.send_multipart([peer, b"still works"], zmq.NOBLOCK)
    assert connected.poll(PATIENCE_MS)


def test_numbers_of_peers_cannot_be_foretold(endpoint: str) -> None:
    """Unseeded, libzmq gives the same numbers in every process, and a peer that takes the next one aborts it."""
    code = (
        "import zmq; from racepool.protocol.sockets import *; context = zmq.Context();"
        f"bound = router(context, {endpoint!r}, send_limit=1, payload_limit=1); peer = dealer(context, {endpoint!r});"
        "peer.send(b'x'); bound.poll(5000); print(receive_from(bound)[0].hex()); context.destroy(linger=0)"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=20)
        for _ in range(2)
    ]

    assert runs[0].stdout != runs[1].stdout


def test_router_holds_so_much_for_one_peer_and_no_more(context: Context, endpoint: str, opened: list[Socket]) -> None:
    bound, deaf = router(context, endpoint, send_limit=5, payload_limit=10_000), context.socket(zmq.DEALER)
    opened.extend((bound, deaf))
    deaf.set(zmq.RCVHWM, 1)
    deaf.connect(endpoint)
    deaf.send(b"x")
    peer, _, _ = next_from(bound)

    def flood() -> None:
        for _ in range(10_000):
            bound.send_multipart([peer, bytes(10_000)], zmq.NOBLOCK)

    with pytest.raises(zmq.Again):
        flood()


def test_oversized_frame_never_arrives(pair: Pair, wait_until: WaitUntil) -> None:
    bound, connected = pair(payload_limit=1_000)

    connected.send(bytes(1_000 + 1_024))
    assert len(next_from(bound)[1][0]) == 2_024
    connected.send(bytes(1_000 + 1_025))

    def arrives() -> bool:
        connected.send(b"after")  # again and again: what follows the oversized frame is lost with the connection
        return bool(bound.poll(50))

    wait_until(arrives)
    assert next_from(bound)[1] == [b"after"]


def test_guarded_socket_without_anybody_to_ask_lets_nobody_in(context: Context, opened: list[Socket]) -> None:
    broker, own = key_pair(), key_pair()
    endpoint = tcp_endpoints()["backend"]
    guard = Guard("backend", broker)
    opened.append(router(context, endpoint, send_limit=1, payload_limit=100, guard=guard))
    opened.append(dealer(context, endpoint, PeerKeys(own, broker.public)))

    say(opened[1], [b"x"])

    assert not opened[0].poll(REFUSED_MS)


def test_address_of_all_is_met_on_loopback(context: Context, opened: list[Socket]) -> None:
    for host in ("*", "0.0.0.0", "[::]", "[::1]", "localhost"):  # noqa: S104  # for a moment
        endpoint = tcp_endpoints(host)["endpoint"]
        bound = router(context, endpoint, send_limit=1, payload_limit=100)
        opened.extend((bound, dealer(context, endpoint)))

        opened[-1].send(host.encode())

        assert next_from(bound)[1] == [host.encode()]


def test_dealer_has_no_name_and_no_limits(pair: Pair) -> None:
    _, connected = pair()

    assert connected.get(zmq.IDENTITY) == b""
    assert [connected.get(option) for option in (zmq.SNDHWM, zmq.RCVHWM, zmq.LINGER)] == [0, 0, 0]


def test_kernel_probes_both_ends_of_a_silent_tcp_connection(pair: Pair) -> None:
    """The options are read from the sockets of this process."""
    bound, connected = pair("tcp://127.0.0.1:*")
    connected.send(b"hello")
    bound.recv_multipart()

    asked = []
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError), fromfd(int(entry.name), AF_INET, SOCK_STREAM) as kernel_socket:
            if kernel_socket.getsockopt(SOL_SOCKET, SO_DOMAIN) == AF_INET and kernel_socket.getpeername():
                asked.append(
                    (
                        kernel_socket.getsockopt(SOL_SOCKET, SO_KEEPALIVE),
                        kernel_socket.getsockopt(IPPROTO_TCP, TCP_KEEPIDLE),
                        kernel_socket.getsockopt(IPPROTO_TCP, TCP_USER_TIMEOUT),
                    )
                )
    assert asked == [(1, KEEPALIVE_IDLE_S, UNACKNOWLEDGED_MS)] * 2


def test_nothing_is_sent_into_a_directory_that_took_the_place_of_ours(
    tmp_path: Path, opened: list[Socket], context: Context, wait_until: WaitUntil
) -> None:
    """Root may clean /tmp, and then another user can make a directory with our name, and sockets in it."""
    ours, moved = tmp_path / "run", tmp_path / "moved"
    ours.mkdir(mode=0o700)
    endpoint = f"ipc://{ours}/frontend.ipc"
    first = router(context, endpoint, send_limit=9, payload_limit=99)
    connected = dealer(context, endpoint)
    opened.append(connected)
    connected.send(b"before")
    assert next_from(first)[1] == [b"before"]

    first.close(linger=0)
    ours.rename(moved)
    ours.mkdir(mode=0o700)
    strangers = context.socket(zmq.ROUTER)
    strangers.bind(endpoint)
    opened.append(strangers)
    second = router(context, f"ipc://{moved}/frontend.ipc", send_limit=9, payload_limit=99)
    opened.append(second)

    def is_back() -> bool:
        connected.send(b"after")  # the first ones may still go out on the connection that ends
        return bool(second.poll(20))

    wait_until(is_back, PATIENCE_MS / 1_000)  # in the directory that was checked
    assert not strangers.poll(0)


def test_descriptors_of_directories_are_shared_and_end_with_the_context(endpoint: str) -> None:
    context: Context = zmq.Context()
    folder = Path(endpoint.removeprefix("ipc://")).parent

    def descriptors() -> int:
        links = Path("/proc/self/fd").iterdir()
        return sum(os.path.realpath(link) == str(folder) for link in links)

    sockets = [dealer(context, endpoint) for _ in range(3)]
    assert descriptors() == 1

    destroy(context, 0)
    assert descriptors() == 0
    assert all(socket.closed for socket in sockets)


@pytest.mark.parametrize("make", [dealer, partial(router, send_limit=1, payload_limit=1)])
def test_endpoint_where_others_may_make_sockets_is_refused(
    make: Callable[[Context, str], Socket], context: Context, tmp_path: Path
) -> None:
    tmp_path.chmod(0o1777)

    with pytest.raises(SettingsError, match=f"ipc://{tmp_path}/x.ipc: other users may write to {tmp_path}"):
        make(context, f"ipc://{tmp_path}/x.ipc")
