"""Asks supervisord for its table of processes, over its control socket. Waits a second at most: it may be frozen."""

import os
import socket
import struct
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import quote
from xml.parsers.expat import ExpatError
from xmlrpc.client import Error, ServerProxy, Transport

from racepool.supervision.watchdog_core import SupervisedProcess

RPC_TIMEOUT_S = 1.0
SERVER_URL = "SUPERVISOR_SERVER_URL"


class Supervisor:
    """The supervisord that started a process.

    Args:
        environment: of that process, where supervisord put its address; by default of this process.

    Raises:
        KeyError: supervisord did not start that process, or has no control socket.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._transport = _Transport(environment[SERVER_URL])
        user, password = (quote(environment.get(f"SUPERVISOR_{name}", "")) for name in ("USERNAME", "PASSWORD"))
        login = f"{user}:{password}@" if user else ""
        self._proxy = ServerProxy(f"http://{login}{self._transport.host}/RPC2", self._transport)

    def table(self) -> list[SupervisedProcess] | None:
        """All its processes; None if supervisord did not answer in time, or is shutting down."""
        rows = self.rows()
        return None if rows is None else [_process(row) for row in rows]

    def rows(self) -> list[Mapping[str, Any]] | None:
        """As `table`, with all fields of each process: see getProcessInfo in supervisord's documentation."""
        rows: list[Mapping[str, Any]] | None = self._ask("getAllProcessInfo")
        return rows

    def pid(self) -> int | None:
        """The process id of supervisord itself; None as for `table`."""
        pid: int | None = self._ask("getPID")
        return pid

    def process(self, name: str) -> SupervisedProcess | None:
        """The process with this name, `group:name`; None as for `table`, or if there is no such process."""
        row = self._ask("getProcessInfo", name)
        return None if row is None else _process(row)

    def _ask(self, method: str, *arguments: str) -> Any:  # noqa: ANN401  # as xmlrpc has it
        try:
            return getattr(self._proxy.supervisor, method)(*arguments)
        except (OSError, Error, HTTPException, ExpatError):
            return None
        finally:
            self._transport.close()  # each call opens a connection, because that wakes supervisord once more


class _Transport(Transport):
    """A transport with a timeout, to an address on tcp or to a unix socket."""

    def __init__(self, url: str) -> None:
        super().__init__()
        scheme, _, self._address = url.partition("://")
        self._is_unix = scheme == "unix"
        self.host = "localhost" if self._is_unix else self._address.rstrip("/")

    def make_connection(self, host: Any) -> HTTPConnection:  # noqa: ANN401  # as xmlrpc has it
        name, self._extra_headers, _ = self.get_host_info(host)
        connection = _UnixConnection(self._address) if self._is_unix else HTTPConnection(name, timeout=RPC_TIMEOUT_S)
        self._connection = host, connection
        return connection


class _UnixConnection(HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=RPC_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        """Connects, and refuses the socket of another user: the watchdog kills what this table names."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
        _, user, _ = struct.unpack("3i", self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if user not in (0, os.getuid()):
            raise PermissionError(f"{self._path} is a socket of user {user}")


def _process(row: Mapping[str, Any]) -> SupervisedProcess:
    return SupervisedProcess(f"{row['group']}:{row['name']}", row["group"], row["pid"], row["state"])
