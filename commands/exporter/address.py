"""Where the exporter listens, and by which names it may be called. Knows no HTTP."""

import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
ANYWHERE = frozenset({"", "0.0.0.0", "::"})  # noqa: S104  # recognised, not bound


class NoAddressError(Exception):
    """Nobody can listen there; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Names:
    """The hosts that a request may be meant for.

    A web site can have its own name resolve to a loopback address (DNS rebinding) and so have a browser read what only
    this machine should: but then the request names that site as its host.
    """

    hosts: frozenset[str]

    @classmethod
    def of(cls, host: str, others: Iterable[str] = ()) -> Self:
        """Loopback's, the address that is listened at, and others that were allowed."""
        given = {host, *others} - ANYWHERE
        return cls(LOOPBACK | {name.lower().strip("[]") for name in given})

    def admit(self, header: str) -> bool:
        """Whether this Host header names one of them, with any port or none."""
        host = header.lower()
        bare = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        return bare in self.hosts


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 is any free one.

    Raises:
        NoAddressError: it is taken, or no address of this machine.
    """
    try:
        return socket.create_server((host.strip("[]"), port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        is_of_resolver = isinstance(error, socket.gaierror)  # its numbers are not the kernel's
        reason = str(error.strerror if is_of_resolver else os.strerror(error.errno or 0))
        raise NoAddressError(
            f"cannot listen at {host}:{port} ({reason}); choose another --port (0 is any free one), or --host"
        ) from None


def url_of(listening: socket.socket) -> str:
    """What to type into a browser on this machine."""
    host, port = listening.getsockname()[:2]
    shown = "127.0.0.1" if host in ANYWHERE else host
    return f"http://[{shown}]:{port}/" if ":" in shown else f"http://{shown}:{port}/"
