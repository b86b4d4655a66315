"""`racepool doctor`: says what is wrong with this set-up, and what to do."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

import click
from rich.console import Console
from rich.text import Text

from racepool.commands.doctor.checks import findings
from racepool.commands.doctor.finding import Finding, Level
from racepool.commands.doctor.survey import survey
from racepool.commands.narrow_table import Column, NarrowTable
from racepool.commands.output import say, say_json, screen_of_stdout
from racepool.protocol.exits import Exit
from racepool.protocol.visible import visible

STYLES = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "bold red"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_context
def doctor(context: click.Context, *, as_json: bool) -> None:
    """Check the set-up that this command's environment describes; for each problem, say what to do.

    It changes nothing, and waits for each thing two seconds at most. The exit code is 1 if there is any problem;
    warnings do not count.
    """
    found = findings(survey())
    counts = Counter(finding.level for finding in found)
    if as_json:
        totals = {level.value: counts[level] for level in Level}
        say_json(json.dumps({"findings": [asdict(finding) for finding in found], **totals}, indent=2))
    else:
        _show(found, counts, screen_of_stdout())
    if counts[Level.PROBLEM]:
        context.exit(Exit.FAILURE)


def _show(found: Sequence[Finding], counts: Counter[Level], screen: Console) -> None:
    parts = (_counted(counts[Level.PROBLEM], "problem"), _counted(counts[Level.WARNING], "warning"))
    summary = f"{', '.join(parts)}, {counts[Level.OK]} ok"
    if not screen.is_terminal:
        for finding in found:  # one line each, of any length
            say(f"{finding.level:<8} {finding.check:<15} {_words(finding)}")
        say(summary)
        return
    table = NarrowTable((Column(), Column(least=8, optional=1), Column(least=8, wraps=True)), "tight")
    for finding in found:
        words = Text(_words(finding))
        words.stylize("dim" if finding.level is Level.OK else "bold", len(visible(finding.text)))
        table.add(Text(finding.level, style=STYLES[finding.level]), finding.check, words)
    screen.print(table)
    screen.print(Text(summary, style=STYLES[max(counts, key=list(Level).index)]))


def _words(finding: Finding) -> str:
    return visible(finding.text + (f" → {finding.remedy}" if finding.remedy else ""))


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
