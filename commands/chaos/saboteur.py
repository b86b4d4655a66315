"""A transform that harms its own process if the race's name asks for it: for the crash lab, `racepool chaos`.

Such a name is `chaos:VERB:ARGUMENT:FAULT:NAME`. A VERB may be several harms, such as `daemon+kill`. For each one the
saboteur first records the instant and the fault's number, then does the harm. If the process survives, the real
transform gets the race under its NAME, so there is one right result. Any other race goes to the real transform
unchanged.

While the lab has its switch (switch.py) beside the record of the harms, a process that imports this module ends.
"""

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

import orjson

from racepool.commands.chaos.lab_processes import started
from racepool.commands.chaos.switch import end_at_import
from racepool.races.previous_amounts import PreviousAmounts
from racepool.races.race import RaceData
from racepool.worker.execution import Transform, load_transform
from racepool.worker.settings import saboteurs_settings

PREFIX: Final = "chaos:"
SLEEP: Final = "sleep"  # takes time, does no harm
CHILD_S: Final = 4.0
LEFT_S: Final = 600.0  # longer than any run may wait for the end of a child that was left
SPREAD_S: Final = 0.05  # a race that leaves something in its worker is slow, so that each worker gets one


class Saboteur:
    """Does the harm that a race asks for, then calls `innocent`.

    Args:
        innocent: the real transform.
        harms: the file for the record of each harm, one JSON line in one write.
    """

    def __init__(self, innocent: Transform, harms: Path) -> None:
        self._innocent = innocent
        self._harms = harms

    def __call__(self, race: RaceData, *, polled_at: datetime, previous: PreviousAmounts | None) -> Any:  # noqa: ANN401  # as the real transform
        """Called like `racepool.races.transform.transform_race`."""
        if race.name.startswith(PREFIX):
            _, verb, argument, fault, name = race.name.split(":", 4)
            if verb == SLEEP:
                time.sleep(float(argument))
            else:
                for harm in verb.split("+"):
                    self._do(harm, argument, int(fault))
            race = race.model_copy(update={"name": name})
        return self._innocent(race, polled_at=polled_at, previous=previous)

    def _do(self, harm: str, argument: str, fault: int) -> None:
        self._note(harm, fault)
        if child := HARMS[harm](argument):
            self._note(harm, fault, child=child, child_started=started(child))

    def _note(self, verb: str, fault: int, **more: int) -> None:
        own = {"at": time.monotonic(), "pid": os.getpid(), "started": started(os.getpid())}
        line = orjson.dumps(own | {"verb": verb, "fault": fault} | more) + b"\n"
        file = os.open(self._harms, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(file, line)
        finally:
            os.close(file)


def _kill(_argument: str) -> None:
    """Dies as when the kernel runs out of memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def _exit(argument: str) -> None:
    """Exits without notice to the broker."""
    os._exit(int(argument or 1))


def _freeze(_argument: str) -> None:
    """All threads stop until SIGCONT."""
    os.kill(os.getpid(), signal.SIGSTOP)


def _hold_gil(argument: str) -> None:
    """Spends the seconds in one C call, during which no other thread of this process runs."""
    until = time.monotonic() + float(argument)
    deque(takewhile(until.__gt__, iter(time.monotonic, None)), maxlen=0)


def _spin(_argument: str) -> None:
    """Pure Python that never returns."""
    while True:
        pass


def _raise(argument: str) -> None:
    raise RuntimeError(argument or "as the race asked")


def _fork_kill(argument: str) -> None:
    """Leaves a child that keeps all sockets open for a while: only the pidfd tells that this process has ended."""
    if os.fork() == 0:
        time.sleep(float(argument or CHILD_S))
        os._exit(0)
    _kill("")


def _leave_handler(_argument: str) -> None:
    signal.signal(signal.SIGALRM, lambda *_: None)
    time.sleep(SPREAD_S)


def _ignore_alarm(_argument: str) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    time.sleep(SPREAD_S)


def _block_alarm(_argument: str) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    time.sleep(SPREAD_S)


def _fork_return(_argument: str) -> int:
    """Returns in both processes, so the child goes on after the transform as if it were the worker."""
    return os.fork()


def _leave_session(_argument: str) -> int:
    """Starts a program in a session of its own, and leaves it."""
    command = [sys.executable, "-I", "-S", "-c", f"import time; time.sleep({LEFT_S})"]
    quiet = subprocess.DEVNULL
    child = subprocess.Popen(  # noqa: S603  # our own interpreter
        command, start_new_session=True, stdin=quiet, stdout=quiet, stderr=quiet
    )
    return child.pid


def _leave_daemon(_argument: str) -> int:
    """Forks twice, as daemons do: the child has a session of its own, and its parent has ended."""
    reader, writer = os.pipe()
    between = os.fork()
    if between == 0:
        os.setsid()
        if daemon := os.fork():
            os.write(writer, str(daemon).encode())
            os._exit(0)
        os.close(reader)
        os.close(writer)
        time.sleep(LEFT_S)
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as told:  # noqa: PTH123  # a descriptor
        pid = told.read()
    with suppress(ChildProcessError):  # the pool may have reaped it
        os.waitpid(between, 0)
    return int(pid or 0)


HARMS: Final[dict[str, Callable[[str], int | None]]] = {
    "kill": _kill,
    "exit": _exit,
    "freeze": _freeze,
    "hold-gil": _hold_gil,
    "spin": _spin,
    "raise": _raise,
    "fork-kill": _fork_kill,
    "alarm-handler": _leave_handler,
    "alarm-ignored": _ignore_alarm,
    "alarm-blocked": _block_alarm,
    "fork-return": _fork_return,
    "session": _leave_session,
    "daemon": _leave_daemon,
}


def transform(race: RaceData, *, polled_at: datetime, previous: PreviousAmounts | None) -> Any:  # noqa: ANN401  # as above
    """The value of RACEPOOL_TRANSFORM in a lab: the saboteur around the transform of RACEPOOL_CHAOS_TRANSFORM."""
    return _saboteur(race, polled_at=polled_at, previous=previous)


_innocent, _harms = saboteurs_settings()
end_at_import(_harms.parent)
_saboteur = Saboteur(load_transform(_innocent), _harms)
