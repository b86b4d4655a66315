"""Puts the report together of whatever was measured: the run beside peers, the broker at scale, or both."""

from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from benchmarks.measured import load_measured
from benchmarks.plots import draw
from benchmarks.report import FILE_NAME, Report, goals_table


def publish(folder: Path, console: Console) -> None:
    """Writes the report and its pictures, and shows which goals are met."""
    measured = load_measured(folder)
    if measured is not None:
        report = Report(measured)
        plots = list(draw(measured, folder))
        (folder / FILE_NAME).write_text(report.text(plots, "Not measured."), encoding="utf-8")
        console.print(Markdown(goals_table(report.verdicts)))
    console.print(f"the report is {folder / FILE_NAME}")
