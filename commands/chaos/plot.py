"""A picture of the lab's memory over time, with a tick for each fault. Needs matplotlib, the extra `plot`."""

from collections import defaultdict
from pathlib import Path
from typing import Final

from racepool.commands.chaos.lab import Findings
from racepool.commands.chaos.memory import Sample
from racepool.commands.chaos.report import by_kind

COLOURS: Final = {
    "broker": "tab:red", "worker": "tab:blue", "supervisord": "tab:green", "client": "tab:orange",
    "watchdog": "tab:purple", "stutterer": "tab:cyan", "rubbish": "tab:brown", "other": "tab:pink",
}  # fmt: skip
TICK_LINE: Final = 0.35


def plot(findings: Findings, path: Path) -> None:
    """Draws the resident memory of each process, and below it the instants of each kind of fault."""
    from matplotlib.figure import Figure  # noqa: PLC0415  # an extra

    figure = Figure(figsize=(12, 8), layout="constrained")
    memory, faults = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    lines: defaultdict[tuple[str, int], list[Sample]] = defaultdict(list)
    for sample in findings.memory.samples:
        lines[sample.program, sample.pid].append(sample)
    labelled: set[str] = set()
    for (program, _), samples in sorted(lines.items()):
        label = "" if program in labelled else program
        labelled.add(program)
        memory.plot(
            [each.at_s for each in samples], [each.rss_kb / 1024 for each in samples],
            color=COLOURS.get(program, "tab:gray"), label=label, linewidth=1, marker=".", markersize=2,
        )  # fmt: skip
    memory.set_ylabel("resident MiB, a line per process")
    memory.set_ylim(bottom=0)
    memory.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=8, frameon=False)  # above the axes, where no line is
    kinds = by_kind(findings)
    faults.eventplot(list(kinds.values()), linelengths=2 * TICK_LINE)
    faults.set_yticks(range(len(kinds)), list(kinds), fontsize=8)
    faults.set_xlabel("seconds from the start of the load")
    figure.suptitle(f"racepool chaos, seed {findings.plan.seed}: {'nothing broke' if findings.holds else 'BROKEN'}")
    figure.savefig(path, dpi=120, format="png")
