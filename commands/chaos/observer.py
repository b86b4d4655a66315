"""Collects everything that a running lab shows: logs, records, harms, stats, processes."""

import threading
import time
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final

import orjson

from racepool.client.monitoring import fetch_stats
from racepool.commands.chaos.injection import Awaited, Hit, Injection, Why
from racepool.commands.chaos.lab_processes import Census
from racepool.commands.chaos.memory import MemorySamples
from racepool.commands.chaos.plan import Fault
from racepool.commands.chaos.program_logs import ProgramLogs
from racepool.commands.chaos.records import Submitted, from_line
from racepool.commands.chaos.tail import Tail
from racepool.commands.chaos.witness import Witness
from racepool.protocol.errors import PoolError
from racepool.protocol.settings import Settings
from racepool.protocol.stats import PoolStats

SAMPLE_S: Final = 1.0
STATS_S: Final = 1.0


class Observer:
    """Follows a lab. `look` reads what is new; call it about once a second.

    Attributes:
        witness: None until the right results are known.
        injections: by the number of the fault. `look` adds those of faults inside races, the lab all others.
    """

    def __init__(self, settings: Settings, faults: list[Fault], census: Census) -> None:
        self.logs = ProgramLogs(time.time() - time.monotonic(), census.spawned)
        self.memory = MemorySamples()
        self.witness: Witness | None = None
        self.injections: dict[int, Injection] = {}
        self.begins_at = time.monotonic()
        self.records = settings.dir / "records"
        self.harms = settings.dir / "harms.ndjson"
        self._settings = settings
        self._faults = faults
        self._census = census
        self._logs = settings.dir / "log"
        self._tails: dict[Path, Tail] = {}
        self._sampled_at = 0.0
        self._stats: SimpleQueue[PoolStats] = SimpleQueue()
        self._stop = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)

    def start(self) -> None:
        """Starts to ask the broker for its stats."""
        self._sampler.start()

    def close(self) -> None:
        """Closes all files."""
        for tail in self._tails.values():
            tail.close()

    def stop(self) -> None:
        """Stops to ask the broker."""
        self._stop.set()
        if self._sampler.ident is not None:
            self._sampler.join()

    def look(self) -> None:
        """Reads everything that is new."""
        self._read_logs()
        if self.witness is None:
            return
        self._read_records(self.witness)
        with suppress(Empty):
            while True:
                self.witness.on_stats(self._stats.get_nowait())
        now = time.monotonic()
        if now >= self._sampled_at + SAMPLE_S:
            self._sampled_at = now
            self.memory.on_look(now - self.begins_at, self._census.processes())

    def _read_logs(self) -> None:
        for path in sorted(self._logs.glob("*.log")):
            for line in self._tail(path).lines():
                if path.stem == "broker":
                    self.logs.on_broker_line(line)
                elif path.stem == "supervisord":
                    self.logs.on_supervisord_line(line)
                elif path.stem == "watchdog":
                    self.logs.on_watchdog_line(line)
                else:
                    self.logs.on_other_line(path.stem, line)

    def _read_records(self, witness: Witness) -> None:
        for path in sorted(self.records.glob("*.ndjson")):
            for line in self._tail(path).lines():
                record = from_line(line)
                if isinstance(record, Submitted):
                    witness.on_submitted(record)
                    if record.fault is not None:
                        self.injection(record.fault, record.at).client = record.client
                else:
                    witness.on_resolved(record)
        for line in self._tail(self.harms).lines():
            harm = orjson.loads(line)
            self._on_harm(self.injection(harm["fault"], harm["at"]), harm)
        for injection in self.injections.copy().values():
            for awaited in injection.awaited:
                awaited.look(time.monotonic())

    def _on_harm(self, injection: Injection, harm: dict[str, Any]) -> None:
        verb, at, pid, kind = harm["verb"], harm["at"], harm["pid"], injection.fault.kind
        worker = pid, harm["started"]
        if child := harm.get("child"):
            why, due_at = (Why.RETURNED, at) if verb == kind.verb == "fork-return" else (Why.LEFT, None)
            injection.awaited.append(Awaited(why, (child, harm["child_started"]), worker, due_at, at))
            return
        if verb in kind.before.split("+"):
            injection.prepared.add(pid)
            return
        if verb == kind.verb.split("+")[-1]:
            injection.hits.append(Hit(at, pid))
        if verb == "spin":
            injection.awaited.append(Awaited(Why.HANGS, worker, worker, at + injection.fault.lasts_s, at))

    def left(self) -> list[Awaited]:
        """The children that races have left."""
        every = (each for injection in self.injections.copy().values() for each in injection.awaited)
        return [each for each in every if each.why is not Why.HANGS]

    def injection(self, fault: int, at: float) -> Injection:
        """The injection of this fault, which began at that instant if it is not known yet."""
        return self.injections.setdefault(fault, Injection(self._faults[fault], at))

    def _tail(self, path: Path) -> Tail:
        return self._tails.setdefault(path, Tail(path))

    def _sample(self) -> None:
        while not self._stop.wait(STATS_S):
            with suppress(PoolError):  # the broker is down, or frozen
                self._stats.put(fetch_stats(self._settings, STATS_S))
