"""The logs that supervisord opens at each start of a program, long after the run directory was checked."""

import os
from pathlib import Path

import pytest
from supervisor import loggers

from racepool.supervision.supervisord import open_log

STRANGER = 65_534


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(loggers, "open", open_log, raising=False)
    folder = tmp_path / "log"
    folder.mkdir(mode=0o700)
    return folder


def write(path: Path, line: bytes) -> None:
    handler = loggers.RotatingFileHandler(str(path), maxBytes=100, backupCount=1)
    handler.setFormat("%(message)s")
    handler.emit(loggers.LogRecord(loggers.LevelsByName.INFO, line))
    handler.close()


def test_lines_are_appended_for_the_owner_alone_and_old_files_are_kept(logs: Path) -> None:
    for line in (b"one\n", b"two\n", b"x" * 100, b"three\n"):
        write(logs / "broker.log", line)

    assert (logs / "broker.log.1").read_bytes() == b"one\ntwo\n" + b"x" * 100
    assert (logs / "broker.log").read_bytes() == b"three\n"
    assert (logs / "broker.log").stat().st_mode & 0o077 == 0


def test_link_in_the_place_of_a_log_is_not_followed(logs: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("kept")
    (logs / "broker.log").symlink_to(precious)

    with pytest.raises(OSError, match="symbolic link"):
        write(logs / "broker.log", b"line")

    assert precious.read_text() == "kept"


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives a directory away")
def test_directory_of_another_user_in_the_place_of_the_logs_gets_no_line(logs: Path) -> None:
    write(logs / "broker.log", b"ours")
    logs.rename(logs.with_name("moved"))
    logs.mkdir()
    os.chown(logs, STRANGER, STRANGER)

    with pytest.raises(PermissionError, match="belongs to user 65534"):
        write(logs / "broker.log", b"line")

    assert list(logs.iterdir()) == []


@pytest.mark.parametrize("device", ["/dev/stdout", "/dev/stderr", "/dev/null"])
def test_devices_are_opened_as_they_are(device: str, logs: Path) -> None:  # noqa: ARG001  # sets `open`
    loggers.FileHandler(device).close()
