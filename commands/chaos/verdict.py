"""Which promises held: compares the witness, the logs and the injections. Pure."""

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from racepool.commands.chaos.aftermath import children, hangs, starts
from racepool.commands.chaos.evidence import Evidence, Judgement
from racepool.commands.chaos.kinds import CRASHED, EXPIRED, OVERRAN
from racepool.commands.chaos.measurement import (
    NOISE_S,
    SLACK_S,
    blind_spans,
    detection_bound_s,
)
from racepool.commands.chaos.program_logs import DIED, LogEntry
from racepool.commands.chaos.records import Resolved, Submitted
from racepool.commands.chaos.witness import Life, named

BROKEN: Final = "BROKEN"
OK: Final = "ok"
NOT_TRIED: Final = "not tried"
CUT_SHORT: Final = "the run was interrupted"
BROKER_ENDS_ITSELF_S: Final = 12.0
VANISHED_S: Final = 1.5
FROZEN_FACTOR: Final = 5.0  # times the liveness: then the broker kills a frozen worker that it knew


@dataclass(frozen=True)
class Invariant:
    """One promise.

    Attributes:
        checked: what was checked, as text; or why nothing was.
        broken: each case in which it was broken, as text.
        is_tried: whether the run could have broken it. A promise that nothing put to the test has not held.
    """

    promise: str
    checked: str
    broken: tuple[str, ...] = ()
    is_tried: bool = True

    @property
    def state(self) -> str:
        """BROKEN, OK or NOT_TRIED."""
        if self.broken:
            return BROKEN
        return OK if self.is_tried else NOT_TRIED


def verdict(evidence: Evidence) -> list[Invariant]:
    """Judges every promise; the most important ones come first."""
    witness, ending = evidence.witness, evidence.ending
    execs = witness.counts["execs"]
    resolved, harms = len(witness.took_s), len(evidence.done)
    unexplained, wrong = _failures(evidence)
    found = [
        Invariant("no exec called back twice", f"{execs} execs", tuple(witness.twice), resolved > 0),
        Invariant("every result was right", f"{(right := witness.counts['right'])} results", tuple(wrong), right > 0),
        Invariant(
            "errors came only where a fault explains them", _expected(evidence), tuple(unexplained), resolved > 0
        ),
        Invariant("every exec resolved in time", _longest(evidence), tuple(_late(evidence)), resolved > 0),
        Invariant("tasks were assigned in the order of submission", *_order(evidence)),
        Invariant("a killed client's queued tasks were dropped", *_vanished(evidence)),
        Invariant("no worker was called lost without a cause", *_losses(evidence)),
        Invariant("a pause of the broker was not taken for silence", *_pauses(evidence)),
        Invariant("each loss was noticed in time", *_detections(evidence)),
        Invariant("the counters added up", f"{witness.samples} samples", tuple(witness.books), witness.samples > 0),
        Invariant("no program failed by itself", f"{harms} faults", tuple(_failed_programs(evidence)), harms > 0),
        Invariant("frozen programs were replaced, and none outlived supervisord", *_troubles(evidence)),
        Invariant("a hanging race was ended by its run timeout", *hangs(evidence)),
        Invariant("nothing that a worker started outlived it", *children(evidence)),
        Invariant("workers that cannot start were started once a second at most", *starts(evidence)),
    ]
    open_execs: tuple[str, ...] = ()
    waited, missing, surplus = CUT_SHORT, open_execs, open_execs
    if ending is not None:
        open_execs = tuple(f"{named(*key)} (race {each.race})" for key, each in _unresolved(evidence))
        waited, missing, surplus = f"after {ending.waited_s:.1f} s", ending.missing, ending.surplus
    is_settled = ending is not None and harms > 0
    found += [
        Invariant("every exec resolved", f"{execs} execs", open_execs, ending is not None and execs > 0),
        Invariant("the pool was whole again", waited, missing, is_settled),
        Invariant("no process was left over", waited, surplus, is_settled),
    ]
    grown = tuple(
        f"{each.program}: {each.early_kb:,.0f} to {each.late_kb:,.0f} KiB"
        for each in evidence.growth
        if not each.is_flat
    )
    looked = ", ".join(each.program for each in evidence.growth) or "the run was too short to tell"
    return [*found, Invariant("memory stayed flat", looked, grown, bool(evidence.growth))]


# --- execs ------------------------------------------------------------------------------------------------------------


