"""Checks the Host header of each request, and adds the headers that tell browsers what the page may do."""

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from racepool.commands.exporter.address import Names

MISDIRECTED = 421
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
    """ASGI middleware: refuses requests for other host names; adds HEADERS to each response."""

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

        host = Headers(scope=scope).get("host", "")
        if self._names.admit(host):
            await self._app(scope, receive, send_guarded)
        else:
            refusal = PlainTextResponse(_refusal(host), MISDIRECTED)
            await refusal(scope, receive, send_guarded)


def _refusal(host: str) -> str:
    return (
        f"This racepool exporter does not answer to the name {host!r}. If it should, start it with --allow-host NAME "
        "(or RACEPOOL_EXPORTER_ALLOW_HOST); by default it answers to loopback names only.\n"
    )
