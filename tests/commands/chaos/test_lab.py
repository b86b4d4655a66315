"""The shells of the crash lab: what they take and give back."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from racepool.commands.chaos.ending import ABANDONED
from racepool.commands.chaos.lab import _terminated_as_interrupted
from racepool.commands.chaos.lab_processes import Census, LabProcess, died_at, started
from racepool.commands.chaos.observer import Observer
from racepool.commands.chaos.saboteur import Saboteur
from racepool.commands.chaos.witness import Witness
from racepool.protocol.settings import Settings

PROGRAM = """
import time
from racepool.commands.chaos.ending import end_with_the_lab
end_with_the_lab()
print("running", flush=True)
time.sleep(60)
"""


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_sigterm_interrupts_the_lab_and_is_given_back_after_it() -> None:
    before = signal.getsignal(signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt), _terminated_as_interrupted():
        signal.raise_signal(signal.SIGTERM)

    assert signal.getsignal(signal.SIGTERM) is before


def test_program_of_the_lab_ends_when_the_lab_does() -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin
        assert child.stdout
        assert child.stdout.readline() == b"running\n"
        assert child.poll() is None

        child.stdin.close()

        try:
            assert child.wait(10) == ABANDONED
        finally:
            child.kill()


def test_descriptors_are_given_back(tmp_path: Path) -> None:
    before = open_files()

    for _ in range(3):
        assert died_at(LabProcess(os.getpid(), started(os.getpid()), 0, "other", "other", "R", 0), 0.0) is None
        Saboteur(lambda race, **_: race, tmp_path / "harms")._note("kill", 1)

    assert open_files() <= before


def test_processes_are_sampled_once_a_second_however_often_the_lab_looks(run_dir: Path) -> None:
    observer = Observer(Settings(dir=run_dir), [], Census(run_dir))
    observer.witness = Witness([], [])

    for _ in range(5):
        observer.look()
    observer.close()

    assert observer.memory._looks == 1
