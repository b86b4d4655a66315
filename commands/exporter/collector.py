"""The metrics for Prometheus. Each scrape asks the broker, so that no value is older than the scrape."""

import time
from collections.abc import Callable, Iterator

from prometheus_client import Metric, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from racepool.commands.doctor.probes.processes import process
from racepool.commands.exporter.dead_view import DeadView
from racepool.commands.exporter.metrics import families
from racepool.protocol.errors import PoolError
from racepool.protocol.stats import PoolStats

BROKER = "racepool_broker"


class PoolCollector(Collector):
    """All metrics of one pool. If the broker does not answer, `racepool_up` is 0 and its stats are left out.

    Args:
        ask: fetches the broker's stats within a bounded time; raises PoolError if it gets none.
        dead: the pool's dead tasks; None if the broker is on another host, with its files and its process.
    """

    def __init__(self, ask: Callable[[], PoolStats], dead: DeadView | None) -> None:
        self._ask = ask
        self._dead = dead

    def collect(self) -> Iterator[Metric]:
        """Asks the broker, and yields all metrics."""
        asked_at = time.perf_counter()
        try:
            stats = self._ask()
        except PoolError:
            stats = None
        took_s = time.perf_counter() - asked_at
        yield GaugeMetricFamily("racepool_up", "1 if the broker answered, else 0.", stats is not None)
        yield GaugeMetricFamily("racepool_ask_seconds", "How long the broker was waited for.", took_s)
        if stats is not None:
            yield from families(stats)
        if self._dead is not None:
            yield from _dead_tasks(self._dead)
            pid = 0 if stats is None else stats.broker.pid
            found = process(pid)
            if found is not None and (found.module, found.told_pid) == ("racepool.broker", pid):
                # else the pid is that of another pid namespace, and another process has it here
                yield from ProcessCollector(BROKER, pid=lambda: pid, registry=None).collect()


def _dead_tasks(dead: DeadView) -> Iterator[Metric]:
    """No metric if they cannot be read: a wrong 0 would hide them."""
    try:
        found = dead.look()
    except PoolError:
        return
    yield GaugeMetricFamily("racepool_dead_tasks", "Dead tasks that are kept.", len(found.tasks))
    yield GaugeMetricFamily(
        "racepool_dead_tasks_unreadable", "Dead tasks whose file is damaged.", len(found.records) - len(found.tasks)
    )
