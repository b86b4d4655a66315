"""The exporter's HTTP connections: none may wait for ever, and there is a cap on all of them. Knows no page.

uvicorn and h11 bound the headers of a request (64 KiB) and what one connection buffers. They set no time limit for a
request that never ends, or for a response that nobody reads. `Connection` adds these limits and the cap.
"""

import asyncio
from operator import attrgetter
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from racepool.commands.exporter.host_guard import HEADERS
from racepool.protocol.processes import file_limit

CONNECTIONS = 256
IDLE_S = 10.0  # how long a connection may wait for its peer: for a whole request, or until the peer reads


def most_connections() -> int:
    """The cap. It leaves most descriptors to the rest of the exporter: libzmq aborts a process that has none left."""
    return max(4, min(CONNECTIONS, file_limit() // 4))


def accepted_at_once() -> int:
    """How many connections the loop accepts in one turn: it makes them some turns later, when they count."""
    return max(1, most_connections() // 8)


class Connection(H11Protocol):
    """One connection. It is idle while it waits for its peer, and after IDLE_S of that it is cut.

    Each new connection beyond the cap takes the place of the one that is idle for the longest. If none is idle, the new
    one is cut. So nobody can keep Prometheus out by holding connections.
    """

    idle_since = 0.0  # by the loop's clock; 0 while it is not idle
    _limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Begins to wait for a request, and makes room if there are too many connections."""
        super().connection_made(transport)
        if len(self.connections) > most_connections():
            idle = [each for each in self.connections if isinstance(each, Connection) and each.idle_since]
            min(idle, key=attrgetter("idle_since"), default=self).cut()
        self._wait_for_peer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the time limit."""
        self._stop_waiting()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Handles what has come in. A whole request ends the waiting; a part of one does not."""
        super().handle_events()
        if self._is_answering and not self.flow.write_paused:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        """Begins to wait for the next request."""
        self._wait_for_peer()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The peer does not read."""
        super().pause_writing()
        self._wait_for_peer()

    def resume_writing(self) -> None:
        """The peer has read most of it."""
        super().resume_writing()
        if self._is_answering:
            self._stop_waiting()

    def send_400_response(self, msg: str) -> None:
        """Answers what is no HTTP. In the middle of another answer there is no room for this one."""
        if self._answer is None or self._answer.response_complete:
            lines = ["HTTP/1.1 400 Bad Request", "content-type: text/plain; charset=utf-8", "connection: close"]
            lines += [f"{name}: {value}" for name, value in HEADERS.items()]
            self.transport.write("\r\n".join([*lines, f"content-length: {len(msg)}", "", msg]).encode())
        self.transport.close()

    @property
    def _answer(self) -> Any:  # noqa: ANN401  # uvicorn says that it is never None
        """The answer to the newest request; None before the first."""
        return self.cycle

    @property
    def _is_answering(self) -> bool:
        """Whether a request has come in whole, and its answer is not complete."""
        return self._answer is not None and not self._answer.response_complete and not self._answer.more_body

    def _wait_for_peer(self) -> None:
        self._stop_waiting()
        if not self.transport.is_closing() or self.transport.get_write_buffer_size():
            self.idle_since = self.loop.time()
            self._limit = self.loop.call_later(IDLE_S, self.cut)

    def _stop_waiting(self) -> None:
        self.idle_since = 0.0
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None

    def cut(self) -> None:
        """Closes at once, whatever is still to be sent, and makes room before the loop tells that it is closed."""
        self.connections.discard(self)
        self.transport.abort()
