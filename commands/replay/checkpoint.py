"""The checkpoint of a replay: a file with a line for the outcome of each poll.

The first line has the fingerprint of the day. Lines are only appended. A crash can leave a torn line at the end, which
is cut off. The output is written from this file at the end, so it is the same after any number of interruptions.
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
from racepool.races.money_row import PollRows

SUFFIX: Final = ".replay"
_KEY: Final = "polls of this replay"


class Checkpoint:
    """An open checkpoint, made by `at` or `temporary`. A context manager: closes the file, does not delete it.

    Invariant: everything before `_end` is whole lines, and `_places` has the offset and length of each race's entries.
    """

    def __init__(self, file: FileIO, fingerprint: str, path: Path | None = None) -> None:
        self._file = file
        self._path = path
        self._first_line = json.dumps({_KEY: fingerprint}).encode() + b"\n"
        self._end = len(self._first_line)
        self._places: dict[str, list[tuple[int, int]]] = {}

    @classmethod
    def at(cls, path: Path, fingerprint: str, *, output: object, overwrite: bool) -> Self:
        """Opens the checkpoint at this path: that of an earlier run of the same polls, or else a new one.

        Args:
            path: of the checkpoint.
            fingerprint: of the day.
            output: what the replay writes, for messages.
            overwrite: whether to replace a checkpoint of other polls.

        Raises:
            PoolError: it cannot be written, another replay writes it, or it belongs to other polls.
        """
        try:
            file = FileIO(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "a+")
        except OSError as error:
            raise PoolError(f"{path}: {error.strerror}") from None
        checkpoint = cls(file, fingerprint, path)
        try:
            checkpoint._claim(output, overwrite=overwrite)
        except BaseException:
            file.close()
            raise
        return checkpoint

    @classmethod
    def temporary(cls, fingerprint: str) -> Self:
        """A checkpoint without a name, which disappears with this process."""
        checkpoint = cls(tempfile.TemporaryFile(buffering=0), fingerprint)  # noqa: SIM115  # the checkpoint closes it
        checkpoint._write(checkpoint._first_line)
        return checkpoint

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def entries(self) -> Iterator[PollEntry]:
        """The entries of earlier runs, in order. Cuts off a torn end."""
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
        """Writes the outcome of a poll; it stays if this process is killed.

        Raises:
            PoolError: it cannot be written.
        """
        line = entry.model_dump_json(exclude_none=False).encode() + b"\n"
        self._write(line)
        self._note(entry.race_id, len(line))

    def polls_of(self, race_id: str) -> Iterator[PollRows]:
        """The polls of this race that succeeded, in order."""
        for offset, length in self._places.get(race_id, ()):
            entry = PollEntry.model_validate_json(os.pread(self._file.fileno(), length, offset))
            if entry.result is not None:
                yield entry.result

    def remove(self) -> None:
        """Deletes the checkpoint: the output is complete."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _claim(self, output: object, *, overwrite: bool) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PoolError(f"another replay is writing {output}; wait for its end") from None
        self._file.seek(0)
        found = self._file.read(len(self._first_line) + 1)
        if not found.startswith(self._first_line):
            if self._first_line.startswith(found):  # empty, or the first line is torn
                overwrite = True
            if not overwrite:
                raise PoolError(
                    f"{self._path} is the checkpoint of other polls, or of another version of racepool; "
                    "give --overwrite to start again"
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
                    f"{self._path or 'the temporary checkpoint'}: {error.strerror}; mend that, and give the same "
                    "command: it continues from there"
                ) from None


def checkpoint_of(output: Path) -> Path:
    """The path of the checkpoint of a file: beside it. The output may also be a folder, such as `.`."""
    place = Path(os.path.abspath(output))  # noqa: PTH100  # resolve() would follow links
    return place.parent / (place.name + SUFFIX)
