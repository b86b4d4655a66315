"""Transforms for tests, put on PYTHONPATH and named by RACEPOOL_TRANSFORM=transforms:NAME. Never imported by racepool.

`scripted` does what the race's name says, `VERB` or `VERB:ARGUMENT`; the others always do the one thing of their name.
"""

import os
import resource
import signal
import sys
import time
from collections import deque
from datetime import datetime
from itertools import takewhile
from pathlib import Path
from typing import Any

from racepool.races.previous_amounts import PreviousAmounts
from racepool.races.race import RaceData

POLL_S = 0.005
GIVE_UP_S = 60.0


def echo(race: RaceData, *, polled_at: datetime, previous: PreviousAmounts | None) -> dict[str, Any]:
    """Plain data about the race and who worked on it."""
    return {
        "id": race.id,
        "name": race.name,
        "polled_at": polled_at.isoformat(),
        "has_previous": previous is not None,
        "pid": os.getpid(),
        "worker": os.environ.get("SUPERVISOR_PROCESS_NAME", ""),
    }


def digits(race: RaceData, *, polled_at: datetime, previous: PreviousAmounts | None) -> dict[str, Any]:  # noqa: ARG001
    """Pure: the same for the same race, whoever works on it."""
    return {"id": race.id, "digits": [int(letter) for letter in race.name if letter.isdecimal()]}


def sleep(race: RaceData, *, polled_at: datetime, previous: PreviousAmounts | None) -> dict[str, Any]:
    """As long as the race's name says: `sleep:0.5`."""
    time.sleep(float(_argument(race)))
    return echo(race, polled_at=polled_at, previous=previous)


def wait_for(race: RaceData, *, polled_at: datetime, previous: PreviousAmounts | None) -> dict[str, Any]:
    """Until the file that the race's name tells is there: `wait-for:PATH`."""
    path, deadline = Path(_argument(race)), time.monotonic() + GIVE_UP_S
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return echo(race, polled_at=polled_at, previous=previous)


def log_to(race: RaceData, *, polled_at: datetime, previous: PreviousAmounts | None) -> dict[str, Any]:
    """Appends the race's id, as one line in one write, to a file: `log-to:PATH`. Tells the order of execution."""
    _append(Path(_argument(race)), race.id)
    return echo(race, polled_at=polled_at, previous=previous)


def raise_(race: RaceData, *, polled_at: datetime, previous: PreviousAmounts | None) -> None:  # noqa: ARG001
    """A plain exception: `raise` or `raise:TEXT`."""
    raise RuntimeError(_argument(race) or "as the test asked")


def system_exit(race: RaceData, *, polled_at: datetime, previous: PreviousAmounts | None) -> None:  # noqa: ARG001
    """What a library does that takes itself for a program."""
    sys.exit(3)


def exit_(race: RaceData, *, polled_at: datetime, previous: PreviousAmounts | None) -> None:  # noqa: ARG001
    """The process ends without a word: `exit` or `exit:CODE`."""
    os._exit(int(_argument(race) or 1))


