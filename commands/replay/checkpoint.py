"""The checkpoint of a replay: what became of each poll, a line each, in a file beside the output.

The first line tells of which day it is. Lines are only ever appended; one that a crash has torn is the last, and is
cut off. The table is written from this file at the end, so it is the same however often the replay was interrupted.
"""

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Final, Self

from pydantic import ValidationError

from racepool.commands.replay.poll import PollEntry
from racepool.protocol.errors import PoolError
from racepool.races.money_row import MoneyRow

SUFFIX: Final = ".replay"
_KEY: Final = "polls of this replay"


class Checkpoint:
    """An open checkpoint. Made by `beside` or `temporary`; a context manager that closes it and leaves it there.

    Invariant: what is before `_end` are whole lines, and `_places` tells where each race's entries lie among them.
    """

    def __init__(self, file: FileIO, fingerprint: str, path: Path | None = None) -> None:
        self._file = file
        self._path = path
        self._first_line = json.dumps({_KEY: fingerprint}).encode() + b"\n"
        self._end = len(self._first_line)
        self._places: dict[str, list[tuple[int, int]]] = {}

    @classmethod
    def beside(cls, output: Path, fingerprint: str, *, anew: bool) -> Self:
        """The checkpoint of this output: that of an earlier run of the same polls, else a new one.

        Args:
            output: it lies beside it, with `.replay` after its name.
            fingerprint: of the day.
            anew: whether the checkpoint of other polls may be thrown away.

        Raises:
            PoolError: it cannot be written, another replay writes it, or it is of other polls.
        """
        path = checkpoint_of(output)
        try:
            file = FileIO(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666), "a+")
        except OSError as error:
            raise PoolError(f"{path}: {error.strerror}") from None
        checkpoint = cls(file, fingerprint, path)
        try:
            checkpoint._claim(output, anew=anew)
        except BaseException:
            file.close()
            raise
        return checkpoint

    @classmethod
    def temporary(cls, fingerprint: str) -> Self:
        """One without a name, which ends with this process."""
        checkpoint = cls(tempfile.TemporaryFile(buffering=0), fingerprint)  # noqa: SIM115  # it closes it
        checkpoint._write(checkpoint._first_line)
        return checkpoint

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def entries(self) -> Iterator[PollEntry]:
        """What was written before, in that order. A torn end is cut off."""
        self._places.clear()
        self._end = self._file.seek(len(self._first_line))
        reader = BufferedReader(self._file)
        for line in reader:
            try:
                entry = PollEntry.model_validate_json(line) if line.endswith(b"\n") else None
            except ValidationError:
                entry = None
            if entry is None:
                break
            self._note(entry.race_id, len(line))
            yield entry
        reader.detach()
        self._file.truncate(self._end)
        self._file.seek(self._end)

    def append(self, entry: PollEntry) -> None:
        """Writes what became of a poll; it survives this process.

        Raises:
            PoolError: it cannot be written.
        """
        line = entry.model_dump_json(exclude_none=False).encode() + b"\n"
        self._write(line)
        self._note(entry.race_id, len(line))

    def rows_of(self, race_id: str) -> Iterator[MoneyRow]:
        """The rows of this race, poll by poll."""
        for offset, length in self._places.get(race_id, ()):
            yield from PollEntry.model_validate_json(os.pread(self._file.fileno(), length, offset)).rows

    def remove(self) -> None:
        """The output is there: nobody needs it any more."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _claim(self, output: Path, *, anew: bool) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PoolError(f"another replay is writing {output}; wait for its end") from None
        self._file.seek(0)
        found = self._file.read(len(self._first_line) + 1)
        if not found.startswith(self._first_line):
            if self._first_line.startswith(found):  # empty, or torn in its first line
                anew = True
            if not anew:
                raise PoolError(
                    f"{self._path} is the checkpoint of other polls, or of another version of racepool; "
                    "give --overwrite to begin anew"
                )
            self._file.truncate(0)
            self._write(self._first_line)

    def _note(self, race_id: str, length: int) -> None:
        self._places.setdefault(race_id, []).append((self._end, length))
        self._end += length

    def _write(self, line: bytes) -> None:
        left = memoryview(line)
        while left:
            try:
                left = left[self._file.write(left) :]
            except OSError as error:
                raise PoolError(
                    f"{self._path or 'the temporary checkpoint'}: {error.strerror}; see to it, and give the same "
                    "command: it goes on from there"
                ) from None


def checkpoint_of(output: Path) -> Path:
    """Where its checkpoint lies, while it is not finished. The output may be any folder, such as `.`."""
    place = Path(os.path.abspath(output))  # noqa: PTH100  # a link stays what it is
    return place.parent / (place.name + SUFFIX)
