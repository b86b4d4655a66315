"""The exporter's HTTP server in this process, and peers that are slow, greedy or broken."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
import structlog
from prometheus_client import CollectorRegistry

from racepool.commands.exporter import connections
from racepool.commands.exporter.address import Names, listening_socket
from racepool.commands.exporter.collector import PoolCollector
from racepool.commands.exporter.host_guard import HEADERS
from racepool.commands.exporter.pool_watch import PoolWatch
from racepool.commands.exporter.server import serve
from racepool.protocol.stats import PoolStats
from tests.commands.exporter.building import pool_stats

PATIENCE_S = 20.0
IDLE_S = 0.2
GET = b"GET %s HTTP/1.1\r\nHost: localhost\r\n"


def ask() -> PoolStats:
    return pool_stats()


class Peer:
    """One connection to the exporter, and all that came back so far."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *parts: bytes) -> "Peer":
        """Sends part by part, as far as the exporter lets it."""
        with suppress(ConnectionError):
            for part in parts:
                self.writer.write(part)
                await self.writer.drain()
        return self

    async def everything(self) -> bytes:
        """All that comes until the exporter closes the connection."""
        came = b""
        with suppress(ConnectionError):
            while part := await self.reader.read(65_536):
                came += part
        return came

    async def answer(self) -> bytes:
        """The head of the next answer."""
        try:
            return await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""


Connect = Callable[[], Awaitable[Peer]]
Scenario = Callable[[Connect], Awaitable[None]]


@asynccontextmanager
async def serving() -> AsyncIterator[Connect]:
    """A served pool; yields what opens a connection to it, and closes all of them at the end."""
    registry = CollectorRegistry()
    registry.register(PoolCollector(ask, None))
    peers: list[Peer] = []
    with listening_socket("127.0.0.1", 0) as listening:
        address = listening.getsockname()
        watch = PoolWatch(ask, None, structlog.get_logger())
        server = asyncio.create_task(serve(watch, registry, Names.of("127.0.0.1"), listening))

        async def connect() -> Peer:
            deaf = socket.socket()  # reads little at once, so that the exporter soon notices if it does not read on
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            deaf.connect(address)
            peers.append(Peer(*await asyncio.open_connection(sock=deaf)))
            return peers[-1]

        try:
            yield connect
        finally:
            for peer in peers:
                peer.writer.close()
            server.cancel()
            with suppress(asyncio.CancelledError):
                await server


def run(scenario: Scenario) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE_S), serving() as connect:
            await scenario(connect)

    asyncio.run(bounded())


async def is_scraped(connect: Connect) -> bool:
    """Whether Prometheus, which has no connection yet, gets its answer."""
    peer = await (await connect()).send(GET % b"/metrics", b"Connection: close\r\n\r\n")
    return b"racepool_up 1.0" in await peer.everything()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "IDLE_S", IDLE_S)


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [b"G"],
        [GET % b"/"],
        [GET % b"/", b"X-Slow: ", *[b"a"] * 50],
        [GET % b"/", b"\r\n"],
        [GET % b"/", b"Content-Length: 1000000000\r\n\r\n", b"body"],
        [GET % b"/events", b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n"],
    ],
    ids=[
        "silent",
        "a letter",
        "half",
        "byte by byte",
        "idle after an answer",
        "half a body",
        "a stream with half a body",
    ],
)
@pytest.mark.usefixtures("impatient")
def test_peer_that_keeps_the_exporter_waiting_is_cut(parts: list[bytes]) -> None:
    async def scenario(connect: Connect) -> None:
        peer = await (await connect()).send(*parts)
        await peer.everything()

    run(scenario)


@pytest.mark.usefixtures("impatient")
def test_byte_after_byte_does_not_prolong_the_time_for_a_request() -> None:
    async def scenario(connect: Connect) -> None:
        peer = await (await connect()).send(GET % b"/")

        async def trickle() -> None:
            while True:
                peer.writer.write(b"X")
                await asyncio.sleep(IDLE_S / 10)

        trickling = asyncio.create_task(trickle())
        assert await peer.everything() == b""
        trickling.cancel()

    run(scenario)


@pytest.mark.usefixtures("impatient")
def test_open_page_is_not_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("racepool.commands.exporter.pool_watch.INTERVAL_S", 3 * IDLE_S)

    async def scenario(connect: Connect) -> None:
        peer = await (await connect()).send(GET % b"/events", b"\r\n")
        for _ in range(3):
            await peer.reader.readuntil(b"event: moment")

    run(scenario)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("path", [b"/events", b"/"])
