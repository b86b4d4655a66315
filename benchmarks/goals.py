"""The goals of racepool beside its peers, and whether a run reaches them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from benchmarks import turns
from benchmarks.contenders.registry import CONTENDERS, OURS
from benchmarks.figures import Spread, ratios, spread
from benchmarks.loads import NORMALISED, RAW
from benchmarks.measured import Measured
from benchmarks.turns import key

_THROUGHPUT: Final = ((turns.THROUGHPUT, NORMALISED), (turns.THROUGHPUT, RAW))
_BURST: Final = (turns.BURST + turns.P50, NORMALISED)
# Ratios of racepool to the peer: the least throughput of normalised races and of raw bodies, the longest burst.
_RATIOS: Final[Mapping[str, tuple[float, float, float | None]]] = {
    "ppe": (1.4, 1.5, 1.0),
    "loky": (1.4, 1.5, 1.0),
    "pebble": (1.4, 1.5, 1.0),
    "mpire": (1.2, 1.1, 0.9),
    "celery": (6, 8, 0.25),
    "ray": (4, 4, 0.4),
    "dask": (10, 5, 0.25),
    "ipyparallel": (10, 4, 0.35),
    "proxy": (0.9, 0.9, 1.1),
    "piscina": (0.8, 1.1, None),
}
_STALL_MS: Final = 5.0  # less than this, if a ticker on an idle loop is on time
_BARE_STALL_MS: Final = 2.0
QUEUED_TASK_BYTES: Final = 800


class Limit(NamedTuple):
    """A limit for a figure. The unit `x` is a ratio of racepool to the peer."""

    sense: Literal["≥", "≤"]
    value: float
    unit: str = "x"

    def is_kept_by(self, figure: float) -> bool:
        """Whether the figure keeps to the limit."""
        return figure >= self.value if self.sense == "≥" else figure <= self.value


@dataclass(frozen=True)
class Verdict:
    """A goal, and the figures that decide: their median counts. If there are none, it was not measured.

    Attributes:
        peer: whom racepool is compared with; empty for a goal of its own.
    """

    what: str
    peer: str
    limit: Limit
    figure: Spread | None

    @property
    def is_met(self) -> bool | None:
        """Whether the limit is kept; None if it was not measured."""
        return None if self.figure is None else self.limit.is_kept_by(self.figure.middle)


def verdicts(measured: Measured, queued_task_bytes: Sequence[float]) -> list[Verdict]:
    """Every goal, in the order of the report.

    Args:
        measured: a run beside peers.
        queued_task_bytes: what a queued task takes of the broker beside its body, in each case measured; empty if
            that was not measured.
    """
    return [
        *(verdict for peer in _RATIOS for verdict in _beside(measured, peer)),
        _ratio(measured, "ppe", Limit("≤", 1.0), "loop stall in 100 raw races", key(turns.STALL, RAW)),
        _stall(measured),
        *(
            _ratio(measured, "ppe", Limit("≤", 0.8), f"CPU per task over all processes, {load}", key(turns.CPU, load))
            for load in (NORMALISED, RAW)
        ),
        _ratio(measured, "ppe", Limit("≤", 1.0), "memory of the tree in a burst of raw races", turns.MEMORY_PEAK),
        _queued_task(queued_task_bytes),
    ]


def _beside(measured: Measured, peer: str) -> Iterator[Verdict]:
    *throughputs, burst = _RATIOS[peer]
    for (measure, load), limit in zip(_THROUGHPUT, throughputs, strict=True):
        if limit is not None:
            yield _ratio(measured, peer, Limit("≥", limit), f"{measure}, {load}", key(measure, load))
    if burst is not None:
        yield _ratio(measured, peer, Limit("≤", burst), "burst of five, p50", key(*_BURST))


def _ratio(measured: Measured, peer: str, limit: Limit, what: str, measure: str) -> Verdict:
    figures = measured.figures.get(measure, {})
    both = ratios(figures.get(OURS, ()), figures.get(peer, ()))
    return Verdict(what, CONTENDERS[peer].title, limit, spread(both) if both else None)


def _stall(measured: Measured) -> Verdict:
    """Only those turns count before which a ticker on an idle loop showed that the machine was quiet."""
    bare = measured.figures.get(key(turns.BARE_STALL, RAW), {}).get(OURS, ())
    stalls = measured.figures.get(key(turns.STALL, RAW), {}).get(OURS, ())
    quiet = [stall for stall, floor in zip(stalls, bare, strict=False) if floor < _BARE_STALL_MS]
    what = f"loop stall in 100 raw races, where a bare ticker is late by less than {_BARE_STALL_MS:g} ms"
    return Verdict(what, "", Limit("≤", _STALL_MS, "ms"), spread(quiet) if quiet else None)


def _queued_task(sizes: Sequence[float]) -> Verdict:
    """The heaviest of the cases decides."""
    figure = Spread(min(sizes), max(sizes), max(sizes)) if sizes else None
    what = "broker's memory for a queued task, beside its body"
    return Verdict(what, "", Limit("≤", QUEUED_TASK_BYTES, "bytes"), figure)