def _failures(evidence: Evidence) -> tuple[list[str], list[str]]:
    """The errors that no fault explains, and the wrong results."""
    deaths = _Deaths(evidence)
    unexplained, wrong = [], []
    for submitted, resolved in evidence.witness.failed:
        about = f"{named(submitted.client, submitted.n)} (race {submitted.race}, task {submitted.task_id})"
        if resolved.digest:
            wrong.append(f"{about} has another result than on the quiet pool")
        elif not deaths.explain(submitted, resolved):
            unexplained.append(f"{about}: {resolved.outcome}: {resolved.message}")
    return unexplained, wrong


class _Deaths:
    """For each task, the losses of workers that had it."""

    def __init__(self, evidence: Evidence) -> None:
        self._max_attempts = evidence.settings.max_attempts
        self._hits = evidence.hits()
        self._frozen = evidence.hits(frozen_only=True)
        self._of_task: defaultdict[str, list[LogEntry]] = defaultdict(list)
        for entry in evidence.logs.of("worker_lost"):
            self._of_task[str(entry.fields.get("task_id"))].append(entry)

    def explain(self, submitted: Submitted, resolved: Resolved) -> bool:
        """Whether faults hit the workers of all attempts, or froze the worker that ran out of time."""
        deaths = self._of_task[submitted.task_id]
        if resolved.outcome == CRASHED:
            return sum(death.pid in self._hits for death in deaths) >= self._max_attempts
        if resolved.outcome == OVERRAN:
            return any(death.pid in self._frozen and death.fields.get("reason") == "run_timeout" for death in deaths)
        return False


def expected_errors(evidence: Evidence) -> Counter[str]:
    """The number of errors that a fault asked for or explains, by outcome."""
    deaths = _Deaths(evidence)
    explained = Counter(
        end.outcome for each, end in evidence.witness.failed if not end.digest and deaths.explain(each, end)
    )
    return evidence.witness.errors + explained


def _expected(evidence: Evidence) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(expected_errors(evidence).items())) or "no errors"


def _longest(evidence: Evidence) -> str:
    longest = max(evidence.witness.longest, default=None)
    took = "" if longest is None else f"the longest took {longest.took_s:.1f} s, "
    return f"{took}the bound is {evidence.bound_s(0.0):.0f} s"


def late(evidence: Evidence) -> list[Life]:
    """The execs that took longer than promised, with the time added in which their own client stood still."""
    restarts = sorted(each.at for each in evidence.logs.of("broker_started"))
    found = []
    for life in evidence.witness.longest:
        submitted = life.submitted
        count = bisect_right(restarts, life.ended_at) - bisect_left(restarts, submitted.at)
        own_s = sum(
            injection.fault.lasts_s for injection in evidence.injections if injection.client == submitted.client
        )
        if life.took_s > evidence.bound_s(submitted.run_timeout_s, count) + own_s:
            found.append(life)
    return found


def _late(evidence: Evidence) -> Iterator[str]:
    for life in late(evidence):
        yield f"{named(life.submitted.client, life.submitted.n)} took {life.took_s:.1f} s"


def _unresolved(evidence: Evidence) -> list[tuple[tuple[str, int], Submitted]]:
    killed = {injection.client for injection in evidence.injections if injection.name == "client-kill"}
    return [(key, each) for key, each in evidence.witness.open.items() if each.client not in killed]


def unresolved_count(evidence: Evidence) -> int:
    """How many execs of clients that were not killed are unresolved."""
    return len(_unresolved(evidence))


def _order(evidence: Evidence) -> Judgement:
    """Checks the order in each epoch, for each client.

    First assignments come in the order of submission, and no task comes before an older one that went back to its
    place. An epoch whose log has lost lines is skipped.
    """
    broken: list[str] = []
    checked = 0
    expired = {(each.client, each.n) for _, each in evidence.witness.failed if each.outcome == EXPIRED}
    for has_gaps, moves in zip(evidence.logs.has_gaps, evidence.logs.moves, strict=True):
        first: dict[str, int] = {}
        back: defaultdict[str, set[int]] = defaultdict(set)
        seen: set[str] = set()
        for move in () if has_gaps else moves:
            client, n = evidence.witness.exec_of.get(move.task_id, ("", 0))
            if move.is_back:
                back[client] |= {n} - {each for of, each in expired if of == client}
            elif client:
                back[client].discard(n)
                older = max((each for each in back[client] if each < n), default=0)
                if move.task_id not in seen:
                    older = max(older, first.get(client, 0) if n < first.get(client, 0) else 0)
                    first[client] = max(n, first.get(client, 0))
                if older:
                    broken.append(f"{named(client, n)} and {older} changed places")
                seen.add(move.task_id)
                checked += 1
    return f"{checked} assignments", tuple(broken), checked > 0