def test_peer_that_does_not_read_is_cut_and_costs_little_memory(monkeypatch: pytest.MonkeyPatch, path: bytes) -> None:
    """Either one page without end, or one request after the other."""
    monkeypatch.setattr("racepool.commands.exporter.pool_watch.INTERVAL_S", 0.0001)
    kept = []

    class Watched(connections.Connection):
        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            lost.set()

        def pause_writing(self) -> None:
            super().pause_writing()
            kept.append(self.transport.get_write_buffer_size())

    monkeypatch.setattr("racepool.commands.exporter.server.Connection", Watched)
    lost = asyncio.Event()

    async def scenario(connect: Connect) -> None:
        peer = await connect()
        sending = asyncio.create_task(peer.send(*[GET % path + b"\r\n"] * 100_000))
        await lost.wait()
        sending.cancel()

    run(scenario)
    assert max(kept) < 200_000


def test_new_connection_takes_the_place_of_the_longest_idle_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "CONNECTIONS", 8)

    async def scenario(connect: Connect) -> None:
        page = await (await connect()).send(GET % b"/events", b"\r\n")
        await page.answer()
        silent = [await connect() for _ in range(connections.most_connections() - 1)]
        assert await is_scraped(connect)
        assert await silent[0].everything() == b""
        assert (await (await silent[-1].send(GET % b"/", b"\r\n")).answer()).startswith(b"HTTP/1.1 200")
        await page.reader.readuntil(b"event: moment")

    run(scenario)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: %s\r\n\r\n" % (b"x" * 200_000), 400),
        (b"GET / HTTP/1.0\r\n\r\n", 421),
        (b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (GET % b"//evil.example/" + b"\r\n", 404),
        (b"OPTIONS / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\r\n", 405),
        (b"TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"CONNECT evil.example:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx", 405),
        (GET % b"/" + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: eA==\r\n\r\n", 200),
        (GET % b"/" + b"Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n\r\n", 403),
        (GET % b"/metrics" + b"\r\n", 200),
        (GET % b"/none" + b"\r\n", 404),
    ],
)
def test_every_answer_has_the_security_headers_and_lets_no_other_site_read(request_bytes: bytes, status: int) -> None:
    async def scenario(connect: Connect) -> None:
        head = (await (await (await connect()).send(request_bytes)).answer()).decode().lower()
        assert head.startswith(f"http/1.1 {status} ")
        for name, value in HEADERS.items():
            assert f"\r\n{name}: {value}\r\n".lower() in head
        assert "access-control" not in head

    run(scenario)


def test_failure_of_a_page_has_the_security_headers_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: PoolWatch) -> bytes:
        raise RuntimeError("planted")

    monkeypatch.setattr(PoolWatch, "history", fail)

    async def scenario(connect: Connect) -> None:
        head = (await (await (await connect()).send(GET % b"/api/history", b"\r\n")).answer()).decode()
        assert head.startswith("HTTP/1.1 500 ")
        assert f"content-security-policy: {HEADERS['content-security-policy']}" in head

    run(scenario)


def test_requests_in_one_packet_are_answered_in_order() -> None:
    async def scenario(connect: Connect) -> None:
        peer = await connect()
        await peer.send(GET % b"/none" + b"\r\n" + GET % b"/status.css" + b"Connection: close\r\n\r\n")
        statuses = re.findall(rb"HTTP/1.1 (\d+) ", await peer.everything())
        assert statuses == [b"404", b"200"]

    run(scenario)


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text;version=x",
        "application/openmetrics-text;version=",
        "application/openmetrics-text;version=1..0",
        "application/openmetrics-text;version=-1",
        "text/plain;version=\xb2",
        "text/plain;version=1.0.0;escaping=x",
        "application/openmetrics-text;version=99999999999999999999.0.0",
        "\xff;q=\xff, */*",
        "," * 1_000,
    ],
)
def test_odd_accept_header_is_answered(accept: str) -> None:
    async def scenario(connect: Connect) -> None:
        peer = await (await connect()).send(GET % b"/metrics" + b"Accept: %s\r\n" % accept.encode("latin-1"))
        body = await (await peer.send(b"Connection: close\r\n\r\n")).everything()
        assert body.startswith(b"HTTP/1.1 200 ")
        assert b"racepool_up 1.0" in body

    run(scenario)
