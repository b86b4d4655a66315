"""Reads the new lines of a growing file, also after its rotation. Holds at most one chunk in memory."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

CHUNK_BYTES = 1 << 20


class Tail:
    """The lines of a file that are new since the last call. The file may not exist yet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._rest = b""

    def lines(self) -> Iterator[bytes]:
        """Yields whole lines only; the next call yields the rest of the last one."""
        while True:
            if self._file is None:
                with suppress(FileNotFoundError):
                    self._file = self._path.open("rb")
            if self._file is None:
                return
            was_rotated = self._is_rotated()  # before the read: later lines are in the new file
            while chunk := self._file.read(CHUNK_BYTES):
                *whole, self._rest = (self._rest + chunk).split(b"\n")
                yield from filter(None, whole)
            if not was_rotated:
                return
            self.close()

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _is_rotated(self) -> bool:
        assert self._file is not None  # noqa: S101  # the caller's loop
        try:
            return self._path.stat().st_ino != os.fstat(self._file.fileno()).st_ino
        except FileNotFoundError:
            return False  # between the old file and the new one
