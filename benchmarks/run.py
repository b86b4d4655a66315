"""The run: each contender has a driver of its own, and its turn in every round. The order rotates."""

import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks import turns
from benchmarks.contenders.registry import Contender
from benchmarks.lane import Lane, LaneError
from benchmarks.loads import NORMALISED, RAW, result_path
from benchmarks.measured import CpuPart, Measured
from benchmarks.process_tree import Cpu, Part
from benchmarks.turns import TURNS, Turn

WARM_UP: Final = 0.1  # of a round's tasks
EXTRA_STARTS: Final = 2
MEMORY_ROUNDS: Final = 2
SAMPLE_S: Final = 0.05

Report = Callable[[str], None]
"""Is called with the text of each step."""


class Run:
    """Measures all contenders; `perform` fills `measured`."""

    def __init__(self, contenders: Sequence[Contender], loads: Path, measured: Measured, report: Report) -> None:
        self._contenders = contenders
        self._loads = loads
        self._measured = measured
        self._report = report
        self._lanes: dict[str, Lane] = {}
        self._rates: dict[tuple[str, str], float] = {}  # contender, load -> tasks a second, once it is known
        self._cpu: dict[tuple[str, str], list[dict[Part, float]]] = defaultdict(list)  # load, contender -> µs per task

    def perform(self) -> None:
        """Starts the drivers, runs all rounds, and measures memory. Leaves no process behind."""
        started_at = time.monotonic()
        for index in range(min(EXTRA_STARTS, self._measured.rounds - 1)):
            for contender in self._order(index):
                self._attempt(contender, self._start_and_stop)
        with ExitStack() as stack:
            for contender in self._order(0):
                self._attempt(contender, lambda each: self._open(each, stack))
            stack.callback(self._let_all_end)
            for index in range(self._measured.rounds + 1):
                self._round(index)
            for index in range(min(MEMORY_ROUNDS, self._measured.rounds)):
                self._in_turn(index, f"memory, pass {index + 1}", self._memory)
        self._sum_up_cpu()
        self._measured.took_s = time.monotonic() - started_at

    def steps(self) -> int:
        """How often `report` will be called at most."""
        rounds = self._measured.rounds
        of_each = min(EXTRA_STARTS, rounds - 1) + 1 + (rounds + 1) * (1 + len(TURNS)) + min(MEMORY_ROUNDS, rounds)
        return of_each * len(self._contenders)

    def _order(self, index: int) -> list[Contender]:
        """The contenders that still run. Each round begins with another one."""
        alive = [contender for contender in self._contenders if contender.key not in self._measured.failed]
        shift = index % len(alive) if alive else 0
        return alive[shift:] + alive[:shift]

    def _attempt(self, contender: Contender, step: Callable[[Contender], None]) -> None:
        try:
            step(contender)
        except LaneError as error:
            self._measured.failed[contender.key] = str(error)
            self._measured.forget(contender.key)
            if lane := self._lanes.pop(contender.key, None):
                lane.stop()

    def _start_and_stop(self, contender: Contender) -> None:
        self._report(f"start of {contender.title}")
        with Lane(contender, self._loads, self._measured.workers) as lane:
            self._measured.note(turns.START, contender.key, lane.started_s())

    def _open(self, contender: Contender, stack: ExitStack) -> None:
        self._report(f"start of {contender.title}")
        lane = stack.enter_context(Lane(contender, self._loads, self._measured.workers))
        self._lanes[contender.key] = lane
        self._measured.note(turns.START, contender.key, lane.started_s())

    def _let_all_end(self) -> None:
        """Ends all drivers at the same time, and then waits for each."""
        for lane in self._lanes.values():
            lane.let_end()

    def _round(self, index: int) -> None:
        """All turns of all contenders. Round 0 is the warm-up."""
        name = f"round {index} of {self._measured.rounds}" if index else "warming up"
        self._in_turn(index, f"{name}: results", self._check)
        for number, turn in enumerate(TURNS):
            self._in_turn(index + number, f"{name}: {turn.do}, {turn.load}", self._turn(turn, is_warm_up=not index))

    def _in_turn(self, index: int, what: str, step: Callable[[Lane], None]) -> None:
        for contender in self._order(index):
            self._report(f"{what}, {contender.title}")
            self._attempt(contender, lambda each: step(self._lanes[each.key]))

    def _check(self, lane: Lane) -> None:
        """Checks the whole result of every race. A pool that computes something else is not compared."""
        for load in (NORMALISED, RAW):
            for index, result in enumerate(lane.ask("results", load, 0)):
                if result != json.loads(result_path(self._loads, load, index).read_bytes()):
                    raise LaneError(f"{lane.contender.title}: the result of {load} race {index} is wrong")

    def _turn(self, turn: Turn, *, is_warm_up: bool) -> Callable[[Lane], None]:
        def take(lane: Lane) -> None:
            for _ in range(turn.times):
                tasks = self._tasks(turn, lane.contender.key, is_warm_up=is_warm_up)
                before = lane.tree.cpu() if turn.do == "sustained" else Counter()
                answer = lane.ask(turn.do, turn.load, tasks)
                if turn.do == "sustained":
                    self._rates[lane.contender.key, turn.load] = tasks / answer
                if not is_warm_up:
                    self._note(turn, lane, answer, tasks, before)

        return take

    def _tasks(self, turn: Turn, contender: str, *, is_warm_up: bool) -> int:
        scale = self._measured.scale * (WARM_UP if is_warm_up else 1)
        tasks = turn.tasks_at(scale)
        rate = self._rates.get((contender, turn.load))
        if turn.do != "sustained" or rate is None:
            return tasks
        return max(5, min(tasks, round(rate * turns.LONGEST_TURN_S)))

    def _note(self, turn: Turn, lane: Lane, answer: Any, tasks: int, before: Cpu) -> None:  # noqa: ANN401
        contender = lane.contender.key
        for name, figure in turn.figures(answer, tasks).items():
            self._measured.note(turn.name(name), contender, figure)
        if turn.do == "idle":
            self._measured.latencies.setdefault(turn.load, {}).setdefault(contender, []).extend(answer)
        if turn.do == "sustained":
            used = lane.tree.cpu()
            used.subtract({part: run_ns for part, run_ns in before.items() if part in used})
            self._cpu[turn.load, contender].append({part: _us(run_ns, tasks) for part, run_ns in used.items()})
            self._measured.note(turn.name(turns.CPU), contender, _us(sum(used.values()), tasks))

    def _memory(self, lane: Lane) -> None:
        """The memory of the tree at rest, and its peak while a thousand raw races come at once."""
        contender = lane.contender.key
        looks = [lane.tree.memory_bytes()]
        self._measured.note(turns.MEMORY_REST, contender, looks[0])
        tasks = turns.memory_tasks(self._measured.scale)
        lane.ask("together", RAW, tasks, meanwhile=lambda: looks.append(lane.tree.memory_bytes()), every_s=SAMPLE_S)
        self._measured.note(turns.MEMORY_PEAK, contender, max(looks))

    def _sum_up_cpu(self) -> None:
        for (load, contender), rounds in self._cpu.items():
            if contender not in self._measured.failed:
                parts = [CpuPart(process=part.process, thread=part.thread, us=us) for part, us in _medians(rounds)]
                self._measured.cpu.setdefault(load, {})[contender] = parts


def _medians(rounds: list[dict[Part, float]]) -> Iterator[tuple[Part, float]]:
    """The median CPU time of each part that used any."""
    for part in sorted({part for used in rounds for part in used}):
        us = median(used.get(part, 0.0) for used in rounds)
        if us > 0:
            yield part, us


def _us(run_ns: int, tasks: int) -> float:
    return run_ns / 1000 / tasks