def kill(race: RaceData, *, polled_at: datetime, previous: PreviousAmounts | None) -> None:  # noqa: ARG001
    """The process is killed, as by the kernel when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def kill_once(race: RaceData, *, polled_at: datetime, previous: PreviousAmounts | None) -> dict[str, Any]:
    """Kills its process unless the file is there, which it makes: `kill-once:PATH`."""
    try:
        os.close(os.open(_argument(race), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return echo(race, polled_at=polled_at, previous=previous)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def kill_unless(race: RaceData, *, polled_at: datetime, previous: PreviousAmounts | None) -> dict[str, Any]:
    """Kills its process unless the file is there: `kill-unless:PATH`."""
    if not Path(_argument(race)).exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return echo(race, polled_at=polled_at, previous=previous)


def freeze(race: RaceData, *, polled_at: datetime, previous: PreviousAmounts | None) -> dict[str, Any]:
    """Stops its own process, all threads of it, until somebody sends SIGCONT."""
    os.kill(os.getpid(), signal.SIGSTOP)
    return echo(race, polled_at=polled_at, previous=previous)


def freeze_once(race: RaceData, *, polled_at: datetime, previous: PreviousAmounts | None) -> dict[str, Any]:
    """As `freeze` unless the file is there, which it makes: `freeze-once:PATH`."""
    try:
        os.close(os.open(_argument(race), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return echo(race, polled_at=polled_at, previous=previous)
    return freeze(race, polled_at=polled_at, previous=previous)


def spin(race: RaceData, *, polled_at: datetime, previous: PreviousAmounts | None) -> dict[str, Any]:
    """Pure Python that never waits: `spin:SECONDS`, or `spin` for ever."""
    deadline = time.monotonic() + float(_argument(race) or "inf")
    count = 0
    while time.monotonic() < deadline:
        count += 1
    return echo(race, polled_at=polled_at, previous=previous)


def hold_gil(race: RaceData, *, polled_at: datetime, previous: PreviousAmounts | None) -> dict[str, Any]:
    """One C call that never lets another thread run: `hold-gil:SECONDS`, or for ever."""
    deadline = time.monotonic() + float(_argument(race) or "inf")
    deque(takewhile(deadline.__gt__, iter(time.monotonic, None)), maxlen=0)
    return echo(race, polled_at=polled_at, previous=previous)


def fork(race: RaceData, *, polled_at: datetime, previous: PreviousAmounts | None) -> dict[str, Any]:
    """Leaves a child that keeps all inherited sockets open: `fork:SECONDS`; its pid is in the result."""
    child = os.fork()
    if child == 0:
        time.sleep(float(_argument(race) or 5))
        os._exit(0)
    return echo(race, polled_at=polled_at, previous=previous) | {"child": child}


def fork_kill(race: RaceData, *, polled_at: datetime, previous: PreviousAmounts | None) -> None:
    """Leaves such a child, and is killed: only the kernel can tell that this process is no more."""
    fork(race, polled_at=polled_at, previous=previous)
    kill(race, polled_at=polled_at, previous=previous)


def large(race: RaceData, *, polled_at: datetime, previous: PreviousAmounts | None) -> bytes:  # noqa: ARG001
    """So many bytes: `large:BYTES`, or after a while `large:BYTES:SECONDS`."""
    size, _, seconds = _argument(race).partition(":")
    time.sleep(float(seconds or 0))
    return bytes(int(size))


def hoard(race: RaceData, *, polled_at: datetime, previous: PreviousAmounts | None) -> dict[str, Any]:
    """Keeps so many bytes for ever: `hoard:BYTES`."""
    _hoarded.append(b"x" * int(_argument(race)))
    return echo(race, polled_at=polled_at, previous=previous)


def unpackable(race: RaceData, *, polled_at: datetime, previous: PreviousAmounts | None) -> object:  # noqa: ARG001
    """Something that cannot travel."""
    return object()


def no_descriptors(race: RaceData, *, polled_at: datetime, previous: PreviousAmounts | None) -> dict[str, Any]:
    """Leaves its process without a free file descriptor, and sleeps: `no-descriptors:SECONDS`."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))  # with 0 poll(2) itself would fail, and libzmq abort
    time.sleep(float(_argument(race) or 0))
    return echo(race, polled_at=polled_at, previous=previous)


_hoarded: list[bytes] = []
_SCRIPT = {
    "echo": echo,
    "sleep": sleep,
    "wait-for": wait_for,
    "log-to": log_to,
    "raise": raise_,
    "system-exit": system_exit,
    "exit": exit_,
    "kill": kill,
    "kill-once": kill_once,
    "kill-unless": kill_unless,
    "freeze": freeze,
    "freeze-once": freeze_once,
    "spin": spin,
    "hold-gil": hold_gil,
    "fork": fork,
    "fork-kill": fork_kill,
    "large": large,
    "hoard": hoard,
    "unpackable": unpackable,
    "no-descriptors": no_descriptors,
}


def scripted(race: RaceData, *, polled_at: datetime, previous: PreviousAmounts | None) -> object:
    """What the race's name says; an unknown verb is an echo."""
    verb = race.name.partition(":")[0]
    return _SCRIPT.get(verb, echo)(race, polled_at=polled_at, previous=previous)


def _argument(race: RaceData) -> str:
    return race.name.partition(":")[2]


def _append(path: Path, line: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(file, f"{line}\n".encode())
    finally:
        os.close(file)
