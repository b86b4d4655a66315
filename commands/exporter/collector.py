"""What Prometheus gets: the broker is asked when it asks, so that no figure is older than its scrape."""

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
    """All metrics of one pool. A broker that does not answer is a figure, too: `racepool_up 0`, and no other.

    Args:
        ask: fetches the figures, within a bound; a PoolError means that there are none.
        dead: the pool's dead tasks; None where the broker is on another host, so that neither its files nor its process
            can be looked at from here.
    """

    def __init__(self, ask: Callable[[], PoolStats], dead: DeadView | None) -> None:
        self._ask = ask
        self._dead = dead

    def collect(self) -> Iterator[Metric]:
        """Asks now."""
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
            if found is not None and found.module == "racepool.broker":  # else its pid is one of another container
                yield from ProcessCollector(BROKER, pid=lambda: pid, registry=None).collect()


def _dead_tasks(dead: DeadView) -> Iterator[Metric]:
    """None where they cannot be read: a wrong 0 would hide them."""
    try:
        found = dead.look()
    except PoolError:
        return
    yield GaugeMetricFamily("racepool_dead_tasks", "Tasks that were given up and are kept.", len(found.tasks))
    yield GaugeMetricFamily(
        "racepool_dead_tasks_unreadable", "Files among them that are damaged.", len(found.records) - len(found.tasks)
    )
