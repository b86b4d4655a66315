import fcntl
import io
import json
import os
import re
import select
import threading
import time
import tty
from collections.abc import Iterator
from math import inf
from typing import IO, Any

import pytest

from racepool.protocol import logs
from racepool.protocol.logs import Outlet, open_log
from racepool.protocol.settings import Settings
from tests.hostile import HOSTILE, is_harmless


class Pipe:
    """A pipe of two pages, so that it is soon full."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.size = fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, 8192)

    def read(self) -> bytes:
        """All that is in the pipe now."""
        poll = select.poll()
        poll.register(self.reader, select.POLLIN)
        taken = b""
        while any(event & select.POLLIN for _, event in poll.poll(0)):
            taken += os.read(self.reader, 65_536)
        return taken

    def drain(self, outlet: Outlet) -> list[bytes]:
        """All lines that come out when the reader reads again."""
        taken = b""
        while chunk := self.read():
            taken += chunk
            outlet.flush()
        return taken.splitlines()

    def close(self) -> None:
        for fd in (self.reader, self.writer):
            try:
                os.close(fd)
            except OSError:
                continue


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def stream(pipe: Pipe) -> IO[str]:
    return os.fdopen(os.dup(pipe.writer), "w")


def lines(pipe: Pipe) -> list[dict[str, Any]]:
    return [json.loads(line) for line in pipe.read().splitlines()]


# --- the outlet -------------------------------------------------------------------------------------------------------


def test_line_is_written_at_once(pipe: Pipe) -> None:
    Outlet(pipe.writer).msg(b"hello")

    assert pipe.read() == b"hello\n"


def test_full_pipe_holds_nobody_up_and_loses_nothing(pipe: Pipe) -> None:
    outlet = Outlet(pipe.writer)
    told = [b"line %d" % index for index in range(5_000)]

    for line in told:
        outlet.msg(line)  # nobody reads: a blocking write would never return

    assert pipe.drain(outlet) == told


def test_next_line_takes_along_what_waits(pipe: Pipe) -> None:
    outlet = Outlet(pipe.writer)
    for _ in range(2_000):
        outlet.msg(b"early")
    early = pipe.read().count(b"early")
    assert early < 2_000

    outlet.msg(b"late")

    assert pipe.read().startswith(b"early\n")


def test_lines_beyond_the_memory_are_dropped_counted_and_told(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "BACKLOG_BYTES", 10_000)
    outlet = Outlet(pipe.writer)

    for index in range(3_000):
        outlet.msg(b"line %4d" % index)
    kept = pipe.drain(outlet)

    report = json.loads(kept.pop())
    assert kept == [b"line %4d" % index for index in range(len(kept))]
    assert report == {"event": "log_lines_dropped", "level": "warning", "count": 3_000 - len(kept)}


def test_lines_flow_again_when_the_reader_is_back(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "BACKLOG_BYTES", 10_000)
    outlet = Outlet(pipe.writer)
    for _ in range(3_000):
        outlet.msg(b"frozen")

    seen = b""
    for _ in range(50):  # without a call of flush: each line must also write what waits
        seen += pipe.read()
        outlet.msg(b"thawed")
    seen += pipe.read()

    assert b"log_lines_dropped" in seen
    assert seen.endswith(b"thawed\n")


def test_drops_are_told_once(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "BACKLOG_BYTES", 1_000)
    outlet = Outlet(pipe.writer)
    outlet.msg(b"x" * 2_000)
    outlet.msg(b"short")
    pipe.drain(outlet)

    outlet.msg(b"next")

    assert pipe.drain(outlet) == [b"next"]


@pytest.mark.parametrize("length", [select.PIPE_BUF - 1, select.PIPE_BUF, select.PIPE_BUF + 1, 100_000])
def test_long_line_comes_out_whole(pipe: Pipe, length: int) -> None:
    outlet = Outlet(pipe.writer)

    outlet.msg(b"a" * length)
    outlet.msg(b"b")

    assert pipe.drain(outlet) == [b"a" * length, b"b"]


@pytest.mark.parametrize("before", [[], [b"told in time"]], ids=["at once", "later"])
def test_reader_that_is_gone_is_nobodys_trouble(pipe: Pipe, before: list[bytes]) -> None:
    outlet = Outlet(pipe.writer)
    for line in before:
        outlet.msg(line)
    os.close(pipe.reader)

    def log() -> None:
        for _ in range(100):
            outlet.msg(b"x" * 10_000)

    logging = threading.Thread(target=log, daemon=True)  # in a thread, so that an endless loop fails the test
    logging.start()
    logging.join(timeout=5)

    assert not logging.is_alive()
    assert outlet._waiting_bytes == 0


def test_lines_may_be_held_back_to_be_written_together(pipe: Pipe) -> None:
    outlet = Outlet(pipe.writer, hold_s=60)
    outlet.msg(b"first")
    outlet.msg(b"second")
    outlet.msg(b"third")
    assert (pipe.read(), outlet.patience_s) == (b"first\n", 60)

    outlet.flush()
    assert (pipe.read(), outlet.patience_s) == (b"second\nthird\n", inf)


def test_warning_is_written_at_once_with_all_before_it(pipe: Pipe) -> None:
    outlet = Outlet(pipe.writer, hold_s=60)
    outlet.msg(b"first")
    pipe.read()
    outlet.info(b"second")

    outlet.warning(b"third")

    assert pipe.read() == b"second\nthird\n"


def test_held_lines_are_written_when_a_pipe_takes_no_more_at_once(pipe: Pipe) -> None:
    outlet = Outlet(pipe.writer, hold_s=60)
    outlet.msg(b"first")
    pipe.read()

    outlet.msg(b"x" * select.PIPE_BUF)

    assert pipe.read() == b"x" * select.PIPE_BUF + b"\n"


# --- the log ----------------------------------------------------------------------------------------------------------


def test_lines_are_json_off_a_terminal(pipe: Pipe) -> None:
    with stream(pipe) as out:
        log = open_log(Settings.load(), out, program="broker")
        log.info("task_assigned", worker="worker-0", attempt=1, duration_ms=1.5, race_id=None)
        log.warning("worker_lost", reason="é语")

    first, second = lines(pipe)
    assert {
        key: first[key] for key in ("program", "event", "level", "worker", "attempt", "duration_ms", "race_id")
    } == {
        "program": "broker",
        "event": "task_assigned",
        "level": "info",
        "worker": "worker-0",
        "attempt": 1,
        "duration_ms": 1.5,
        "race_id": None,
    }
    assert first["timestamp"].endswith("Z")
    assert (second["level"], second["reason"]) == ("warning", "é语")


def test_exception_is_one_line(pipe: Pipe) -> None:
    with stream(pipe) as out:
        log = open_log(Settings.load(), out)
        try:
            int("two\nlines")
        except ValueError:
            log.exception("broker_failed")

    (line,) = lines(pipe)
    assert (line["event"], line["level"]) == ("broker_failed", "error")
    assert line["exception"].endswith("'two\\nlines'")
    assert line["exception"].startswith("Traceback")


@pytest.mark.parametrize(
    "value",
    [2**70, "\ud800", {1: 2}, {"nested": {"a": 2**70}}, object(), b"bytes", {1, 2}, float("nan")],
    ids=lambda value: "object" if type(value) is object else repr(value),
)
def test_no_value_ends_the_program(pipe: Pipe, value: object) -> None:
    with stream(pipe) as out:
        open_log(Settings.load(), out).info("odd", value=value)

    assert lines(pipe)[0]["event"].strip("'") == "odd"


def test_level_is_a_setting(pipe: Pipe) -> None:
    with stream(pipe) as out:
        log = open_log(Settings.load(log_level="warning"), out)
        log.info("quiet")
        log.warning("loud")

    assert [line["event"] for line in lines(pipe)] == ["loud"]


def test_console_format_is_for_people(pipe: Pipe) -> None:
    with stream(pipe) as out:
        open_log(Settings.load(log_format="console"), out).info("broker_started", pid=7, name="\ud800")

    text = pipe.read().decode()
    assert "broker_started" in text
    assert "{" not in text


def test_stream_without_a_descriptor_is_a_mistake_at_once() -> None:
    with pytest.raises(io.UnsupportedOperation):
        open_log(Settings.load(), io.StringIO())


def test_lines_are_held_back_and_written_together_when_that_is_due(pipe: Pipe) -> None:
    outlet = Outlet(pipe.writer, hold_s=0.02)
    outlet.info(b"first")  # the last write was long ago, so at once
    outlet.info(b"second")
    outlet.info(b"third")

    assert pipe.read() == b"first\n"
    assert 0 < outlet.patience_s <= 0.02
    deadline = time.monotonic() + 5
    while outlet.patience_s < 1:
        outlet.flush_if_due()
        assert time.monotonic() < deadline
    assert pipe.read() == b"second\nthird\n"


def test_terminal_whose_reader_stands_still_holds_nobody_up() -> None:
    reader, terminal = os.openpty()
    tty.setraw(terminal)
    lines = [b"%05d" % number + b"x" * 200 for number in range(300)]
    outlet = Outlet(terminal)

    def write() -> None:
        for line in lines:
            outlet.msg(line)

    worker = threading.Thread(target=write, daemon=True)
    worker.start()
    worker.join(5.0)

    assert not worker.is_alive()
    assert outlet._waiting_bytes == sum(map(len, outlet._waiting)) > 0
    assert not fcntl.fcntl(terminal, fcntl.F_GETFL) & os.O_NONBLOCK  # the shell's descriptor stays as it was
    taken = b""
    while taken.count(b"\n") < len(lines):
        taken += os.read(reader, 65_536)
        outlet.flush()
    assert taken.splitlines() == lines
    assert outlet._waiting_bytes == 0
    for descriptor in (reader, terminal, outlet._fd):
        os.close(descriptor)


# --- text from outside ------------------------------------------------------------------------------------------------


def hostile_log(pipe: Pipe, text: str) -> str:
    """What is written of a race, a worker and an exception that all have this text."""
    log = open_log(Settings.load(log_format="console"), outlet=Outlet(pipe.writer), worker=text)
    log.info(text, race_id=text, reason=[text])
    log.error("failed", exc_info=ValueError(text))
    return re.sub(r"\x1b\[\d*m", "", pipe.read().decode())  # without the console's own colours, such as dim


@pytest.mark.parametrize("text", HOSTILE.values(), ids=list(HOSTILE))
def test_console_shows_text_from_outside_escaped(pipe: Pipe, text: str) -> None:
    written = hostile_log(pipe, text.replace("\x1b[31m", "\x1b[31;1m"))

    assert is_harmless(written)
    assert len([line for line in written.splitlines() if line.startswith("20")]) == 2, "two lines have a time"


@pytest.mark.parametrize("text", HOSTILE.values(), ids=list(HOSTILE))
def test_json_line_steers_no_terminal_that_follows_it(pipe: Pipe, text: str) -> None:
    log = open_log(Settings.load(log_format="json"), outlet=Outlet(pipe.writer), race_id=text)
    log.info("task_failed")

    (line,) = pipe.read().decode().removesuffix("\n").split("\n")
    assert line.isprintable()
    assert json.loads(line)["race_id"] in (text, ascii(text))
