"""Whole programs that use the client, each a Python process, and how they end."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HANG_S = 20.0
POLL_S = 0.01
TRACEBACK = "Traceback (most recent call last):"
INTERRUPTED = [TRACEBACK, "KeyboardInterrupt"]
CHAINED = "During handling of the above exception, another exception occurred:"
ASYNC_INTERRUPTED = [TRACEBACK, "asyncio.exceptions.CancelledError", CHAINED, *INTERRUPTED]
PYTHON = [
    sys.executable,
    "-W",
    "error",
    "-W",
    "ignore:This process",
]  # Python 3.12 warns about each fork of a process with threads
PRELUDE = r"""
import asyncio, atexit, os, resource, signal, sys, threading, time
from concurrent.futures import ThreadPoolExecutor, wait
from racepool import BrokerUnavailableError, PoolBrokenError, PoolClosedError, PoolForkedError
from racepool import ZmqPool, local_pool, pool

def race(name="echo", race_id="r"):
    return {
        "id": race_id, "name": name, "status": "open", "race_date_nz": "2026-01-31", "start_time_nz": "12:50",
        "entrants": [{"entrantId": "a", "name": "Paper Kettle", "runnerNumber": 1}],
    }

def execute(race_id, on=pool):
    return on.exec(race(race_id=race_id)).result()["id"]

def say(*words):
    print(" ".join(map(str, words)) + "\n", end="", flush=True)  # one write, whoever else speaks

def until(predicate):
    deadline = time.monotonic() + 10
    while not predicate():
        assert time.monotonic() < deadline, "this did not come true within 10 s"
        time.sleep(0.001)

def open_gate():
    open(os.environ["GATE"], "w").close()

LONG = race("wait-for:" + os.environ["GATE"], "long")
"""


@dataclass(frozen=True)
class Ended:
    """How a program ended: its output, without the indented lines of tracebacks, and how long its end took.

    `seconds` are counted from its last line, from its start if it printed nothing, or from the interrupt.
    """

    code: int
    out: list[str]
    err: list[str]
    seconds: float


class Program:
    """A program in a process session of its own, as in a terminal: an interrupt reaches all its children."""

    def __init__(self, command: list[str], err: Path, env: dict[str, str], descriptors: Sequence[int] = ()) -> None:
        self._err = err
        with err.open("w") as file:
            self.process = subprocess.Popen(
                command,
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                pass_fds=descriptors,
                start_new_session=True,
            )
        self._since = time.monotonic()
        self._watchdog = threading.Timer(HANG_S, self._kill)
        self._watchdog.daemon = True
        self._watchdog.start()

    def line(self) -> str:
        """Waits for the next line of its output."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line:
            self._since = time.monotonic()
        return line.strip()

    def tell(self) -> None:
        """Makes its input() return."""
        assert self.process.stdin is not None
        self._since = time.monotonic()
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def signal(self, number: signal.Signals) -> None:
        """Sends the signal to this process only."""
        self._since = time.monotonic()
        self.process.send_signal(number)

    def interrupt(self, times: int = 1) -> None:
        """Interrupts as Ctrl-C does, once the main thread waits: CPython can miss a signal just before it blocks."""
        switches = ""
        while switches != (switches := self._switches_at_rest()) or not switches:
            time.sleep(POLL_S)
        self._since = time.monotonic()
        for _ in range(times):
            os.killpg(self.process.pid, signal.SIGINT)

    def end(self) -> Ended:
        """Waits for its end. A program that hangs is killed: its exit code shows that."""
        out = list(iter(self.line, ""))
        code = self.process.wait()
        seconds = time.monotonic() - self._since
        self.close()
        err = [line for line in self._err.read_text().splitlines() if line and not line.startswith(" ")]
        return Ended(code, out, err, seconds)

    def close(self) -> None:
        """Kills it with all its children."""
        self._watchdog.cancel()
        self._kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()

    def _switches_at_rest(self) -> str:
        """How often the main thread has begun to wait; None if it does not wait now."""
        assert self.process.poll() is None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        _, _, switches = status.partition("\nvoluntary_ctxt_switches:")
        return switches.split()[0] if "State:\tS" in status else ""

    def _kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)  # also its children, which may hold its output open
