"""A PostgreSQL server of the tests' own: in a folder of its own, on a Unix socket, gone at the end."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

import psycopg

from tests.programs import required

START_S = 60
OWNER = "racing"
FAST = ("fsync=off", "full_page_writes=off", "autovacuum=off", "shared_buffers=16MB")
NewDatabase: TypeAlias = Callable[[], str]


def program(name: str) -> str:
    """The newest one that Debian installed, which is on no PATH; else the one on PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    return str(found[-1]) if found else required(name)


def account() -> str | None:
    """The user as whom the server runs; None if we run it ourselves. It refuses to run as root."""
    return "postgres" if os.geteuid() == 0 else None


@dataclass
class Server:
    """A cluster in `folder`, and the process that serves it."""

    folder: Path
    process: "subprocess.Popen[bytes] | None" = None
    names: Iterator[int] = field(default_factory=count)

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        settings = [*FAST, "listen_addresses=", f"unix_socket_directories={self.folder}", "max_connections=50"]
        command = [program("postgres"), "-D", str(self.folder / "data"), *(f"-c{setting}" for setting in settings)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, user=account(), stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + START_S
        while True:
            try:
                psycopg.connect(self.dsn("postgres")).close()
            except psycopg.OperationalError:
                assert self.process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < deadline, f"the server did not answer within {START_S} s"
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """Ends the server at once, as a crash would: pg_ctl's mode `immediate`."""
        if self.process:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(START_S)
            self.process = None

    def dsn(self, database: str, user: str = OWNER) -> str:
        return f"host={self.folder} user={user} dbname={database}"

    def new_database(self) -> str:
        """The dsn of an empty database."""
        name = f"d{next(self.names)}"
        self.ask("postgres", f"CREATE DATABASE {name}")
        return self.dsn(name)

    def ask(self, database: str, query: str) -> list[tuple[Any, ...]]:
        """What this query returns; `database` is a name or a dsn."""
        dsn = database if "=" in database else self.dsn(database)
        with psycopg.connect(dsn, autocommit=True) as connection:
            done = connection.execute(query.encode())
            return done.fetchall() if done.description else []


@contextmanager
def started_server() -> Iterator[Server]:
    """A server for the time of the block."""
    program("postgres")
    folder = Path(tempfile.mkdtemp(prefix="rp-pg-", dir="/tmp"))  # paths of sockets must be short
    server = Server(folder)
    try:
        if user := account():
            shutil.chown(folder, user, pwd.getpwnam(user).pw_gid)
        options = ["--no-sync", "--no-instructions", "--auth=trust", f"--username={OWNER}", "--encoding=UTF8"]
        subprocess.run(
            [program("initdb"), *options, "--locale=C", "-D", str(folder / "data")],
            user=account(), cwd=folder, stdout=subprocess.DEVNULL, check=True, timeout=START_S,
        )  # fmt: skip
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)
