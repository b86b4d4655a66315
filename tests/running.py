"""A running pool as the system tests see it."""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from client import PoolFuture, PoolStats, ZmqPool

LOG_PATIENCE_S = 5.0
TESTS = Path(__file__).parent
ROOT = TESTS.parent
RACEPOOL = Path(sys.executable).with_name("racepool")
SHARED = ROOT.parent / "shared" / "data"


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

    def pids(self) -> dict[str, int]:
        return {worker.name: worker.pid for worker in self.stats().workers}

    def events(self, *names: str) -> list[dict[str, Any]]:
        """The log lines of these events, of all programs, in the order of their time."""
        lines = [line for path in (self.dir / "log").glob("*.log*") for line in path.read_text().splitlines()]
        entries = [json.loads(line) for line in lines if line.startswith("{")]
        return sorted(
            (entry for entry in entries if entry["event"] in names), key=lambda entry: str(entry["timestamp"])
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


def environment(directory: Path, **settings: object) -> dict[str, str]:
    """Ours without any racepool setting, and the tests' transforms within reach."""
    base = {name: value for name, value in os.environ.items() if not name.startswith("RACEPOOL_")}
    given = {f"RACEPOOL_{name.upper()}": str(value) for name, value in settings.items()}
    return base | {"PYTHONPATH": str(TESTS), "RACEPOOL_DIR": str(directory)} | given
