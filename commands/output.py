"""Everything that the command prints goes through here: lines, JSON, tables, and what happens if that is impossible.

A character that standard output cannot encode is replaced. If standard output cannot be written, the command ends with
one line on standard error and code 1; in silence if its reader has gone, as with `| head`. Nobody can be told that
standard error cannot be written.
"""

import codecs
import errno
import io
import os
import select
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, TextIO

from racepool.protocol.exits import Exit
from racepool.protocol.visible import json_escapes, visible_json, visible_lines

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn

PLAIN_WIDTH = 10_000  # wider than any table: what a program reads is whole
STAND_INS: Final = dict(zip("…→\N{EN DASH}·Δ▁▂▃▄▅▆▇█", ".>-.d_.:-=+*#", strict=True))
"""Our own signs beyond ASCII, each with another sign of the same width, so that tables stay straight."""


class OutputLostError(Exception):
    """Standard output cannot be written; `reason` is the system's error."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(str(reason))
        self.reason = reason


class _Output(io.FileIO):
    """Standard output. Its errors have a type of their own: an OSError may also come from a file or a socket."""

    def write(self, data: "bytes | memoryview") -> int:  # type: ignore[override]  # it waits, and never returns None
        try:
            while (written := super().write(data)) is None:  # another program made it non-blocking
                select.select([], [self], [])
        except OSError as error:
            raise OutputLostError(error) from None
        return written


class _Errors(io.FileIO):
    """Standard error."""

    def write(self, data: "bytes | memoryview") -> int:  # type: ignore[override]  # as above
        with suppress(OSError):
            super().write(data)
        return len(data)


@contextmanager
def standard_streams() -> Iterator[None]:
    """Takes over standard output and error; inside, the command runs.

    Raises:
        SystemExit: as the command does; with code 1 if standard output was lost.
    """
    _open_closed_descriptors()
    sys.stdout = _text(_Output(1, "wb", closefd=False), sys.stdout, "racepool.stand_ins")
    sys.stderr = _text(_Errors(2, "wb", closefd=False), sys.stderr, "backslashreplace")
    try:
        try:
            yield
        except SystemExit:
            sys.stdout.flush()
            raise
    except OutputLostError as lost:
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), 1)  # takes what is still in the buffers
        if lost.reason.errno != errno.EPIPE:
            tell(f"standard output cannot be written: {lost.reason.strerror}")
        sys.exit(Exit.FAILURE)


def tell(message: object) -> None:
    """Prints a message, such as an error, on standard error."""
    print(f"racepool: {visible_lines(str(message))}", file=sys.stderr, flush=True)  # noqa: T201  # the one place for it


def say(*columns: str) -> None:
    """Prints a line on standard output; several columns with tabs between them."""
    print(*map(visible_lines, columns), sep="\t", flush=True)  # noqa: T201  # the one place for it


def say_json(text: str) -> None:
    """Prints JSON on standard output; what must not or cannot be shown as it is, as JSON escapes it."""
    encoding = sys.stdout.encoding
    shown = visible_json(text).encode(encoding, "racepool.json").decode(encoding)
    print(shown, flush=True)  # noqa: T201  # the one place for it


def screen_of_stdout() -> "Console":
    """Standard output: as wide as the terminal, and as wide as need be where there is none."""
    from rich.console import Console  # noqa: PLC0415  # an error must be told soon, also without rich

    screen = _of_real_size(Console())
    return screen if screen.is_terminal else Console(width=PLAIN_WIDTH)


def screen_of_stderr() -> "Console":
    """Standard error, for what moves: a bar, a spinner."""
    from rich.console import Console  # noqa: PLC0415  # as above

    return _of_real_size(Console(stderr=True))


def moving_bar(screen: "Console", *columns: "ProgressColumn", is_hidden: bool = False) -> "Progress":
    """A progress bar. Lines for the terminal are printed above it; lines for a file still go to the file."""
    from rich.progress import Progress  # noqa: PLC0415  # as above

    return Progress(
        *columns, console=screen, transient=True, disable=is_hidden,
        redirect_stdout=sys.stdout.isatty(), redirect_stderr=sys.stderr.isatty(),
    )  # fmt: skip


def _of_real_size(screen: "Console") -> "Console":
    """Rich believes COLUMNS=0, and that every dumb terminal has 80 columns."""
    if screen.is_dumb_terminal or screen.width < 1 or screen.height < 1:
        screen.width, screen.height = shutil.get_terminal_size()
    return screen


def _open_closed_descriptors() -> None:
    """Opens standard descriptors that the shell closed (`>&-`), or files and sockets would take their numbers.

    Standard output is opened for reading only: to write to it stays an error.
    """
    for descriptor, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, mode), True)  # takes the lowest free number, this one


def _text(descriptor: io.FileIO, before: TextIO | None, errors: str) -> io.TextIOWrapper:
    """The text stream in front of a descriptor; `before` is the one that Python made, None for a closed descriptor."""
    buffer = io.BufferedWriter(descriptor)
    if not isinstance(before, io.TextIOWrapper):
        return io.TextIOWrapper(buffer, "utf-8", errors)
    return io.TextIOWrapper(
        buffer, before.encoding, errors, line_buffering=before.line_buffering, write_through=before.write_through
    )


def _stand_ins(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)  # noqa: S101  # we only encode
    return "".join(STAND_INS.get(each, "?") for each in error.object[error.start : error.end]), error.end


def _json_escapes(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)  # noqa: S101  # as above
    return json_escapes(error.object[error.start : error.end]), error.end


codecs.register_error("racepool.stand_ins", _stand_ins)
codecs.register_error("racepool.json", _json_escapes)
