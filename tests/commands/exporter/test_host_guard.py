"""The middleware before all pages: whom it answers, and with which headers."""

import asyncio

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message, Scope

from racepool.commands.exporter.address import Names
from racepool.commands.exporter.host_guard import HEADERS, MISDIRECTED, HostGuard


def asked(host: str) -> tuple[int, dict[str, str]]:
    """The status and the headers of the answer to a request for this host."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", host.encode())]}
    guard = HostGuard(PlainTextResponse("the page"), Names.of("127.0.0.1"))
    asyncio.run(guard(scope, receive, send))
    start = next(message for message in sent if message["type"] == "http.response.start")
    return start["status"], {name.decode(): value.decode() for name, value in start["headers"]}


@pytest.mark.parametrize(("host", "status"), [("localhost:9724", 200), ("evil.example", MISDIRECTED)])
def test_answer_and_refusal_have_the_headers_that_protect_the_page(host: str, status: int) -> None:
    found, headers = asked(host)

    assert found == status
    assert headers.items() >= HEADERS.items()
