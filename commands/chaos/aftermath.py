"""What races leave behind in workers, and modules that end their process: which promises held. Pure."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from racepool.commands.chaos.evidence import Evidence, Judgement
from racepool.commands.chaos.injection import Awaited, Injection, Why
from racepool.commands.chaos.measurement import EXIT_NOTICED_S, NOISE_S
from racepool.commands.chaos.program_logs import SPAWNED

RETURNED_S: Final = 3.0
OUTLIVES_S: Final = 10.0


def hangs(evidence: Evidence) -> Judgement:
    """The broker ends a worker whose race hangs, or the worker's own timer does. A frozen worker is not judged."""
    frozen = evidence.hits(frozen_only=True)
    hanging = [each for each in _awaited(evidence, Why.HANGS) if each[1].process[0] not in frozen]
    broken = _alive(hanging, evidence.settings.liveness + EXIT_NOTICED_S + NOISE_S)
    return f"{len(hanging)} hanging races", tuple(broken), bool(hanging)


def children(evidence: Evidence) -> Judgement:
    """A child that returns from the transform ends at once. Any other one ends with its worker, or with the pool."""
    returned, left = _awaited(evidence, Why.RETURNED), _awaited(evidence, Why.LEFT)
    broken = _alive(returned, RETURNED_S) + _alive(left, OUTLIVES_S)
    return f"{len(returned) + len(left)} children", tuple(broken), bool(returned or left)


def _awaited(evidence: Evidence, why: Why) -> list[tuple[Injection, Awaited]]:
    """The processes whose end has become due."""
    every = ((injection, each) for injection in evidence.injections for each in injection.awaited)
    return [(injection, each) for injection, each in every if each.why is why and each.due_at is not None]


def _alive(awaited: Sequence[tuple[Injection, Awaited]], patience_s: float) -> list[str]:
    return [
        f"{each.why.value} ({injection.name}, pid {each.process[0]}) lived {patience_s:g} s too long"
        for injection, each in awaited
        if each.is_overdue(patience_s)
    ]


def starts(evidence: Evidence) -> Judgement:
    """While a module ends its process, and after it was mended: then each worker must be ready in time."""
    faults = [each for each in evidence.done if each.name.startswith("import-") and each.until is not None]
    broken = [line for injection in faults for line in (*_too_often(evidence, injection), *_away(evidence, injection))]
    return f"{len(faults)} faulty modules", tuple(broken), bool(faults)


def _too_often(evidence: Evidence, injection: Injection) -> list[str]:
    until = injection.until or injection.at
    counts = Counter(each.worker for each in evidence.logs.of(SPAWNED) if injection.at <= each.at <= until)
    allowed = 2 + int(until - injection.at)  # the first start comes at once; the log rounds
    return [
        f"{name} was started {count} times in {until - injection.at:.1f} s"
        for name, count in counts.items()
        if count > allowed
    ]


def _away(evidence: Evidence, injection: Injection) -> list[str]:
    if evidence.ending is None:  # the run may have been interrupted just then
        return []
    until = injection.until or injection.at
    ready = {each.worker for each in evidence.logs.of("worker_ready") if until <= each.at <= injection.over_at}
    names = (f"worker-{index}" for index in range(evidence.settings.workers))
    return [
        f"{name} was not ready {injection.over_at - until:g} s after the module was mended"
        for name in names
        if name not in ready
    ]
