"""Makes the report of what was measured: the run beside peers, the broker at scale, or both."""

from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from benchmarks import plots
from benchmarks.measured import load_measured
from benchmarks.report import FILE_NAME, Report, goals_table
from benchmarks.scale import section
from benchmarks.scale.measurement import load_scale

NOT_MEASURED = "Not measured; `python -m benchmarks scale` does.\n"


def publish(folder: Path, console: Console) -> None:
    """Writes the report and its pictures, and prints the results."""
    measured, scale = load_measured(folder), load_scale(folder)
    about_scale = section.text(scale) if scale else NOT_MEASURED
    picture = f"\n![the broker at scale]({section.draw(scale, folder)})\n" if scale else ""
    if measured is None:
        text = f"# The broker at scale\n\n{about_scale}{picture}"
        console.print(Markdown(about_scale))
    else:
        report = Report(measured, scale.queued_task_bytes() if scale else ())
        text = report.text(plots.draw(measured, folder), about_scale + picture)
        console.print(Markdown(goals_table(report.verdicts)))
    (folder / FILE_NAME).write_text(text, encoding="utf-8")
    console.print(f"the report is {folder / FILE_NAME}")
