"""Every kind of fault: whom it hits, for how long, what may not go on beside it, and what it may show to a caller."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

WORKER = "worker"
BROKER = "broker"
SUPERVISORD = "supervisord"
CLIENT = "client"
ABSENT_BROKER = "an absent broker"
ABSENT_SUPERVISORD = "an absent supervisord"
LONG_LOSS = "a worker lost for long"


@dataclass(frozen=True)
class Kind:
    """One kind of fault.

    Attributes:
        name: as a user types it.
        about: what is done, in a few words.
        lasts_s: the shortest and the longest time from its beginning to its end.
        rest_s: how long after its end the pool may need to be whole again, in seconds.
        takes: what it keeps from other faults until then.
        avoids: what no fault that goes on may have taken.
        verb: what the saboteur is told, for a fault that travels in a race; a client submits it.
        shows: how its own race may end; empty if nothing but the right result will do.
        costs_worker: whether a worker that it hit may be lost by it.
        is_calm: it comes without the burst of submissions that others meet.
    """

    name: str
    about: str
    lasts_s: tuple[float, float] = (0.0, 0.0)
    rest_s: float = 5.0
    takes: frozenset[str] = frozenset()
    avoids: frozenset[str] = frozenset({ABSENT_SUPERVISORD})
    verb: str = ""
    shows: frozenset[str] = frozenset()
    costs_worker: bool = True
    is_calm: bool = False

    @property
    def hits_one_worker(self) -> bool:
        """Whether its target is one worker, which no second fault is to freeze meanwhile."""
        return WORKER in self.takes


CRASHED: Final = "WorkerCrashedError"
EXPIRED: Final = "TaskTimeoutError queued"
OVERRAN: Final = "TaskTimeoutError running"
RAISED: Final = "TransformError"

_CALM: Final = frozenset({ABSENT_BROKER, ABSENT_SUPERVISORD})
_BROKER: Final = frozenset({BROKER, ABSENT_BROKER, SUPERVISORD, ABSENT_SUPERVISORD})


def _poison(name: str, about: str, verb: str) -> Kind:
    return Kind(name, about, rest_s=8.0, verb=verb, shows=frozenset({CRASHED}))


_ALL: Final = (
    Kind("worker-kill", "SIGKILL to one worker"),
    Kind("workers-kill-all", "SIGKILL to all workers at once"),
    Kind(
        "worker-freeze-short",
        "SIGSTOP for less than the liveness: nothing may come of it",
        lasts_s=(0.2, 1.0),
        rest_s=3.0,
        takes=frozenset({WORKER}),
        avoids=_CALM,
        costs_worker=False,
    ),
    Kind(
        "worker-freeze",
        "SIGSTOP, and SIGCONT after the liveness",
        lasts_s=(3.0, 5.0),
        rest_s=3.0,
        takes=frozenset({WORKER}),
    ),
    Kind(
        "worker-freeze-calm",
        "as worker-freeze, but in no burst: with a low --rate it is idle",
        lasts_s=(3.0, 5.0),
        rest_s=3.0,
        takes=frozenset({WORKER}),
        is_calm=True,
    ),
    Kind(
        "worker-freeze-for-good",
        "SIGSTOP and never SIGCONT",
        rest_s=28.0,
        takes=frozenset({WORKER, LONG_LOSS}),
        avoids=frozenset({LONG_LOSS}) | _CALM,
    ),
    Kind("broker-kill", "SIGKILL to the broker", takes=frozenset({BROKER}), avoids=_BROKER),
    Kind(
        "broker-freeze",
        "SIGSTOP, and SIGCONT",
        lasts_s=(1.0, 3.0),
        rest_s=2.0,
        takes=frozenset({BROKER}),
        avoids=_BROKER,
    ),
    Kind(
        "broker-freeze-for-good",
        "SIGSTOP and never SIGCONT",
        rest_s=18.0,
        takes=frozenset({BROKER, ABSENT_BROKER}),
        avoids=_BROKER | {WORKER},
    ),
    Kind(
        "pool-freeze",
        "SIGSTOP to everything at once, as a host that sleeps: nothing may come of it",
        lasts_s=(3.0, 5.0),
        rest_s=2.0,
        takes=frozenset({BROKER, WORKER, CLIENT, SUPERVISORD}),
        avoids=_BROKER | {WORKER, CLIENT, LONG_LOSS},
        costs_worker=False,
    ),
    Kind(
        "stutter",
        "one more worker, which says each result three times",
        lasts_s=(3.0, 5.0),
        rest_s=3.0,
    ),
    Kind("client-kill", "SIGKILL to a client with queued tasks"),
    Kind(
        "client-freeze",
        "SIGSTOP, and SIGCONT after a while",
        lasts_s=(1.0, 5.0),
        takes=frozenset({CLIENT}),
        avoids=frozenset({CLIENT}) | _CALM,
    ),
    Kind("client-slow", "a client that is slow to take its answers", lasts_s=(2.0, 4.0), rest_s=3.0, avoids=_CALM),
    Kind(
        "supervisord-freeze",
        "SIGSTOP, and SIGCONT: nothing may come of it",
        lasts_s=(2.0, 6.0),
        rest_s=3.0,
        takes=frozenset({SUPERVISORD}),
        avoids=frozenset({BROKER, SUPERVISORD}) | _CALM,
    ),
    Kind(
        "supervisord-kill",
        "SIGKILL, and another is started",
        lasts_s=(0.5, 1.5),
        rest_s=8.0,
        takes=frozenset({SUPERVISORD, ABSENT_SUPERVISORD}),
        avoids=frozenset({BROKER, WORKER, LONG_LOSS, SUPERVISORD}) | _CALM,
    ),
    Kind(
        "watchdog-kill",
        "SIGKILL to the watchdog: nothing may come of it",
        rest_s=4.0,
        avoids=frozenset({LONG_LOSS}) | _CALM,
        costs_worker=False,
    ),
    _poison("poison", "a race that ends every worker that it meets", "kill"),
    _poison("poison-exit", "a race at which workers leave without a word", "exit"),
    _poison("fork-then-kill", "as poison, but a child keeps the sockets open", "fork-kill"),
    Kind(
        "gil-hold",
        "one C call that silences its worker: the answer is right",
        lasts_s=(2.5, 4.0),
        rest_s=3.0,
        verb="hold-gil",
        costs_worker=False,
    ),
    Kind(
        "hang",
        "a race that never ends, with a short run timeout",
        lasts_s=(1.0, 1.0),
        rest_s=6.0,
        verb="spin",
        shows=frozenset({OVERRAN}),
    ),
    Kind(
        "raise",
        "a race at which the transform raises",
        rest_s=1.0,
        verb="raise",
        shows=frozenset({RAISED}),
        costs_worker=False,
    ),
    Kind("garbage", "what nobody asked for, on all four sockets", lasts_s=(2.0, 4.0), rest_s=1.0, avoids=_CALM),
    Kind(
        "sockets-removed",
        "the files of the sockets are deleted",
        rest_s=12.0,
        takes=frozenset({BROKER, ABSENT_BROKER}),
        avoids=_BROKER,
    ),
)
KINDS: Final = {kind.name: kind for kind in _ALL}


class UnknownKindError(ValueError):
    """There is no such kind; the text names those that there are."""


def chosen(names: str) -> list[Kind]:
    """The kinds that a list of names means, such as `worker-kill,broker-kill` or `all,-poison`.

    Raises:
        UnknownKindError: a name is of no kind, or nothing is left.
    """
    found: dict[str, Kind] = {}
    for part in filter(None, (name.strip() for name in names.split(","))):
        name = part.removeprefix("-")
        meant: Iterable[Kind] = _ALL if name == "all" else filter(None, [KINDS.get(name)])
        listed = list(meant)
        if not listed:
            raise UnknownKindError(f"{name!r} is no kind of fault; there are {', '.join(KINDS)}, and all")
        if part.startswith("-"):
            found = found or dict(KINDS)
            for kind in listed:
                found.pop(kind.name, None)
        else:
            found |= {kind.name: kind for kind in listed}
    if not found:
        raise UnknownKindError(f"{names!r} leaves no kind of fault; there are {', '.join(KINDS)}, and all")
    return list(found.values())
