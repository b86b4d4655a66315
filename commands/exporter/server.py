"""The exporter's HTTP server: everything can be read, nothing can be changed."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from racepool.commands.exporter.address import Names
from racepool.commands.exporter.connections import Connection, accepted_at_once, most_connections
from racepool.commands.exporter.host_guard import HostGuard
from racepool.commands.exporter.pool_watch import PoolWatch

STATIC: Final = Path(__file__).parent / "static"
FILES: Final = {
    "/": ("index.html", "text/html"),
    "/status.css": ("status.css", "text/css"),
    "/status.js": ("status.js", "text/javascript"),
    "/charts.js": ("charts.js", "text/javascript"),
    "/formats.js": ("formats.js", "text/javascript"),
    "/favicon.svg": ("favicon.svg", "image/svg+xml"),
}
STREAMS = 64  # open pages; fewer if there are fewer connections
QUEUE = 128  # connections that the kernel keeps until they are accepted
FAREWELL_S = 1


class Pages:
    """The handlers of all paths."""

    def __init__(self, watch: PoolWatch, registry: CollectorRegistry) -> None:
        self._watch = watch
        self._registry = registry
        self._streams = 0

    def app(self, names: Names) -> ASGIApp:
        """The application, for requests to these host names."""
        routes = [
            *(Route(path, _file(name, media_type)) for path, (name, media_type) in FILES.items()),
            Route("/metrics", self._metrics),
            Route("/api/status", self._status),
            Route("/api/history", self._history),
            Route("/events", self._events),
        ]
        return HostGuard(Starlette(routes=routes), names)  # around all of it, so that errors have the headers too

    def _metrics(self, request: Request) -> Response:
        """Not a coroutine: Starlette runs it in a thread, where it may wait for the broker."""
        try:
            encode, media_type = choose_encoder(request.headers.get("accept", ""))
        except (TypeError, ValueError):  # the version in it is no version
            encode, media_type = choose_encoder("")
        return Response(encode(self._registry), headers={"content-type": media_type})

    async def _status(self, _request: Request) -> Response:
        newest = self._watch.feed.newest or await self._watch.feed.next()
        return _json(newest) if newest else PlainTextResponse("The exporter is about to end.\n", 503)

    async def _history(self, _request: Request) -> Response:
        return _json(self._watch.history())

    async def _events(self, _request: Request) -> Response:
        most = min(STREAMS, most_connections() // 2)
        if self._streams >= most:
            return PlainTextResponse(f"{most} pages are open already; close one.\n", 503)
        return StreamingResponse(self._stream(), media_type="text/event-stream")

    async def _stream(self) -> AsyncIterator[bytes]:
        """Sends the charts' history first, then each new message."""
        feed = self._watch.feed
        self._streams += 1
        try:
            yield _sent("history", self._watch.history())
            message = feed.newest or await feed.next()
            while message:
                yield _sent("moment", message)
                message = await feed.next()
        finally:
            self._streams -= 1


class _Server(uvicorn.Server):
    """Keeps a long queue of new connections; ends the event streams at shutdown, which browsers would keep open."""

    def __init__(self, config: uvicorn.Config, watch: PoolWatch) -> None:
        super().__init__(config)
        self._watch = watch

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for each in sockets or []:
            each.listen(QUEUE)  # asyncio has made it as short as the number that it accepts at once

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._watch.feed.close()
        await super().shutdown(sockets)


async def serve(watch: PoolWatch, registry: CollectorRegistry, names: Names, listening: socket.socket) -> None:
    """Serves until SIGTERM or Ctrl-C; uvicorn raises the signal again when all is closed."""
    config = uvicorn.Config(
        Pages(watch, registry).app(names),
        http=Connection,
        backlog=accepted_at_once(),
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        log_level="error",  # uvicorn warns of each broken request: anybody could fill the log
        timeout_graceful_shutdown=FAREWELL_S,
    )
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch.run())
        try:
            await _Server(config, watch).serve([listening])
        finally:
            watching.cancel()


def _file(name: str, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    content = (STATIC / name).read_bytes()

    async def answer(_request: Request) -> Response:
        return Response(content, media_type=media_type, headers={"cache-control": "no-cache"})

    return answer


def _json(content: bytes) -> Response:
    return Response(content, media_type="application/json")


def _sent(event: str, data: bytes) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (event.encode(), data)