def _vanished(evidence: Evidence) -> Judgement:
    """No worker begins a task of a killed client after the broker has noticed the client's silence."""
    patience_s = evidence.settings.liveness + VANISHED_S
    absent = blind_spans(evidence.injections, evidence.logs)
    gone = {
        each.client: each.at
        for each in evidence.injections
        if each.name == "client-kill"
        and not each.missed
        and not any(begin < each.at + patience_s and end > each.at for begin, end in absent)
    }
    begun = Counter(
        client
        for moves in evidence.logs.moves
        for move in moves
        if (client := evidence.witness.exec_of.get(move.task_id, ("", 0))[0]) in gone
        and not move.is_back
        and move.at > gone[client] + patience_s
    )
    broken = [
        f"{count} tasks of {client} were begun {patience_s:g} s after its death and later"
        for client, count in begun.items()
    ]
    return f"{len(gone)} killed clients", tuple(broken), bool(gone)


# --- workers and programs ---------------------------------------------------------------------------------------------


def _losses(evidence: Evidence) -> Judgement:
    """No fault loses a message between a broker and a worker that both stay alive: nothing explains `out_of_step`."""
    hits = evidence.hits()
    losses = list(evidence.logs.of("worker_lost"))
    broken = [
        f"{entry.worker} (pid {entry.pid}) was lost by {entry.fields.get('reason')}, which no fault explains"
        for entry in losses
        if entry.pid not in hits or entry.fields.get("reason") == "out_of_step"
    ]
    return f"{len(losses)} losses", tuple(broken), bool(losses or evidence.done)


def _pauses(evidence: Evidence) -> Judgement:
    """After its own pause a broker gives every peer the full liveness again."""
    pauses = [entry.at for entry in evidence.logs.of("broker_paused")]
    broken = [
        f"{entry.worker} (pid {entry.pid}) was called silent {entry.at - at:.2f} s after the broker's own pause"
        for entry in evidence.logs.of("worker_lost", "worker_silent")
        if entry.event == "worker_silent" or entry.fields.get("reason") == "silence"
        for at in pauses
        if 0 <= entry.at - at < evidence.settings.liveness - SLACK_S
    ]
    return f"{len(pauses)} pauses", tuple(broken), bool(pauses)


def _detections(evidence: Evidence) -> Judgement:
    broken, checked = [], 0
    for noticed in evidence.noticed:
        bound_s = detection_bound_s(noticed, evidence.settings.liveness)
        if bound_s is None or noticed.detection_s is None or noticed.is_clouded:
            continue
        checked += 1
        if noticed.detection_s > bound_s:
            broken.append(f"{noticed.kind}: {noticed.how} after {noticed.detection_s:.2f} s, promised {bound_s:g} s")
    return f"{checked} losses", tuple(broken), checked > 0


def _failed_programs(evidence: Evidence) -> Iterator[str]:
    removals = [injection.at for injection in evidence.injections if injection.name == "sockets-removed"]
    aborts = [(each.at, each.over_at) for each in evidence.done if each.name == "import-abort"]
    yield from evidence.logs.alarms
    for entry in evidence.logs.of(DIED):
        if not any(begin <= entry.at <= end for begin, end in aborts):
            yield f"{entry.worker} died by itself: {entry.fields['how']}"
    for entry in evidence.logs.of("broker_failed", "broker_refused"):
        if not any(0 <= entry.at - at <= BROKER_ENDS_ITSELF_S for at in removals):
            yield f"{entry.event}: {entry.fields.get('reason') or entry.fields.get('exception', '')}"


def _troubles(evidence: Evidence) -> Judgement:
    troubles = [trouble for injection in evidence.injections for trouble in injection.troubles]
    troubles += _overdue(evidence)
    cases = sum(each.name.endswith(("for-good", "supervisord-kill")) for each in evidence.done)
    return f"{cases} cases", tuple(troubles), cases > 0


def _overdue(evidence: Evidence) -> Iterator[str]:
    """The frozen workers that the broker lost by silence and did not kill in time."""
    bound_s = FROZEN_FACTOR * evidence.settings.liveness + NOISE_S
    absent = blind_spans(evidence.injections, evidence.logs)
    silent = [entry for entry in evidence.logs.of("worker_lost") if entry.fields.get("reason") == "silence"]
    for injection in evidence.injections:
        for hit in injection.hits if injection.name == "worker-freeze-for-good" else ():
            died_at = hit.at if hit.died_at is None else hit.died_at
            is_clouded = any(begin < died_at and end > hit.at for begin, end in absent)
            was_missed = any(entry.pid == hit.pid and entry.at > hit.at for entry in silent)
            if was_missed and died_at > hit.at + bound_s and not is_clouded:
                yield f"{hit.name} (pid {hit.pid}) was frozen for {died_at - hit.at:.1f} s, promised {bound_s:g} s"
