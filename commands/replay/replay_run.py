"""One run of `racepool replay`, from the first file to the finished output and pictures."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
from rich.text import Text

from racepool.commands.available_pool import available_pool
from racepool.commands.output import screen_of_stdout, tell
from racepool.commands.pictures.album import Album
from racepool.commands.replay.checkpoint import Checkpoint, checkpoint_of
from racepool.commands.replay.day import Day, poll_files, read_day
from racepool.commands.replay.outputs import Output, output_of
from racepool.commands.replay.progress import progress
from racepool.commands.replay.schedule import Schedule
from racepool.commands.replay.sending import send_all
from racepool.protocol.errors import PoolError
from racepool.protocol.settings import Settings
from racepool.protocol.visible import visible
from racepool.races.money_row import PollRows

OUT_FOR_EACH_WORKER: Final = 4  # polls out: enough to keep a worker busy, few for other clients to wait for
NAMES_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Errand:
    """The arguments of a replay; at least one of `out` and `plot` is given. `out` as text is a database's URL."""

    paths: tuple[Path, ...]
    out: Path | str | None
    plot: Path | None
    races: tuple[str, ...]
    overwrite: bool


class ReplayRun:
    """One replay. `standing` tells at any moment how much is done and kept."""

    def __init__(self, errand: Errand, settings: Settings) -> None:
        self._errand = errand
        self._settings = settings
        chosen = (*sorted(path.resolve() for path in errand.paths), *sorted(errand.races))
        self._output: Output | None = None if errand.out is None else output_of(errand.out, settings, chosen)
        self._day = Day({}, ())
        self._schedule: Schedule | None = None

    @property
    def is_begun(self) -> bool:
        """Whether any poll is settled, so that a later run can continue."""
        return self._schedule is not None and self._schedule.settled > 0

    @property
    def standing(self) -> str:
        """What the user reads after an interruption."""
        if self._schedule is None:
            return "stopped before the first poll"
        done = f"stopped after {self._schedule.settled:,} of {self._day.poll_count:,} polls"
        if self._schedule.is_done:
            done = f"all {self._day.poll_count:,} polls are transformed, but not all of them are written"
        kept = self._checkpoint_path()
        if kept is None:
            return f"{done}; nothing is kept, because standard output has no checkpoint"
        return f"{done}; the same command continues from there (checkpoint: {kept})"

    def run(self) -> bool:
        """Runs the replay; returns whether every file was a poll that succeeded, and every race has its picture.

        Raises:
            PoolError: the replay cannot start or not reach its end.
            click.UsageError: the arguments are wrong.
        """
        album = self._album()
        self._day = self._read_day()
        if album is not None:
            album.require_one(len(self._day.chains), remedy=", or choose one with --race")
        if self._output is not None:
            self._output.begin(self._day)
        with self._checkpoint() as checkpoint:
            schedule = self._schedule = Schedule(
                self._day.chains, OUT_FOR_EACH_WORKER * self._settings.workers, checkpoint.entries()
            )
            self._replay(schedule, checkpoint)
            is_drawn = self._write(schedule, checkpoint, album)
            checkpoint.remove()
        return self._tell_failures(schedule) and is_drawn

    def _album(self) -> Album | None:
        """Checks everything that could prevent the output before the work begins."""
        out, plot = self._errand.out, self._errand.plot
        if self._output is not None:
            self._output.check()
        album = None if plot is None else Album(plot)
        kept = self._checkpoint_path()
        may_replace = self._errand.overwrite or (kept is not None and kept.exists())
        for target in (out, plot):
            if isinstance(target, Path) and target.is_file() and not may_replace:
                raise PoolError(f"{target} exists already; give --overwrite, or another name")
        return album

    def _checkpoint_path(self) -> Path | None:
        """Where the checkpoint is: that of the output, else of the pictures; None if none outlives the process."""
        if self._output is not None:
            return self._output.checkpoint
        assert self._errand.plot is not None, "there is an output"  # noqa: S101
        return checkpoint_of(self._errand.plot)

    def _read_day(self) -> Day:
        files = poll_files(self._errand.paths)
        if not files:
            raise click.UsageError(f"no polls (*.json, *.json.gz) in {', '.join(map(str, self._errand.paths))}")
        with progress("reading", "files", len(files)) as advance:
            day = read_day(files, self._settings.payload_limit, advance)
        if not day.chains:
            reasons = (visible(f"{unread.path}: {unread.reason}") for unread in day.unread[:NAMES_SHOWN])
            raise PoolError("\n".join((f"none of {len(files):,} files is a poll:", *reasons)))
        try:
            return day.of_races(self._errand.races) if self._errand.races else day
        except LookupError as error:
            raise click.UsageError(f"--race {error.args[0]}: there are {_named(day)}") from None

    def _checkpoint(self) -> Checkpoint:
        path = self._checkpoint_path()
        if path is None:
            return Checkpoint.temporary(self._day.fingerprint)
        output = self._output or self._errand.plot
        return Checkpoint.at(path, self._day.fingerprint, output=output, overwrite=self._errand.overwrite)

    def _replay(self, schedule: Schedule, checkpoint: Checkpoint) -> None:
        done, total = schedule.settled, self._day.poll_count
        if done:
            tell(f"{done:,} of {total:,} polls were done before; continuing from there")
        if not schedule.is_done:
            with available_pool(self._settings) as pool, progress("replaying", "polls", total, done) as advance:
                send_all(pool, schedule, checkpoint, self._settings.payload_limit, advance)

    def _write(self, schedule: Schedule, checkpoint: Checkpoint, album: Album | None) -> bool:
        """Output and pictures; returns whether every race has its picture."""
        races = schedule.written_order()
        written, is_drawn = [], True
        if self._output is not None:
            count = self._output.write(_polls(checkpoint, races), schedule.settled - len(schedule.failures))
            written.append(f"{_count(count, 'record')} in {self._output}")
        if album is not None:
            with progress("drawing", "races", len(races)) as advance:
                missing = album.draw_races(_polls(checkpoint, races), advance)
            for line in missing:
                tell(line)
            is_drawn = not missing
            written.append(_pictures(len(races) - len(missing), album))
        races_read = _count(len(self._day.chains), "race")
        summary = f"{_count(self._day.poll_count, 'poll')} of {races_read}: {', '.join(written)}"
        if self._checkpoint_path() is None:  # the rows are on standard output
            tell(summary)
        else:
            screen_of_stdout().print(Text(visible(summary)))  # a narrow terminal would break the line within a number
        return is_drawn

    def _tell_failures(self, schedule: Schedule) -> bool:
        failed = [(unread.path, unread.reason) for unread in self._day.unread]
        failed += [(poll.path, error) for poll, error in schedule.failures]
        for path, reason in sorted(failed):
            tell(f"{path}: {reason}")
        if failed:
            total = self._day.poll_count + len(self._day.unread)
            tell(f"{len(failed):,} of {total:,} files failed; later polls are compared with the last good one")
        return not failed


def _polls(checkpoint: Checkpoint, races: Iterable[str]) -> Iterator[Iterator[PollRows]]:
    return (checkpoint.polls_of(race_id) for race_id in races)


def _named(day: Day) -> str:
    """A few races of the day, as --race accepts them."""
    races = sorted((polls[-1].race_number or 0, polls[-1].race_label, race_id) for race_id, polls in day.chains.items())
    names = [f"{label} ({race_id})" for _, label, race_id in races]
    more = f" and {len(names) - NAMES_SHOWN:,} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more


def _pictures(count: int, album: Album) -> str:
    if album.is_folder:
        return f"{_count(count, 'picture')} in {album.target}"
    return f"a picture in {album.target}" if count else "no picture"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
