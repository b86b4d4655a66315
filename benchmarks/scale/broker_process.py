"""A real broker in a process of its own, with its CPU time and memory."""

import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Self

from benchmarks.process_tree import ProcessTree
from racepool.broker.server import SOCKET_CHECK_S
from racepool.protocol.endpoints import sockets_in
from racepool.protocol.settings import Settings

GIVE_BACK_S: Final = SOCKET_CHECK_S + 2.0
PATIENCE_S: Final = 10.0
NEVER_S: Final = 3_600.0  # fake workers send no heartbeats, which cost something per second, not per task


class BrokerProcess:
    """A context manager. The settings are the defaults, except run directory, workers, backlog limit and liveness."""

    def __init__(self, workers: int, queued: int) -> None:
        self._stack = ExitStack()
        directory = Path(self._stack.enter_context(TemporaryDirectory(prefix="bench-broker-")))
        self.settings = Settings.load(
            dir=directory,
            **sockets_in(directory),
            workers=workers,
            backlog_limit=max(queued + workers, 1),
            liveness=NEVER_S,
        )
        self._log = self._stack.enter_context((directory / "broker.log").open("wb"))

    def __enter__(self) -> Self:
        given = self.settings.model_dump(mode="json", exclude_unset=True)
        variables = {f"RACEPOOL_{name.upper()}": str(value) for name, value in given.items()}
        others = {name: value for name, value in os.environ.items() if not name.startswith("RACEPOOL_")}
        command = [sys.executable, "-P", "-m", "racepool.broker"]
        process = subprocess.Popen(command, env=others | variables, stdout=self._log, start_new_session=True)  # noqa: S603
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)  # killed: SIGTERM would make it wait for its workers
        self._tree = ProcessTree(process.pid)
        deadline = time.monotonic() + PATIENCE_S
        socket = Path(self.settings.endpoint.removeprefix("ipc://"))
        while not socket.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                self._stack.close()
                raise RuntimeError("the broker did not start")
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def cpu_us(self) -> dict[str, float]:
        """The CPU time of its main thread, and of the other threads, which are libzmq's."""
        used = {"main": 0.0, "libzmq": 0.0}
        for part, run_ns in self._tree.cpu().items():
            used["main" if part.thread == "main" else "libzmq"] += run_ns / 1000
        return used

    def memory_bytes(self) -> int:
        """Its proportional set size, after it has given free memory back to the kernel."""
        time.sleep(GIVE_BACK_S)
        return self._tree.memory_bytes()
