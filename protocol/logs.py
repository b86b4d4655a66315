"""Log lines that never make a program wait: structlog, orjson, and a pipe that may be full."""

import os
import select
import sys
from collections import deque
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from math import inf
from threading import Lock
from typing import IO, Any, Final

import orjson

from racepool.protocol import clock
from racepool.protocol.settings import Settings
from racepool.protocol.visible import visible, visible_json, visible_lines


@contextmanager
def _left_out(name: str) -> Iterator[None]:
    """Inside, the module counts as not installed, unless it is imported already. Afterwards it can be imported."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # as the import system documents it
    try:
        yield
    finally:
        del sys.modules[name]


# structlog would import rich for tracebacks that no program of ours prints: a sixth of each start
with _left_out("rich"):
    import structlog

BACKLOG_BYTES = 1 << 20
PLAIN: Final = {"event": visible, "exception": visible_lines, "stack": visible_lines}  # shown without quotes
LOG_HOLD_S = 0.05  # each write costs supervisord a read; with three writes for each task, a tenth of all CPU
DELETE = b"\x7f"  # the only control character of ASCII that JSON leaves as it is
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

Log = structlog.typing.FilteringBoundLogger


class Outlet:
    """Writes whole lines to a file descriptor without ever waiting for its reader.

    If the reader of a pipe sleeps (a frozen supervisord), the pipe gets full. Lines then wait in memory, up to
    `BACKLOG_BYTES`; more lines are dropped and counted. If a pipe polls as writable, it takes PIPE_BUF bytes without
    blocking. A terminal may take less, so we open it a second time, as non-blocking.

    Args:
        fd: where to write.
        hold_s: how long a line may be held back, in seconds, so that several lines are written together. Warnings and
            errors are written at once. The owner has to call `flush_if_due` now and then.
    """

    def __init__(self, fd: int, hold_s: float = 0.0) -> None:
        self.hold_s = hold_s
        self._fd = fd = _without_waiting(fd)
        self._lock = Lock()
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._flushed_at = -inf
        self._dropped = 0

    @property
    def patience_s(self) -> float:
        """How long the owner may sleep before it has to call `flush_if_due`, in seconds."""
        return self.hold_s if self._waiting else inf

    def msg(self, line: bytes) -> None:
        """Writes one line, at once or within `hold_s`."""
        with self._lock:
            if self._waiting_bytes + len(line) > BACKLOG_BYTES:
                self._flush()
            if self._waiting_bytes + len(line) > BACKLOG_BYTES:
                self._dropped += 1
                return
            self._put(line + b"\n")
            if self._waiting_bytes >= select.PIPE_BUF or self._is_due():
                self._flush()

    def urgent(self, line: bytes) -> None:
        """Writes one line at once, after all lines that were held back."""
        self.msg(line)
        self.flush()

    debug = info = log = msg
    warning = error = critical = exception = fatal = urgent

    def flush_if_due(self) -> None:
        """Writes the lines that were held back, if `hold_s` has passed since the last write."""
        if self._waiting and self._is_due():
            self.flush()

    def flush(self) -> None:
        """Writes the lines that wait, as many as the reader takes without blocking."""
        with self._lock:
            self._flush()

    def _is_due(self) -> bool:
        return clock.now() >= self._flushed_at + self.hold_s

    def _flush(self) -> None:
        self._flushed_at = clock.now()
        while self._waiting and self._poll.poll(0):
            chunk = self._take()
            try:
                written = os.write(self._fd, chunk)
            except BlockingIOError:
                written = 0
            except OSError:  # the reader is gone, so nobody could be told of an error
                self._dropped += 1
                continue
            if written < len(chunk):  # a terminal takes less
                self._waiting.appendleft(chunk[written:])
                self._waiting_bytes += len(chunk) - written
                break
            if self._dropped and not self._waiting:
                notice = {"event": "log_lines_dropped", "level": "warning", "count": self._dropped}
                self._put(orjson.dumps(notice) + b"\n")
                self._dropped = 0

    def _take(self) -> bytes:
        """The next bytes to write, at most PIPE_BUF: as many lines as fit, or a part of a long line."""
        chunk = self._waiting.popleft()
        while self._waiting and len(chunk) + len(self._waiting[0]) <= select.PIPE_BUF:
            chunk += self._waiting.popleft()
        if len(chunk) > select.PIPE_BUF:
            self._waiting.appendleft(chunk[select.PIPE_BUF :])
            chunk = chunk[: select.PIPE_BUF]
        self._waiting_bytes -= len(chunk)
        return chunk

    def _put(self, line: bytes) -> None:
        self._waiting.append(line)
        self._waiting_bytes += len(line)


def _without_waiting(fd: int) -> int:
    """The same terminal, opened a second time for writing without blocking; a pipe stays as it is.

    O_NONBLOCK on the descriptor that we were given would also change the shell's.
    """
    if os.isatty(fd):
        with suppress(OSError):
            return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    return fd


def open_log(
    settings: Settings, stream: IO[str] | None = None, *, outlet: Outlet | None = None, **bound: object
) -> Log:
    """A program's log, as JSON lines, or as readable lines on a terminal. Every line has the fields of `bound`."""
    stream = stream or sys.stdout
    console = settings.log_format == "console" or (settings.log_format is None and stream.isatty())
    log: Log = structlog.wrap_logger(
        outlet or Outlet(stream.fileno()),
        processors=_CONSOLE if console else _JSON,
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[settings.log_level]),
        cache_logger_on_first_use=True,
    ).bind(**bound)
    return log


def _json_line(logger: object, method: str, event: MutableMapping[str, Any]) -> bytes:
    """The usual processors of structlog in one function, for speed: each task has several lines."""
    if "exc_info" in event:
        event = structlog.processors.format_exc_info(logger, method, event)
    event["level"], event["timestamp"] = method, datetime.now(UTC)
    try:
        line = orjson.dumps(event, default=repr, option=orjson.OPT_UTC_Z)
        return line if line.isascii() and DELETE not in line else visible_json(line.decode()).encode()
    except TypeError:  # an integer of more than 64 bits, or a lone surrogate; a log line must not end a program
        return orjson.dumps({name: ascii(value) for name, value in event.items()} | {"timestamp": event["timestamp"]})


class _Quoted:
    """A text as the console shows it: quoted, with escapes."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return repr(self._text)


def _shown_escaped(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Text of races and peers must neither steer the terminal nor look like a line of its own."""
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[name] = PLAIN[name](value) if name in PLAIN else _Quoted(value)
    return event


def _encoded(_logger: object, _method: str, line: str | MutableMapping[str, Any]) -> bytes:
    return str(line).encode(errors="backslashreplace")


_JSON: Final[list[structlog.typing.Processor]] = [_json_line]
_CONSOLE: Final[list[structlog.typing.Processor]] = [
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
    _shown_escaped,
    structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    _encoded,
]
