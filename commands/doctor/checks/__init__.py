"""The checks: pure functions of the facts. A check says nothing if its facts could not be found out."""

from collections.abc import Callable, Iterable
from typing import TypeAlias

from racepool.commands.doctor.checks import broker, installation, machine, place, supervision, workers
from racepool.commands.doctor.facts import Facts
from racepool.commands.doctor.finding import Finding

Check: TypeAlias = Callable[[Facts], Iterable[Finding]]

CHECKS: tuple[Check, ...] = (
    installation.versions,
    installation.time_zone,
    installation.extras,
    place.settings,
    place.run_directory,
    place.supervisor_socket_path,
    place.space,
    place.sockets,
    place.lock,
    place.keys,
    place.logs,
    broker.answers,
    broker.versions,
    broker.memory,
    broker.files,
    broker.backlog,
    broker.dead_tasks,
    workers.number,
    workers.frozen,
    workers.heartbeats,
    workers.versions,
    workers.losses,
    supervision.supervisor,
    supervision.programs,
    supervision.restarts,
    supervision.watchdog,
    machine.memory,
    machine.clock,
    machine.workers_clocks,
    machine.overdue,
)


def findings(facts: Facts) -> list[Finding]:
    """The findings of all checks; causes come before their effects."""
    return [finding for check in CHECKS for finding in check(facts)]
