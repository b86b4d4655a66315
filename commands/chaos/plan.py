"""What will happen: the same seed gives the same faults and the same load. Knows no process, socket or clock."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final, Self

from racepool.commands.chaos.kinds import KINDS, Kind
from racepool.commands.chaos.lab_races import HEAVY, LIGHT

LEAD_S: Final = 1.5
CALM_S: Final = 1.0
LOOK_S: Final = 0.25
LEAST_GAP_S: Final = 0.01
BURST: Final = 20
BURST_LEAD_S: Final = 0.03
LEAVERS: Final = 3  # for each worker; a few, because the workers take them as they become free
HEAVY_CHANCE: Final = 0.1
STEADY_CLIENTS: Final = 2


def steady(client: int) -> str:
    """The name of the nth steady client."""
    return f"steady-{client}"


@dataclass(frozen=True)
class Fault:
    """One fault: instants in seconds from the start of the load.

    Attributes:
        number: from 0, in the order of the instants; also the seed for random choices within the fault.
        target: the number of a worker, for the kinds that hit one.
    """

    number: int
    at_s: float
    kind: Kind
    target: int
    lasts_s: float

    @property
    def calm_at_s(self) -> float:
        """The latest instant at which the pool must be whole again."""
        return self.at_s + self.lasts_s + self.kind.rest_s


@dataclass(frozen=True)
class Submission:
    """One exec() of a client's plan.

    Attributes:
        fault: the number of the fault inside the race, if there is one.
        harm: what the saboteur does with a race that must end with the right result all the same: the verb, its
            argument, and the number of the fault that it belongs to.
    """

    at_s: float
    race: int
    fault: int | None = None
    harm: tuple[str, str, int] | None = None


@dataclass(frozen=True)
class Plan:
    """Everything that will happen, computed from a few numbers.

    Attributes:
        seconds: how long the load lasts.
        rate: average submissions a second of all steady clients together, without the bursts at the faults.
        every_s: the average time between the beginnings of two faults; longer where faults may not overlap.
    """

    seed: int
    seconds: float
    rate: float
    kinds: tuple[Kind, ...]
    every_s: float
    workers: int

    def faults(self) -> list[Fault]:
        """Faults at random instants. Each kind comes once before any kind comes twice.

        While no kind that is due may begin, a kind that is over sooner than the running faults may take its place. A
        fault that would last longer than the load does not begin.
        """
        random = Random(f"{self.seed}/faults")  # noqa: S311  # no secret
        faults: list[Fault] = []
        running: list[Fault] = []
        bag: list[Kind] = []
        at_s = LEAD_S + random.expovariate(1 / self.every_s) / 2
        while self.kinds and at_s < self.seconds - CALM_S:
            bag = bag or random.sample(self.kinds, len(self.kinds))
            drawn = [self._drawn(random, len(faults), at_s, kind) for kind in bag]
            in_time = [fault for fault in drawn if fault.at_s + fault.lasts_s <= self.seconds - CALM_S]
            running = [fault for fault in running if fault.calm_at_s > at_s]
            calm_at_s = max((fault.calm_at_s for fault in running), default=0.0)
            others = random.sample(self.kinds, len(self.kinds))
            short = [
                each
                for each in (self._drawn(random, len(faults), at_s, kind) for kind in others)
                if each.calm_at_s < calm_at_s
            ]
            fault = next((each for each in (*in_time, *short) if _may_begin(each, running)), None)
            if fault is not None:
                bag = [kind for kind in bag if kind is not fault.kind]
                faults.append(fault)
                running.append(fault)
                at_s += max(LEAST_GAP_S, random.expovariate(1 / self.every_s))
            else:
                bag = bag if in_time else []  # the kinds left in the bag last too long; others may fit
                at_s += LOOK_S
        return faults

    def _drawn(self, random: Random, number: int, at_s: float, kind: Kind) -> Fault:
        target = random.randrange(self.workers)
        return Fault(number, round(at_s, 3), kind, target, round(random.uniform(*kind.lasts_s), 3))

    def load(self, client: int) -> Iterator[Submission]:
        """A steady client's submissions in order. The first client also submits the races with faults in them."""
        random = Random(f"{self.seed}/load/{client}")  # noqa: S311  # no secret
        waiting = deque(self.faults())
        gap_s = STEADY_CLIENTS / self.rate
        at_s = random.expovariate(1 / gap_s)
        while at_s < self.seconds:
            while waiting and waiting[0].at_s - BURST_LEAD_S <= at_s:
                yield from self._around(waiting.popleft(), client, random)
            yield Submission(at_s, _race(random))
            at_s += random.expovariate(1 / gap_s)

    def _around(self, fault: Fault, client: int, random: Random) -> Iterator[Submission]:
        """A burst just before the fault, so that the pool has tasks to lose, and the race with the fault in it."""
        at_s = fault.at_s - BURST_LEAD_S
        for index in range(0 if fault.kind.is_calm else BURST):
            if fault.kind.verb and client == 0 and index == BURST // 2:
                for _ in range(LEAVERS * self.workers if fault.kind.before else 0):
                    yield Submission(at_s, random.randrange(LIGHT), harm=(fault.kind.before, "", fault.number))
                yield Submission(at_s, random.randrange(LIGHT), fault.number)
            yield Submission(at_s, _race(random))

    def burst(self, fault: int, count: int, sleeps_s: float) -> Iterator[Submission]:
        """The submissions of a client for one fault: all at once."""
        random = Random(f"{self.seed}/burst/{fault}")  # noqa: S311  # no secret
        for _ in range(count):
            yield Submission(0.0, random.randrange(LIGHT), harm=("sleep", str(sleeps_s), fault) if sleeps_s else None)

    def to_wire(self) -> dict[str, Any]:
        """As a JSON object."""
        return vars(self) | {"kinds": [kind.name for kind in self.kinds]}

    @classmethod
    def from_wire(cls, wire: dict[str, Any]) -> Self:
        """Reads what `to_wire` wrote."""
        return cls(**wire | {"kinds": tuple(KINDS[name] for name in wire["kinds"])})


def _may_begin(fault: Fault, earlier: Sequence[Fault]) -> bool:
    return not any(_clash(fault, other) for other in earlier if other.calm_at_s > fault.at_s)


def _clash(fault: Fault, other: Fault) -> bool:
    """Whether one takes what the other avoids, or both would freeze the same worker."""
    if fault.kind.hits_one_worker and other.kind.hits_one_worker and fault.target == other.target:
        return True
    return bool(fault.kind.takes & other.kind.avoids or other.kind.takes & fault.kind.avoids)


def _race(random: Random) -> int:
    """A random race, mostly a light one, as real races are."""
    return LIGHT + random.randrange(HEAVY) if random.random() < HEAVY_CHANCE else random.randrange(LIGHT)
