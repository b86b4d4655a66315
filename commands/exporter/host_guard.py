"""Between the world and the pages: who is answered, and what browsers may do with the answer."""

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
    """Answers only requests that are meant for one of these names, with headers that keep the page to itself."""

    def __init__(self, app: ASGIApp, names: Names) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
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
        f"This racepool exporter is not called {host!r}. If it should be, start it with --allow-host NAME "
        "(or RACEPOOL_EXPORTER_ALLOW_HOST); by default it answers to loopback names only.\n"
    )
