"""Where the exporter listens, and which host names its requests may have. Knows no HTTP."""

import os
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_HOST = re.compile(r"(?P<name>[^][:]+|\[(?P<ipv6>[0-9a-f.]*:[0-9a-f.:]*)])(:(?P<port>[0-9]{1,5}))?")
MAX_PORT = 65_535
ANYWHERE = frozenset({"", "0.0.0.0", "::"})  # noqa: S104  # compared with, not bound


class NoAddressError(Exception):
    """The exporter cannot listen there; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Names:
    """The host names that a request may have.

    A web site can make its own name resolve to a loopback address (DNS rebinding), so that a browser reads what only
    this machine may read. The Host header of such a request has the name of that site.
    """

    hosts: frozenset[str]

    @classmethod
    def of(cls, host: str, others: Iterable[str] = ()) -> Self:
        """The loopback names, the address of the exporter, and the allowed names."""
        given = {host, *others} - ANYWHERE
        return cls(LOOPBACK | {name.lower().strip("[]") for name in given})

    def admit(self, header: str) -> bool:
        """Whether this Host header is one of the names, with any port or none. Nothing else may stand in it."""
        parts = _HOST.fullmatch(header.lower())
        if parts is None or not 0 < int(parts["port"] or MAX_PORT) <= MAX_PORT:
            return False
        return (parts["ipv6"] or parts["name"]) in self.hosts


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 is any free one.

    Raises:
        NoAddressError: the port is taken, or this machine has no such address.
    """
    try:
        return socket.create_server((host.strip("[]"), port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        is_of_resolver = isinstance(error, socket.gaierror)  # its error numbers are not those of the kernel
        reason = str(error.strerror if is_of_resolver else os.strerror(error.errno or 0))
        raise NoAddressError(
            f"cannot listen at {host}:{port} ({reason}); choose another --port (0 is any free one), or --host"
        ) from None


def url_of(listening: socket.socket) -> str:
    """The URL for a browser on this machine."""
    host, port = listening.getsockname()[:2]
    shown = "127.0.0.1" if host in ANYWHERE else host
    return f"http://[{shown}]:{port}/" if ":" in shown else f"http://{shown}:{port}/"
