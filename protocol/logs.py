"""Log lines that never hold anybody up: structlog, orjson, and a pipe that may be full."""

import os
import select
import sys
from collections import deque
from collections.abc import Mapping, MutableMapping
from typing import IO, Any

import orjson
import structlog

from protocol.settings import Settings

BACKLOG_BYTES = 1 << 20
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

Log = structlog.typing.FilteringBoundLogger


class Outlet:
    """Writes whole lines to a file descriptor without ever waiting for its reader.

    A pipe whose reader sleeps (a frozen supervisord) takes no more; lines then wait in memory, up to `BACKLOG_BYTES`,
    and beyond that are dropped and counted. A pipe that polls as writable takes PIPE_BUF bytes without blocking.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._dropped = 0

    def msg(self, line: bytes) -> None:
        """Writes one line, or keeps it until the next call."""
        self.flush()
        if self._waiting_bytes + len(line) > BACKLOG_BYTES:
            self._dropped += 1
            return
        self._put(line + b"\n")
        self.flush()

    debug = info = warning = error = critical = exception = log = fatal = msg

    def flush(self) -> None:
        """Writes what waits, as far as the reader takes it."""
        while self._waiting and self._is_writable():
            line = self._waiting.popleft()
            self._waiting_bytes -= len(line)
            chunk, rest = line[: select.PIPE_BUF], line[select.PIPE_BUF :]
            try:
                os.write(self._fd, chunk)
            except OSError:  # the reader is gone: nobody is left to tell
                self._dropped += 1
                continue
            if rest:
                self._put(rest, first=True)
            elif self._dropped and not self._waiting:
                self._put(
                    orjson.dumps({"event": "log_lines_dropped", "level": "warning", "count": self._dropped}) + b"\n"
                )
                self._dropped = 0

    def _put(self, line: bytes, *, first: bool = False) -> None:
        if first:
            self._waiting.appendleft(line)
        else:
            self._waiting.append(line)
        self._waiting_bytes += len(line)

    def _is_writable(self) -> bool:
        return bool(self._poll.poll(0))


def open_log(settings: Settings, stream: IO[str] | None = None, **bound: object) -> Log:
    """A program's log: JSON lines, or readable ones on a terminal; `bound` goes into every line."""
    stream = stream or sys.stdout
    console = settings.log_format == "console" or (settings.log_format is None and stream.isatty())
    renderer = _console() if console else structlog.processors.JSONRenderer(serializer=_dumps)
    log: Log = structlog.wrap_logger(
        Outlet(stream.fileno()),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
            *([_encoded] if console else []),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[settings.log_level]),
        cache_logger_on_first_use=True,
    ).bind(**bound)
    return log


def _console() -> structlog.typing.Processor:
    return structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)


def _encoded(_logger: object, _method: str, line: str | MutableMapping[str, Any]) -> bytes:
    return str(line).encode(errors="backslashreplace")


def _dumps(event: Mapping[str, object], **_options: object) -> bytes:
    try:
        return orjson.dumps(event, default=repr)
    except TypeError:  # an integer over 64 bits, a lone surrogate: a log line never ends a program
        return orjson.dumps({name: ascii(value) for name, value in event.items()})
