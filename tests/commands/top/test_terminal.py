"""What the terminal changes while `top` runs is as before at its end."""

import os
import signal
from pathlib import Path

from racepool.commands.top.terminal import HEARD, Terminal


def heard() -> tuple[object, ...]:
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)
    return wakeup, *(signal.getsignal(number) for number in HEARD)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_signals_and_descriptors_are_given_back() -> None:
    before, files_before = heard(), open_files()

    for _ in range(2):
        with Terminal() as terminal:
            os.kill(os.getpid(), signal.SIGWINCH)
            os.kill(os.getpid(), signal.SIGTERM)
            assert terminal.signals() == {signal.SIGWINCH, signal.SIGTERM}

    assert heard() == before
    assert open_files() <= files_before
