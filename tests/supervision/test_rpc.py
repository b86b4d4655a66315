"""supervisord's table; the test plays a supervisord that answers, sends nonsense, or does not answer at all."""

import os
import signal
import socket
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from socketserver import UnixStreamServer
from typing import Any
from xmlrpc.server import SimpleXMLRPCDispatcher, SimpleXMLRPCRequestHandler, SimpleXMLRPCServer

import pytest

from racepool.supervision.rpc import RPC_TIMEOUT_S, Supervisor
from racepool.supervision.watchdog_core import SupervisedProcess

ROWS = [
    {"name": "worker-0", "group": "worker", "pid": 7, "state": 20, "statename": "RUNNING", "description": "pid 7"},
    {"name": "broker", "group": "broker", "pid": 0, "state": 100, "statename": "EXITED", "description": "ended"},
]
TABLE = [SupervisedProcess("worker:worker-0", "worker", 7, 20), SupervisedProcess("broker:broker", "broker", 0, 100)]


class Handler(SimpleXMLRPCRequestHandler):
    rpc_paths = ("/RPC2",)
    disable_nagle_algorithm = False  # unix sockets have no such option
    protocol_version = "HTTP/1.1"  # as supervisord: it leaves the connection open
    timeout = 5  # of an idle connection, so that a test that fails ends

    def setup(self) -> None:
        connections.append(self.client_address)
        super().setup()

    def do_POST(self) -> None:  # noqa: N802  # as http.server has it
        logins.append(self.headers.get("Authorization", ""))
        super().do_POST()


class UnixServer(UnixStreamServer, SimpleXMLRPCDispatcher):
    logRequests = False  # noqa: N815  # as SimpleXMLRPCServer has it

    def __init__(self, path: Path) -> None:
        SimpleXMLRPCDispatcher.__init__(self, allow_none=True)
        UnixStreamServer.__init__(self, str(path), Handler)


logins: list[str] = []
connections: list[object] = []


def get_process_info(name: str) -> dict[str, Any]:
    return {f"{row['group']}:{row['name']}": row for row in ROWS}[name]


@pytest.fixture(params=["unix", "http"])
def supervisor(request: pytest.FixtureRequest, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    server: Any
    if request.param == "unix":
        server, url = UnixServer(run_dir / "s"), f"unix://{run_dir}/s"
    else:
        server = SimpleXMLRPCServer(("127.0.0.1", 0), Handler, logRequests=False)
        url = f"http://127.0.0.1:{server.server_address[1]}"
    server.register_function(lambda: ROWS, "supervisor.getAllProcessInfo")
    server.register_function(get_process_info, "supervisor.getProcessInfo")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("SUPERVISOR_SERVER_URL", url)
    monkeypatch.setenv("SUPERVISOR_USERNAME", "per%cent")
    monkeypatch.setenv("SUPERVISOR_PASSWORD", "co:lon@home")
    logins.clear()
    connections.clear()
    yield Supervisor()
    server.shutdown()
    thread.join()
    server.server_close()


def test_table_has_every_process(supervisor: Supervisor) -> None:
    assert supervisor.table() == TABLE


def test_each_question_has_a_connection_of_its_own(supervisor: Supervisor) -> None:
    assert [supervisor.table(), supervisor.table(), supervisor.process("worker:worker-9")] == [TABLE, TABLE, None]
    assert supervisor.table() == TABLE, "also after an error"

    assert len(connections) == 4


def test_one_process_by_its_name(supervisor: Supervisor) -> None:
    assert supervisor.process("worker:worker-0") == TABLE[0]
    assert supervisor.process("worker:worker-9") is None


def test_login_is_sent(supervisor: Supervisor) -> None:
    supervisor.table()

    assert logins == [f"Basic {b64encode(b'per%cent:co:lon@home').decode()}"]


def test_supervisord_that_is_not_there_has_no_table(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPERVISOR_SERVER_URL", f"unix://{run_dir}/nobody")

    assert Supervisor().table() is None


def test_frozen_supervisord_has_no_table_and_takes_no_time(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPERVISOR_SERVER_URL", f"unix://{run_dir}/frozen")
    with socket.socket(socket.AF_UNIX) as frozen:
        frozen.bind(f"{run_dir}/frozen")
        frozen.listen(1)
        supervisor = Supervisor()

        for _ in range(3):  # the third connection is not even queued by the kernel
            started_at = time.monotonic()
            assert supervisor.table() is None
            assert time.monotonic() - started_at < RPC_TIMEOUT_S + 5.0


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"no http\r\n\r\n",
        b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: 7\r\n\r\n<no xml",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: 99\r\n\r\n<methodResponse>",
    ],
)
def test_broken_reply_is_no_table(run_dir: Path, monkeypatch: pytest.MonkeyPatch, reply: bytes) -> None:
    monkeypatch.setenv("SUPERVISOR_SERVER_URL", f"unix://{run_dir}/broken")
    with socket.socket(socket.AF_UNIX) as broken:
        broken.bind(f"{run_dir}/broken")
        broken.listen(1)

        def answer() -> None:
            peer, _ = broken.accept()
            with peer:
                peer.recv(65_536)
                peer.sendall(reply)

        thread = threading.Thread(target=answer)
        thread.start()

        assert Supervisor().table() is None
        thread.join(10)


def test_who_was_not_started_by_supervisord_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUPERVISOR_SERVER_URL", raising=False)

    with pytest.raises(KeyError, match="SUPERVISOR_SERVER_URL"):
        Supervisor()


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes another user")
def test_supervisord_of_another_user_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watchdog kills what the table names."""
    path = tmp_path / "s"
    monkeypatch.setenv("SUPERVISOR_SERVER_URL", f"unix://{path}")
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            server = UnixServer(path)
            os.setresuid(65_534, 65_534, 65_534)
            server.socket.listen()  # the kernel notes who listens
            server.register_function(lambda: ROWS, "supervisor.getAllProcessInfo")
            os.write(writes, b"!")
            server.serve_forever()
        os._exit(1)
    try:
        assert os.read(reads, 1) == b"!"
        assert Supervisor().table() is None
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reads)
        os.close(writes)
