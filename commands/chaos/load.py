"""A client of the lab, as a program: it submits tasks by the plan and records how each one ended.

`python -P -m racepool.commands.chaos.load ORDERS`, with the orders as JSON. It ends when every task is resolved, or
when the lab ends.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from racepool import PoolFuture, ZmqPool
from racepool.commands.chaos.ending import end_with_the_lab
from racepool.commands.chaos.lab_races import POLLED_AT, RACES, body, harmful, lab_race
from racepool.commands.chaos.plan import Fault, Plan, Submission
from racepool.commands.chaos.records import Record, Resolved, Submitted, outcome_of, to_line
from racepool.protocol.errors import PoolError


@dataclass(frozen=True)
class Orders:
    """What one client is to do.

    Attributes:
        name: the client's name, also of its file in `records`.
        client: the number of a steady client.
        begins_at: the start of the plan, by the monotonic clock, which all processes of this host share.
        burst: for a client of one fault: the fault's number, the number of tasks, the seconds that each one sleeps.
        dawdle_s: how many seconds it needs for each answer.
    """

    plan: Plan
    name: str
    records: Path
    client: int = 0
    begins_at: float = 0.0
    burst: tuple[int, int, float] | None = None
    dawdle_s: float = 0.0

    def to_text(self) -> str:
        """The orders as one command-line argument."""
        return json.dumps(vars(self) | {"plan": self.plan.to_wire(), "records": str(self.records)})

    @classmethod
    def from_text(cls, text: str) -> "Orders":
        """Reads what `to_text` wrote."""
        wire = json.loads(text)
        return cls(**wire | {"plan": Plan.from_wire(wire["plan"]), "records": Path(wire["records"])})

    def submissions(self) -> Iterator[Submission]:
        """What to submit, in order."""
        return self.plan.burst(*self.burst) if self.burst else self.plan.load(self.client)

    @property
    def file(self) -> Path:
        """Where its records go."""
        return self.records / f"{self.name}.ndjson"


class LoadClient:
    """One client at work. A thread of its own digests the results, so that the pool's I/O thread need not wait."""

    def __init__(self, orders: Orders, pool: ZmqPool) -> None:
        self._orders = orders
        self._pool = pool
        self._races = [lab_race(orders.plan.seed, index) for index in range(RACES)]
        self._bodies = [body(race) for race in self._races]
        self._faults = orders.plan.faults()
        self._file = os.open(orders.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._resolved: SimpleQueue[tuple[int, float, Future[Any]] | None] = SimpleQueue()
        self._open = threading.Semaphore(0)

    def run(self) -> None:
        """Submits each task at its time, and returns when all are resolved."""
        writer = threading.Thread(target=self._write_resolved)
        writer.start()
        count = 0
        for count, submission in enumerate(self._orders.submissions(), 1):
            time.sleep(max(0.0, self._orders.begins_at + submission.at_s - time.monotonic()))
            self._submit(count, submission)
        for _ in range(count):
            self._open.acquire()
        self._resolved.put(None)
        writer.join()

    def _submit(self, n: int, submission: Submission) -> None:
        fault = None if submission.fault is None else self._faults[submission.fault]
        run_timeout_s = self._run_timeout_s(fault)
        at = time.monotonic()
        try:
            future = self._pool.exec(
                self._body(submission, fault), polled_at=POLLED_AT, run_timeout_s=run_timeout_s or None
            )
        except PoolError as error:
            future = PoolFuture()
            future.set_exception(error)
        self._write(
            Submitted(self._orders.name, n, at, future.task_id or "", submission.race, run_timeout_s, submission.fault)
        )
        future.add_done_callback(partial(self._on_done, n))

    def _body(self, submission: Submission, fault: Fault | None) -> bytes:
        race = self._races[submission.race]
        if submission.harm is not None:
            return body(harmful(race, *submission.harm))
        if fault is None:
            return self._bodies[submission.race]
        return body(harmful(race, fault.kind.verb, str(fault.lasts_s or ""), fault.number))

    @staticmethod
    def _run_timeout_s(fault: Fault | None) -> float:
        """A race that never ends runs as long as its fault lasts; 0 = the setting."""
        return fault.lasts_s if fault is not None and fault.kind.hangs else 0.0

    def _on_done(self, n: int, future: "Future[Any]") -> None:
        self._resolved.put((n, time.monotonic(), future))
        time.sleep(self._orders.dawdle_s)

    def _write_resolved(self) -> None:
        while (resolved := self._resolved.get()) is not None:
            n, at, future = resolved
            self._write(Resolved(self._orders.name, n, at, *outcome_of(future)))
            self._open.release()

    def _write(self, record: Record) -> None:
        os.write(self._file, to_line(record))


def main() -> None:
    """Runs the client that the first argument describes."""
    end_with_the_lab()
    with ZmqPool() as pool:
        LoadClient(Orders.from_text(sys.argv[1]), pool).run()


if __name__ == "__main__":
    main()
