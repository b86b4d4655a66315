"""A running pool as the system tests see it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

from racepool import PoolFuture, PoolStats, ZmqPool
from racepool.protocol.stats import WorkerStats

LOG_PATIENCE_S = 15.0
TESTS = Path(__file__).parent
ROOT = TESTS.parent
ROOMS = sorted(link.name for link in (ROOT / "src" / "racepool").iterdir() if link.is_symlink())
"""The folders of the product, each linked into the package."""
RACEPOOL = Path(sys.executable).with_name("racepool")
SHARED = ROOT.parent / "shared" / "data"
ENDS = ("completed", "failed", "crashed", "cancelled", "timed_out", "abandoned")


@dataclass(frozen=True)
class Running:
    """A running pool: its directory, its environment, a client of it."""

    dir: Path
    env: dict[str, str]
    pool: ZmqPool
    supervisord_pid: int

    def exec(self, race: object, **timeouts: float) -> PoolFuture[Any]:
        """As the pool's, for transforms that return other things than it promises."""
        future: PoolFuture[Any] = self.pool.exec(race, **timeouts)  # type: ignore[arg-type]
        return future

    def stats(self) -> PoolStats:
        return self.pool.stats()

    def client(self, **options: Any) -> ZmqPool:  # noqa: ANN401
        """One more client, for the caller to shut down."""
        return ZmqPool(f"ipc://{self.dir}/frontend.ipc", **options)

    def books(self) -> tuple[int, int]:
        """What was submitted, and the sum of all that became of it: the same at all times."""
        stats = self.stats()
        ended = sum(getattr(stats.counters, name) for name in ENDS)
        return stats.counters.submitted, stats.queue_depth - stats.held_by_clients + stats.in_flight + ended

    def is_at_rest(self) -> bool:
        """Whether all workers are there and idle, nothing waits, and ours is the only client."""
        stats = self.stats()
        return (stats.idle_workers, stats.in_flight, stats.queue_depth, stats.clients) == (
            stats.expected_workers, 0, 0, 1
        )  # fmt: skip

    def holder(self, task_id: str | None) -> WorkerStats:
        """The worker that has this task in its hands."""
        return next(worker for worker in self.stats().workers if task_id and worker.task_id == task_id)

    def pids(self) -> dict[str, int]:
        return {worker.name: worker.pid for worker in self.stats().workers}

    def events(self, *names: str) -> list[dict[str, Any]]:
        """The whole log lines of these events, of all programs, in the order of their time."""
        lines = [line for path in (self.dir / "log").glob("*.log*") for line in path.read_text().splitlines(True)]
        entries = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]
        return sorted(
            (entry for entry in entries if entry["event"] in names),
            key=lambda entry: datetime.fromisoformat(entry["timestamp"]),
        )

    def logged(self, event: str, **fields: object) -> dict[str, Any]:
        """The last such line of the logs; waits for it, since lines are written many at a time."""
        deadline = time.monotonic() + LOG_PATIENCE_S
        while True:
            found = [entry for entry in self.events(event) if fields.items() <= entry.items()]
            if found:
                return found[-1]
            assert time.monotonic() < deadline, f"{event} with {fields} was not logged within {LOG_PATIENCE_S} s"
            time.sleep(0.02)


StartPool: TypeAlias = Callable[..., Running]
Race: TypeAlias = Callable[..., dict[str, Any]]
WaitUntil: TypeAlias = Callable[..., None]
Blocked: TypeAlias = Callable[..., AbstractContextManager[None]]
StartClient: TypeAlias = Callable[[Running, list[dict[str, Any]]], "subprocess.Popen[str]"]


def environment(directory: Path, **settings: object) -> dict[str, str]:
    """Ours without any racepool setting, and the tests' transforms within reach."""
    base = {name: value for name, value in os.environ.items() if not name.startswith("RACEPOOL_")}
    given = {f"RACEPOOL_{name.upper()}": str(value) for name, value in settings.items()}
    return base | {"PYTHONPATH": str(TESTS), "RACEPOOL_DIR": str(directory)} | given


def racepool(*arguments: object, env: dict[str, str], text: str | None = None) -> subprocess.CompletedProcess[str]:
    """The command as a person types it; `text` is its standard input."""
    command = [str(RACEPOOL), *map(str, arguments)]
    return subprocess.run(command, env=env, input=text, capture_output=True, text=True, timeout=60, check=False)


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """The process stands still, all threads of it."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def broker_held_back(running: Running) -> Iterator[None]:
    """The broker is killed, and nobody starts another one for the time being."""
    broker = running.stats().broker.pid
    with frozen(running.supervisord_pid):
        os.kill(broker, signal.SIGKILL)
        while state_of(broker):
            time.sleep(0.005)
        yield


def state_of(pid: int) -> str:
    """The kernel's letter for the state of a process (T: stopped); empty if it is no more."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    letter = status.rpartition(")")[2].split()[0]
    return "" if letter == "Z" else letter
