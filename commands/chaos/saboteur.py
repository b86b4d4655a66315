"""A transform that harms its own process if the race's name asks for it: for the crash lab, `racepool chaos`.

Such a name is `chaos:VERB:ARGUMENT:FAULT:NAME`. The saboteur first records the instant and the fault's number, then
does the harm. If the process survives, the real transform gets the race under its NAME, so there is one right result.
Any other race goes to the real transform unchanged.
"""

import os
import signal
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

import orjson

from racepool.races.previous_amounts import PreviousAmounts
from racepool.races.race import RaceData
from racepool.worker.execution import Transform, load_transform
from racepool.worker.settings import saboteurs_settings

PREFIX: Final = "chaos:"
SLEEP: Final = "sleep"  # takes time, does no harm
CHILD_S: Final = 4.0


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
                self._note(verb, int(fault))
                HARMS[verb](argument)
            race = race.model_copy(update={"name": name})
        return self._innocent(race, polled_at=polled_at, previous=previous)

    def _note(self, verb: str, fault: int) -> None:
        line = orjson.dumps({"at": time.monotonic(), "pid": os.getpid(), "verb": verb, "fault": fault}) + b"\n"
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


def _fork_kill(_argument: str) -> None:
    """Leaves a child that keeps all sockets open for CHILD_S: only the pidfd tells that this process has ended."""
    if os.fork() == 0:
        time.sleep(CHILD_S)
        os._exit(0)
    _kill("")


HARMS: Final[dict[str, Callable[[str], None]]] = {
    "kill": _kill,
    "exit": _exit,
    "freeze": _freeze,
    "hold-gil": _hold_gil,
    "spin": _spin,
    "raise": _raise,
    "fork-kill": _fork_kill,
}


def transform(race: RaceData, *, polled_at: datetime, previous: PreviousAmounts | None) -> Any:  # noqa: ANN401  # as above
    """The value of RACEPOOL_TRANSFORM in a lab: the saboteur around the transform of RACEPOOL_CHAOS_TRANSFORM."""
    return _saboteur(race, polled_at=polled_at, previous=previous)


_innocent, _harms = saboteurs_settings()
_saboteur = Saboteur(load_transform(_innocent), _harms)
