"""Every kind of fault: what it hits, how long, which faults may not overlap it, and which errors a caller may see."""

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
        name: as a user types it in --faults.
        about: what is done, in a few words, for --help.
        lasts_s: the shortest and the longest duration.
        rest_s: how many seconds after its end the pool must be whole again.
        takes: the resources that no other fault may use until then.
        avoids: the resources that no other fault may have taken when this one begins.
        verb: for a fault inside a race, what the saboteur must do; else empty. A client submits that race.
        shows: the errors with which its race must end; empty if the race must end with the right result.
        costs_worker: whether the broker may lose a worker that it hit.
        is_calm: no burst of submissions comes with it.
        before: what some races leave in the workers just before the race of this fault, for the saboteur; those races
            must end with the right result.
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
    before: str = ""

    @property
    def hangs(self) -> bool:
        """Whether its race never ends. Its run timeout is the duration of the fault."""
        return self.verb.endswith("spin")

    @property
    def hits_one_worker(self) -> bool:
        """Whether it takes one worker, which no other fault may freeze at the same time."""
        return WORKER in self.takes


CRASHED: Final = "WorkerCrashedError"
EXPIRED: Final = "TaskTimeoutError queued"
OVERRAN: Final = "TaskTimeoutError running"
RAISED: Final = "TransformError"

_CALM: Final = frozenset({ABSENT_BROKER, ABSENT_SUPERVISORD})
_BROKER: Final = frozenset({BROKER, ABSENT_BROKER, SUPERVISORD, ABSENT_SUPERVISORD})


def _poison(name: str, about: str, verb: str) -> Kind:
    return Kind(name, about, rest_s=8.0, verb=verb, shows=frozenset({CRASHED}))


def _hang(name: str, about: str, verb: str = "spin", before: str = "") -> Kind:
    return Kind(name, about, lasts_s=(1.0, 1.0), rest_s=6.0, verb=verb, shows=frozenset({OVERRAN}), before=before)


def _import(name: str, about: str) -> Kind:
    """No other fault may come meanwhile: nothing could replace what it hits."""
    return Kind(
        name,
        about,
        lasts_s=(4.0, 6.0),
        rest_s=6.0,
        takes=frozenset({ABSENT_SUPERVISORD}),
        avoids=_BROKER,
    )


_ALL: Final = (
    Kind("worker-kill", "SIGKILL to one worker"),
    Kind("workers-kill-all", "SIGKILL to all workers at once"),
    Kind(
        "worker-freeze-short",
        "SIGSTOP for less than the liveness: nothing may follow",
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
        "as worker-freeze, without a burst: with a low --rate the worker is idle",
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
        "SIGSTOP to everything at once, as when the host sleeps: nothing may follow",
        lasts_s=(3.0, 5.0),
        rest_s=2.0,
        takes=frozenset({BROKER, WORKER, CLIENT, SUPERVISORD}),
        avoids=_BROKER | {WORKER, CLIENT, LONG_LOSS},
        costs_worker=False,
    ),
    Kind(
        "stutter",
        "one more worker, which sends each result three times",
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
        "SIGSTOP, and SIGCONT: nothing may follow",
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
        "SIGKILL to the watchdog: nothing may follow",
        rest_s=4.0,
        avoids=frozenset({LONG_LOSS}) | _CALM,
        costs_worker=False,
    ),
    _poison("poison", "a race that kills every worker that runs it", "kill"),
    _poison("poison-exit", "a race at which workers exit without notice", "exit"),
    _poison("fork-then-kill", "as poison, but a child keeps the sockets open", "fork-kill"),
    Kind(
        "gil-hold",
        "one C call that silences its worker: the answer is right",
        lasts_s=(2.5, 4.0),
        rest_s=3.0,
        verb="hold-gil",
        costs_worker=False,
    ),
    _hang("hang", "a race that never ends, with a short run timeout"),
    _hang("alarm-handler", "as hang, in a worker in which a race left a SIGALRM handler", before="alarm-handler"),
    _hang("alarm-ignored", "as hang, in a worker in which a race ignored SIGALRM", before="alarm-ignored"),
    _hang("alarm-blocked", "as hang, in a worker in which a race blocked SIGALRM", before="alarm-blocked"),
    Kind(
        "broker-kill-alarm",
        "as these, and the broker is killed meanwhile: only the worker's own timer is left",
        lasts_s=(2.0, 2.0),
        rest_s=8.0,
        takes=frozenset({BROKER}),
        avoids=_BROKER,
        verb="spin",
        shows=frozenset({OVERRAN}),
        before="alarm-handler+alarm-blocked",
    ),
    Kind(
        "fork-return",
        "a race that forks and returns in both processes",
        rest_s=3.0,
        verb="fork-return",
        costs_worker=False,
    ),
    Kind(
        "child-left",
        "a race that leaves a process, as a daemon does: it may live as long as its worker",
        rest_s=1.0,
        verb="daemon",
        costs_worker=False,
    ),
    _poison("child-then-kill", "as poison, and a process in a session of its own is left", "session+kill"),
    _hang("child-then-hang", "as hang, and a process is left, as by a daemon", "daemon+spin"),
    _import("import-exit", "the module of the transform ends its process at import, and all workers are killed"),
    _import("import-abort", "as import-exit, by abort()"),
    Kind(
        "raise",
        "a race at which the transform raises",
        rest_s=1.0,
        verb="raise",
        shows=frozenset({RAISED}),
        costs_worker=False,
    ),
    Kind("garbage", "broken and unwanted messages on all four sockets", lasts_s=(2.0, 4.0), rest_s=1.0, avoids=_CALM),
    Kind(
        "sockets-removed",
        "the socket files are deleted",
        rest_s=12.0,
        takes=frozenset({BROKER, ABSENT_BROKER}),
        avoids=_BROKER,
    ),
)
KINDS: Final = {kind.name: kind for kind in _ALL}


class UnknownKindError(ValueError):
    """There is no such kind; the text names all kinds."""


def chosen(names: str) -> list[Kind]:
    """The kinds in a list of names, such as `worker-kill,broker-kill` or `all,-poison`.

    Raises:
        UnknownKindError: a name is unknown, or no kind is left.
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
