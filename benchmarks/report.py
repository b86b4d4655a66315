"""The report of a run, in Markdown: the measurements, the peers, the machine, and which goals are met."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from benchmarks import turns
from benchmarks.contenders.registry import CONTENDERS, OURS
from benchmarks.figures import ratios, spread
from benchmarks.goals import Verdict, verdicts
from benchmarks.loads import MIXED, NORMALISED, RAW
from benchmarks.measured import Measured
from benchmarks.measures import POLLERS
from benchmarks.tables import table, with_quartiles
from benchmarks.turns import P50, P99, key

FILE_NAME: Final = "report.md"
MEGABYTE: Final = 1e6
_READING: Final = f"""\
Every contender runs in a process of its own, the caller, an asyncio service; all are open all the time, and in each
round every one of them has its turn at each measurement, another one first each time. Each is given the same races, a
mapping as a service holds it (normalised) or the body as it was fetched (raw, 410 KB); mixed is one raw in ten. Every
Python pool runs racepool's own transform, every caller sums up `win_pool_amount` over the records of every result, and
once a round every race's whole result is compared with the expected one. Throughput is that of {POLLERS} pollers, each
with one race under way. A cell is the median of the rounds (quartiles in brackets); ratios are taken within rounds.
Absolute figures belong to the machine and the moment: read the ratios.
"""


class Report:
    """The sections of a report. Each can stand without the others."""

    def __init__(self, measured: Measured, queued_task_bytes: Sequence[float] = ()) -> None:
        self._measured = measured
        self._keys = [contender for contender in CONTENDERS if contender in measured.figures.get(turns.START, {})]
        self.verdicts = verdicts(measured, queued_task_bytes)

    def text(self, plots: Iterable[str], scale: str) -> str:
        """The whole report; `scale` is the section about the broker at scale, `plots` are files beside the report."""
        images = "\n".join(f"![{Path(plot).stem.replace('_', ' ')}]({plot})\n" for plot in plots)
        sections = [
            ("racepool and its peers", self._where(), "#"),
            ("Goals", goals_table(self.verdicts), "##"),
            ("In pictures", images, "##"),
            ("Throughput, tasks a second", self._of_loads(turns.THROUGHPUT, (NORMALISED, RAW, MIXED)), "##"),
            ("Latency, ms", self._latency(), "##"),
            ("The caller's event loop", self._loop(), "##"),
            ("Start-up and memory", self._life(), "##"),
            ("CPU per task, µs", self._cpu(), "##"),
            ("The broker at scale", scale, "##"),
            ("How it was measured", _READING + self._contenders(), "##"),
        ]
        return "\n".join(f"{mark} {title}\n\n{text}" for title, text, mark in sections)

    def _where(self) -> str:
        run = self._measured
        machine = ", ".join(f"{name} {value}" for name, value in run.machine.items())
        versions = ", ".join(f"{CONTENDERS[name].title if name in CONTENDERS else name} {value}"
                             for name, value in run.versions.items())  # fmt: skip
        rounds = f"{run.rounds} round{'s' * (run.rounds > 1)}, {run.workers} workers each, scale {run.scale:g}"
        when = f"{run.at:%Y-%m-%d %H:%M} UTC, {rounds}, in {run.took_s / 60:.1f} minutes."
        return f"{when}\n\n* machine: {machine}\n* versions: {versions}\n"

    def _row(self, title: str, measures: Iterable[tuple[str, float]], contender: str) -> list[str]:
        return [title, *(self._cell(measure, contender, unit) for measure, unit in measures)]

    def _cell(self, measure: str, contender: str, unit: float = 1.0) -> str:
        figures = self._measured.figures.get(measure, {}).get(contender)
        return with_quartiles(spread([figure / unit for figure in figures]) if figures else None)

    def _rows(self, *measures: tuple[str, float]) -> list[list[str]]:
        return [self._row(CONTENDERS[contender].title, measures, contender) for contender in self._keys]

    def _of_loads(self, measure: str, loads: Sequence[str]) -> str:
        """One measure for each load, and the ratio of racepool to each peer."""
        head = ["", *loads, *(f"ours, {load}" for load in loads)]
        rows = self._rows(*((key(measure, load), 1.0) for load in loads))
        for row, contender in zip(rows, self._keys, strict=True):
            row += [self._ratio(key(measure, load), contender) for load in loads]
        return table(head, rows)

    def _ratio(self, measure: str, contender: str) -> str:
        figures = self._measured.figures.get(measure, {})
        both = ratios(figures.get(OURS, ()), figures.get(contender, ()))
        return f"{with_quartiles(spread(both))} x" if both and contender != OURS else ""

    def _latency(self) -> str:
        names = [(measure, load) for load in (NORMALISED, RAW) for measure in (turns.IDLE, turns.BURST)]
        labels = {turns.IDLE: "one", turns.BURST: "five"}
        head = ["", *(f"{labels[measure]} {load}, {part.strip()}" for measure, load in names for part in (P50, P99))]
        rows = self._rows(*((key(measure + part, load), 1.0) for measure, load in names for part in (P50, P99)))
        note = "One task at a time on an idle pool, and bursts of five at once.\n\n"
        return note + table(head, rows)

    def _loop(self) -> str:
        head = ["", "stall in 100 raw, ms", "bare ticker, ms", "exec() normalised, µs", "exec() raw, µs"]
        rows = self._rows(
            (key(turns.STALL, RAW), 1.0),
            (key(turns.BARE_STALL, RAW), 1.0),
            *((key(turns.SUBMIT + P50, load), 1.0) for load in (NORMALISED, RAW)),
        )
        note = (
            "How late a 1 ms ticker is at worst while 100 raw races are submitted and gathered, and with nothing else "
            "on the loop; and what one submission takes of the caller's thread.\n\n"
        )
        return note + table(head, rows)

    def _life(self) -> str:
        head = ["", "first result, s", "memory at rest, MB", "at its peak, MB", "ours, peak"]
        rows = self._rows((turns.START, 1.0), (turns.MEMORY_REST, MEGABYTE), (turns.MEMORY_PEAK, MEGABYTE))
        for row, contender in zip(rows, self._keys, strict=True):
            row.append(self._ratio(turns.MEMORY_PEAK, contender))
        tasks = turns.memory_tasks(self._measured.scale)
        note = (
            "From the import of the pool's library to the first result. And the proportional set size (PSS) of the "
            "caller and all processes below it, with what their memfds hold: after all rounds, and at its peak while "
            f"{tasks:,} raw races are submitted at once.\n\n"
        )
        return note + table(head, rows)

    def _cpu(self) -> str:
        note = (
            "User and system time of the caller and all processes below it, of every thread, in the throughput turns.\n"
        )
        return "\n".join(
            [note, self._of_loads(turns.CPU, (NORMALISED, RAW, MIXED)), *map(self._parts, (NORMALISED, RAW))]
        )

    def _parts(self, load: str) -> str:
        """CPU time by process and thread for racepool, the executor and the proxy; by process for the others."""
        rows = []
        for contender in self._keys:
            by_process: dict[str, list[str]] = defaultdict(list)
            for part in self._measured.cpu.get(load, {}).get(contender, ()):
                by_process[part.process].append(f"{part.thread} {part.us:.0f}")
            text = "; ".join(f"{process}: {', '.join(threads)}" for process, threads in by_process.items())
            rows.append([CONTENDERS[contender].title, text])
        return table([load, "CPU per task by process and thread, µs"], rows, others="---")

    def _contenders(self) -> str:
        rows = [[CONTENDERS[contender].title, CONTENDERS[contender].setup] for contender in self._keys]
        absent = [(CONTENDERS[name].title, f"skipped: {why}") for name, why in self._measured.skipped.items()]
        absent += [
            (CONTENDERS[name].title, f"failed: {why.splitlines()[0]}") for name, why in self._measured.failed.items()
        ]
        return "\n" + table(["contender", "as it was set up"], [*rows, *absent], others="---")


def goals_table(goals: Iterable[Verdict]) -> str:
    """Which goals are met."""
    rows = []
    for goal in goals:
        word = {True: "met", False: "**not met**", None: "not measured"}[goal.is_met]
        what = f"{goal.what}, to {goal.peer}" if goal.peer else goal.what
        rows.append(
            [what, f"{goal.limit.sense} {goal.limit.value:g} {goal.limit.unit}", with_quartiles(goal.figure), word]
        )
    return table(["racepool's", "goal", "measured", ""], rows)
