"""Where the rows of a replay go: a file, standard output, or a PostgreSQL database."""

import asyncio
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote

import click

from racepool.commands.replay.checkpoint import SUFFIX, checkpoint_of
from racepool.commands.replay.day import Day
from racepool.commands.replay.progress import progress
from racepool.commands.replay.table import SUFFIXES, write_ndjson, write_table
from racepool.protocol.errors import PoolError
from racepool.protocol.extras import require
from racepool.protocol.settings import Settings
from racepool.races.money_row import PollRows
from racepool.storage import PostgresStore

STDOUT: Final = Path("-")
FOLDER: Final = "replay"  # in the run directory
SCHEMES: Final = ("postgresql://", "postgres://")
SAME_INSTANTS_SHOWN: Final = 5
BEGIN_S: Final = 5.0  # how long to wait for a database at the beginning; if it is away longer, its name is likely wrong


class Output(Protocol):
    """A place for the rows. `str()` of it is its name in messages, without a password."""

    @property
    def checkpoint(self) -> Path | None:
        """Where the checkpoint is; None if none outlives the process."""

    def check(self) -> None:
        """Checks what can be checked before the files are read.

        Raises:
            PoolError, click.UsageError: the rows cannot be written there.
        """

    def begin(self, day: Day) -> None:
        """Checks what can be checked before a poll is transformed.

        Raises:
            PoolError: this day cannot be written there.
        """

    def write(self, races: Iterable[Iterable[PollRows]], poll_count: int) -> int:
        """Writes the polls of all races; returns how many rows they have.

        Raises:
            PoolError: they cannot be written.
        """


class FileOutput:
    """A Parquet or NDJSON file. It appears when it is complete."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    @property
    def checkpoint(self) -> Path | None:
        """See Output."""
        return checkpoint_of(self._path)

    def check(self) -> None:
        """See Output."""
        if self._path.suffix not in SUFFIXES:
            raise click.UsageError(f"--out {self._path}: its name must end in {' or '.join(SUFFIXES)}, or be -")
        if self._path.suffix == ".parquet":
            require("pyarrow", extra="replay", purpose=f"--out {self._path}")

    def begin(self, day: Day) -> None:
        """See Output."""

    def write(self, races: Iterable[Iterable[PollRows]], poll_count: int) -> int:  # noqa: ARG002  # see Output
        """See Output."""
        return write_table(self._path, ((row for poll in polls for row in poll.rows) for polls in races))


class StandardOutput:
    """NDJSON on standard output."""

    checkpoint: Path | None = None

    def __str__(self) -> str:
        return str(STDOUT)

    def check(self) -> None:
        """See Output."""

    def begin(self, day: Day) -> None:
        """See Output."""

    def write(self, races: Iterable[Iterable[PollRows]], poll_count: int) -> int:  # noqa: ARG002  # see Output
        """See Output."""
        return write_ndjson(sys.stdout.buffer, ((row for poll in polls for row in poll.rows) for polls in races))


class DatabaseOutput:
    """A PostgreSQL database. Polls that it has already are replaced, so the same polls can be written again.

    Args:
        url: of the database.
        settings: they tell the run directory, where the checkpoint is.
        chosen: the files, folders and races that the user chose; each choice has a checkpoint of its own.
    """

    def __init__(self, url: str, settings: Settings, chosen: Iterable[object]) -> None:
        self._url = url
        self._settings = settings
        self._chosen = tuple(chosen)

    def __str__(self) -> str:
        from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415  # an extra

        parts = conninfo_to_dict(self._url)  # check() made sure that it can be read
        host, port, name = (str(parts.get(key) or "") for key in ("host", "port", "dbname"))
        socket = f"?host={quote(host)}" if host.startswith("/") else ""
        return f"postgresql://{'' if socket else host}{port and f':{port}'}/{quote(name, safe='')}{socket}"

    @property
    def checkpoint(self) -> Path | None:
        """See Output."""
        text = "\n".join(map(str, (self, *self._chosen)))
        return self._settings.dir / FOLDER / (sha256(os.fsencode(text)).hexdigest()[:16] + SUFFIX)

    def check(self) -> None:
        """See Output."""
        require("psycopg", extra="postgres", purpose="--out postgresql://...")
        PostgresStore(self._url)

    def begin(self, day: Day) -> None:
        """See Output. Makes the schema."""
        same = [
            f"{first.path} and {second.path}"
            for polls in day.chains.values()
            for first, second in pairwise(polls)
            if first.polled_at == second.polled_at
        ]
        if same:
            more = f" and {len(same) - SAME_INSTANTS_SHOWN:,} more" if len(same) > SAME_INSTANTS_SHOWN else ""
            raise PoolError(
                f"a database holds one poll of a race at an instant, but these have the same race and instant: "
                f"{'; '.join(same[:SAME_INSTANTS_SHOWN])}{more}; leave one of each out"
            )
        asyncio.run(self._create())
        folder = self._settings.private_dir() / FOLDER
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise PoolError(f"{folder}: {error.strerror}") from None

    def write(self, races: Iterable[Iterable[PollRows]], poll_count: int) -> int:
        """See Output."""
        with progress("storing", "polls", poll_count) as advance:
            return asyncio.run(self._store((poll for polls in races for poll in polls), advance))

    async def _create(self) -> None:
        async with PostgresStore(self._url, retry_s=BEGIN_S) as store:
            await store.create()

    async def _store(self, polls: Iterable[PollRows], advance: Callable[[], None]) -> int:
        count = 0

        def counted() -> Iterator[PollRows]:
            nonlocal count
            for poll in polls:
                yield poll
                count += len(poll.rows)
                advance()

        async with PostgresStore(self._url) as store:
            await store.write(counted())
        return count


def output_of(target: Path | str, settings: Settings, chosen: Iterable[object]) -> Output:
    """The output with this name: a path, STDOUT, or the URL of a database as text."""
    if isinstance(target, str):
        return DatabaseOutput(target, settings, chosen)
    return StandardOutput() if target == STDOUT else FileOutput(target)
