"""Refuses requests that a web site makes a browser send, and adds the headers that tell browsers what the page may do.

A site can make a name of its own stand for this machine (DNS rebinding): then the Host header has a wrong name. In all
other requests of a page, the browser tells whether the page is of another site (Sec-Fetch-Site). Prometheus and curl
send no such header.
"""

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from racepool.commands.exporter.address import Names

MISDIRECTED = 421
FORBIDDEN = 403
OWN_SITES = frozenset({"same-origin", "none"})  # none: a person typed the address
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}


class HostGuard:
    """ASGI middleware: refuses requests for other host names and from other sites; adds HEADERS to each response."""

    def __init__(self, app: ASGIApp, names: Names) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI interface."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._names.admit(hosts[0]):
            refusal = PlainTextResponse(_refusal(", ".join(hosts)), MISDIRECTED)
            await refusal(scope, receive, send_guarded)
        elif _is_of_another_site(headers):
            refusal = PlainTextResponse("Only the exporter's own page may ask for this.\n", FORBIDDEN)
            await refusal(scope, receive, send_guarded)
        else:
            await self._app(scope, receive, send_guarded)


def _is_of_another_site(headers: Headers) -> bool:
    """Whether a page of another site asks, in any way but by a link that a person follows."""
    if headers.get("sec-fetch-site", "none") in OWN_SITES:
        return False
    return (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) != ("navigate", "document")


def _refusal(host: str) -> str:
    return (
        f"This racepool exporter does not answer to the name {host!r}. If it should, start it with --allow-host NAME "
        "(or RACEPOOL_EXPORTER_ALLOW_HOST); by default it answers to loopback names only.\n"
    )
