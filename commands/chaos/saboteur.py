"""A transform that harms its own process where a race's name asks for it: for the crash lab, `racepool chaos`.

The name is `chaos:VERB:ARGUMENT:FAULT:NAME`. The harm is noted first, with its instant and the fault's number; who
survives it runs the transform proper on the race of that NAME, so that even then there is one right answer. Any other
race goes there as it is.
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
from racepool.worker.settings import SaboteurSettings

PREFIX: Final = "chaos:"
SLEEP: Final = "sleep"  # no harm, but it takes its time
CHILD_S: Final = 4.0


class Saboteur:
    """Does harm where it is asked for, else what `innocent` does.

    Args:
        innocent: the transform proper.
        harms: the file to which each harm is noted, one JSON line in one write.
    """

    def __init__(self, innocent: Transform, harms: Path) -> None:
        self._innocent = innocent
        self._harms = harms

    def __call__(self, race: RaceData, *, polled_at: datetime, previous: PreviousAmounts | None) -> Any:  # noqa: ANN401  # whatever the innocent one returns
        """As `racepool.races.transform.transform_race`, with the harm done before."""
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
    """As the kernel does when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def _exit(argument: str) -> None:
    """Ends without a word to anybody."""
    os._exit(int(argument or 1))


def _freeze(_argument: str) -> None:
    """All threads stand still until somebody sends SIGCONT."""
    os.kill(os.getpid(), signal.SIGSTOP)


def _hold_gil(argument: str) -> None:
    """So many seconds within one C call, which no other thread of this process gets a word into."""
    until = time.monotonic() + float(argument)
    deque(takewhile(until.__gt__, iter(time.monotonic, None)), maxlen=0)


def _spin(_argument: str) -> None:
    """Pure Python that never returns."""
    while True:
        pass


def _raise(argument: str) -> None:
    raise RuntimeError(argument or "as the race asked")


def _fork_kill(_argument: str) -> None:
    """Leaves a child that holds all sockets open for a while: only the kernel can tell that this process is no more."""
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
    """What RACEPOOL_TRANSFORM names in a lab: the saboteur around what RACEPOOL_CHAOS_TRANSFORM names."""
    return _saboteur(race, polled_at=polled_at, previous=previous)


_settings = SaboteurSettings()
_saboteur = Saboteur(load_transform(_settings.transform), _settings.harms)
