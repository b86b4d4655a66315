import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from racepool.broker.lock import BrokerLock, LockTakenError
from racepool.protocol.errors import SettingsError
from tests.running import ROOT

HOLD = (
    "import sys; from pathlib import Path; from racepool.broker.lock import BrokerLock;"
    "lock = BrokerLock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_second_process_is_told_who_holds_the_lock(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    with pytest.raises(LockTakenError, match=rf"\(pid {holder.pid}\) holds {tmp_path}/broker.lock"):
        BrokerLock(tmp_path)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_lock_of_a_process_that_ended_is_free(
    holder: subprocess.Popen[str], tmp_path: Path, end: signal.Signals
) -> None:
    holder.send_signal(end)
    holder.wait(timeout=5)

    lock = BrokerLock(tmp_path)

    assert (tmp_path / "broker.lock").read_text() == f"{os.getpid()}\n"
    lock.release()


def test_frozen_holder_keeps_its_lock(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    holder.send_signal(signal.SIGSTOP)

    with pytest.raises(LockTakenError):
        BrokerLock(tmp_path)


def test_refused_process_leaves_the_holders_pid_alone(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(LockTakenError, match=f"pid {holder.pid}"):
            BrokerLock(tmp_path)


def test_released_lock_can_be_taken_by_another_process(tmp_path: Path) -> None:
    BrokerLock(tmp_path).release()

    run = subprocess.run([sys.executable, "-c", HOLD, str(tmp_path)], cwd=ROOT, input=b"", check=False, timeout=20)

    assert run.returncode == 0


def test_lock_file_is_ours_alone(tmp_path: Path) -> None:
    lock = BrokerLock(tmp_path)

    assert (tmp_path / "broker.lock").stat().st_mode & 0o077 == 0
    lock.release()


def test_lock_follows_no_link_and_is_not_taken_where_others_may_write(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "broker.lock").symlink_to("precious")
    with pytest.raises(OSError, match="symbolic link"):
        BrokerLock(tmp_path)
    (tmp_path / "broker.lock").unlink()

    tmp_path.chmod(0o1777)
    with pytest.raises(SettingsError, match="other users may write to"):
        BrokerLock(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
    assert (tmp_path / "precious").read_text() == "kept"
