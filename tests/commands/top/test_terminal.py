"""What the terminal changes while `top` runs is as before at its end."""

import os
import signal
from pathlib import Path

from racepool.commands.top.terminal import HEARD, Terminal


def state() -> tuple[object, ...]:
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)
    return [signal.getsignal(number) for number in HEARD], wakeup, len(list(Path("/proc/self/fd").iterdir()))


def test_signals_and_descriptors_are_given_back() -> None:
    before = state()

    for _ in range(2):
        with Terminal() as terminal:
            os.kill(os.getpid(), signal.SIGWINCH)
            os.kill(os.getpid(), signal.SIGTERM)
            assert terminal.signals() == {signal.SIGWINCH, signal.SIGTERM}

    assert state() == before
