"""The middleware before all pages: whom it answers, and with which headers."""

import asyncio

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message, Scope

from racepool.commands.exporter.address import Names
from racepool.commands.exporter.host_guard import FORBIDDEN, HEADERS, MISDIRECTED, HostGuard


def asked(host: str, *others: tuple[str, str]) -> tuple[int, dict[str, str]]:
    """The status and the headers of the answer to a request for this host, which has these other headers too."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(name.encode(), value.encode()) for name, value in [("host", host), *others]]
    scope: Scope = {"type": "http", "method": "GET", "path": "/", "headers": headers}
    guard = HostGuard(PlainTextResponse("the page"), Names.of("127.0.0.1"))
    asyncio.run(guard(scope, receive, send))
    start = next(message for message in sent if message["type"] == "http.response.start")
    return start["status"], {name.decode(): value.decode() for name, value in start["headers"]}


@pytest.mark.parametrize(("host", "status"), [("localhost:9724", 200), ("evil.example", MISDIRECTED)])
def test_answer_and_refusal_have_the_headers_that_protect_the_page(host: str, status: int) -> None:
    found, headers = asked(host)

    assert found == status
    assert headers.items() >= HEADERS.items()


@pytest.mark.parametrize("others", [[("host", "evil.example")], [("host", "localhost")]])
def test_request_with_two_hosts_is_refused(others: list[tuple[str, str]]) -> None:
    assert asked("localhost", *others)[0] == MISDIRECTED


def of(site: str, mode: str, dest: str) -> int:
    """The status of what a browser sends in this way."""
    fetch = {"sec-fetch-site": site, "sec-fetch-mode": mode, "sec-fetch-dest": dest}
    return asked("localhost:9724", *fetch.items())[0]


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize(
    ("mode", "dest"),
    [
        ("no-cors", "empty"),
        ("cors", "empty"),
        ("no-cors", "image"),
        ("no-cors", "script"),
        ("cors", "eventsource"),
        ("websocket", "websocket"),
        ("navigate", "iframe"),
        ("navigate", "object"),
    ],
)
def test_page_of_another_site_can_fetch_nothing_and_frame_nothing(site: str, mode: str, dest: str) -> None:
    assert of(site, mode, dest) == FORBIDDEN


def test_link_of_another_site_and_the_page_itself_are_answered() -> None:
    assert of("cross-site", "navigate", "document") == 200
    assert of("none", "navigate", "document") == 200
    assert of("same-origin", "cors", "eventsource") == 200
