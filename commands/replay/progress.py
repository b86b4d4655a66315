"""The progress of a replay: on a terminal a bar with rate and time left, elsewhere a line every few seconds."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from racepool.commands.output import moving_bar, screen_of_stderr, tell

PLAIN_EVERY_S = 5.0


@contextmanager
def progress(verb: str, noun: str, total: int, done: int = 0) -> Iterator[Callable[[], None]]:
    """Shows the progress on standard error during the block. The block calls the yielded function after each item."""
    if not sys.stderr.isatty():
        yield _PlainProgress(verb, noun, total, done)
        return
    columns = (
        TextColumn(f"{verb:9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(noun),
        _Rate(),
        TimeRemainingColumn(),
    )
    with moving_bar(screen_of_stderr(), *columns) as bar:
        task = bar.add_task(verb, total=total, completed=done)
        yield lambda: bar.advance(task)


class _Rate(ProgressColumn):
    """The present rate."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.0f}/s", style="progress.data.speed")


class _PlainProgress:
    """A line every PLAIN_EVERY_S; none if everything is done before."""

    def __init__(self, verb: str, noun: str, total: int, done: int) -> None:
        self._what = verb, noun
        self._total = total
        self._begun_with = self._done = done
        self._begun_at = self._said_at = time.monotonic()

    def __call__(self) -> None:
        self._done += 1
        now = time.monotonic()
        if now < self._said_at + PLAIN_EVERY_S:
            return
        self._said_at = now
        rate = (self._done - self._begun_with) / (now - self._begun_at)
        verb, noun = self._what
        left_s = (self._total - self._done) / rate
        tell(f"{verb}: {self._done:,} of {self._total:,} {noun}, {rate:,.0f}/s, {left_s:,.0f} s left")
