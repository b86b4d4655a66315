"""The CPU time of a task in the broker, by numbers of queued tasks, workers and clients; and a queued task's memory."""

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Final, Literal

from pydantic import BaseModel, Field

from benchmarks.machine import machine
from benchmarks.scale.broker_process import BrokerProcess
from benchmarks.scale.crowd import Crowd

FILE_NAME: Final = "scale.json"
TASKS: Final = 6_000
WARM_UP: Final = 1_000
SMALL: Final = 100  # bytes; the broker opens no body
RACE: Final = 5_000
RAW: Final = 410_000


class Cost(BaseModel):
    """The cost of a task, in one case.

    Attributes:
        axis: what is varied in the series that it belongs to.
        main_us: CPU of the broker's own thread per task, once for each round; `libzmq_us` that of libzmq's.
    """

    axis: Literal["queued", "workers", "clients"]
    queued: int
    workers: int
    clients: int
    main_us: list[float] = Field(default_factory=list)
    libzmq_us: list[float] = Field(default_factory=list)

    @property
    def us(self) -> list[float]:
        """The sum of both, for each round."""
        return [main + libzmq for main, libzmq in zip(self.main_us, self.libzmq_us, strict=True)]


class Weight(BaseModel):
    """The memory of queued tasks, in one case. `beside_bytes` is per task, without its body, for each round."""

    body_bytes: int
    queued: int
    beside_bytes: list[float] = Field(default_factory=list)


class Scale(BaseModel):
    """All cases, with the time and the machine of the measurement."""

    at: datetime
    machine: dict[str, str]
    scale: float
    costs: list[Cost]
    weights: list[Weight]

    def queued_task_bytes(self) -> list[float]:
        """The memory of a queued task without its body, in each case."""
        return [median(weight.beside_bytes) for weight in self.weights]

    def save(self, folder: Path) -> None:
        """Writes the results beside the report."""
        (folder / FILE_NAME).write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")


def load_scale(folder: Path) -> Scale | None:
    """The last results in this folder; None if there are none."""
    path = folder / FILE_NAME
    return Scale.model_validate_json(path.read_bytes()) if path.exists() else None


def cases(scale: float) -> Scale:
    """The cases to measure. A smaller scale means fewer tasks."""

    def count(tasks: int) -> int:
        return round(tasks * scale)

    queued = [Cost(axis="queued", queued=count(depth), workers=3, clients=1) for depth in (0, 1_000, 10_000, 100_000)]
    workers = [Cost(axis="workers", queued=count(1_000), workers=many, clients=1) for many in (3, 100, 500)]
    clients = [Cost(axis="clients", queued=count(1_000), workers=3, clients=many) for many in (1, 200)]
    weights = [(SMALL, 100_000), (RACE, 50_000), (RAW, 500)]
    return Scale(
        at=datetime.now(UTC),
        machine=machine(),
        scale=scale,
        costs=[*queued, *workers, *clients],
        weights=[Weight(body_bytes=size, queued=max(count(tasks), 10)) for size, tasks in weights],
    )


def measure(scale: Scale, rounds: int, report: Callable[[str], None]) -> None:
    """Measures all cases in this many rounds, and adds the figures."""
    for _ in range(rounds):
        for cost in scale.costs:
            report(f"{cost.queued} queued, {cost.workers} workers, {cost.clients} clients")
            _cost(cost, max(50, round(TASKS * scale.scale)))
        for weight in scale.weights:
            report(f"{weight.queued} bodies of {weight.body_bytes} bytes")
            weight.beside_bytes.append(_beside_bytes(weight))


def steps(scale: Scale, rounds: int) -> int:
    """How often `report` will be called."""
    return rounds * (len(scale.costs) + len(scale.weights))


def _cost(cost: Cost, tasks: int) -> None:
    with (
        BrokerProcess(cost.workers, cost.queued) as broker,
        closing(Crowd(broker.settings, cost.clients, bytes(SMALL))) as crowd,
    ):
        crowd.submit(cost.queued + cost.workers)
        crowd.start_workers(cost.workers)
        crowd.serve(min(WARM_UP, tasks))
        before = broker.cpu_us()
        crowd.serve(tasks)
        after = broker.cpu_us()
    cost.main_us.append((after["main"] - before["main"]) / tasks)
    cost.libzmq_us.append((after["libzmq"] - before["libzmq"]) / tasks)


def _beside_bytes(weight: Weight) -> float:
    with (
        BrokerProcess(1, 2 * weight.queued) as broker,
        closing(Crowd(broker.settings, 1, bytes(weight.body_bytes))) as crowd,
    ):
        crowd.submit(weight.queued // 10)  # so that what grows once has grown
        before = broker.memory_bytes()
        crowd.submit(weight.queued)
        grown = broker.memory_bytes() - before
    return grown / weight.queued - weight.body_bytes


def by_axis(scale: Scale) -> Iterator[tuple[str, list[Cost]]]:
    """The series of cases, each with the number that varies in it."""
    for axis in ("queued", "workers", "clients"):
        yield axis, [cost for cost in scale.costs if cost.axis == axis]
