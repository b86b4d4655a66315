"""The findings of a lab, for a person (tables) and for a program (JSON)."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from statistics import median, quantiles
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.text import Text

from racepool.commands.chaos.injection import Injection
from racepool.commands.chaos.kinds import KINDS
from racepool.commands.chaos.lab import Findings
from racepool.commands.chaos.measurement import NOT_NOTICED, Noticed
from racepool.commands.chaos.verdict import (
    BROKEN,
    NOT_TRIED,
    OK,
    Invariant,
    expected_errors,
    late,
    unresolved_count,
)
from racepool.commands.display import look
from racepool.commands.narrow_table import Column, NarrowTable, numbers
from racepool.protocol.visible import visible

DETAILS_SHOWN: Final = 5
_STYLES: Final = {OK: "green", NOT_TRIED: "yellow", BROKEN: "bold red"}


def as_json(findings: Findings) -> dict[str, Any]:
    """All findings, as a JSON object."""
    plan, evidence = findings.plan, findings.evidence
    return {
        "holds": findings.holds,
        "is_whole": findings.is_whole,
        "plan": plan.to_wire(),
        "transform": findings.transform,
        "seconds": round(findings.seconds, 1),
        "settings": evidence.settings.model_dump(
            mode="json", include={"liveness", "max_attempts", "queue_timeout", "run_timeout", "workers"}
        ),
        "faults": [_of_kind(findings, kind.name) for kind in findings.plan.kinds],
        "not_tried": findings.not_tried,
        "injections": [_injection(findings, each) for each in evidence.injections],
        "load": _load(findings),
        "memory": [
            {"program": each.program, "early_kb": each.early_kb, "late_kb": each.late_kb} for each in evidence.growth
        ],
        "invariants": [
            {"promise": each.promise, "state": each.state, "checked": each.checked, "broken": list(each.broken)}
            for each in findings.invariants
        ],
        "directory": str(findings.directory),
    }


def _injection(findings: Findings, injection: Injection) -> dict[str, Any]:
    since = findings.begins_at
    hits = [{"pid": hit.pid, "name": hit.name, "at_s": round(hit.at - since, 3)} for hit in injection.hits]
    return {
        "number": injection.fault.number, "kind": injection.name, "at_s": round(injection.at - since, 3),
        "until_s": injection.until and round(injection.until - since, 3), "hits": hits, "client": injection.client,
        "missed": injection.missed,
    }  # fmt: skip


def _of_kind(findings: Findings, name: str) -> dict[str, Any]:
    injections = [each for each in findings.evidence.injections if each.name == name]
    noticed = [each for each in findings.evidence.noticed if each.kind == name]
    longest = _longest_under(findings, name)
    return {
        "kind": name,
        "injected": sum(not each.missed for each in injections),
        "missed": [each.missed for each in injections if each.missed],
        "detected": dict(Counter(each.how for each in noticed if each.how != NOT_NOTICED)),
        "detection_ms": _spread(_clear(noticed, "detection_s")),
        "recovery_ms": _spread(_clear(noticed, "recovery_s")),
        "longest_exec_s": None if longest is None else round(longest, 2),
        "bound_s": findings.evidence.bound_s(0.0),
    }


def _clear(noticed: Iterable[Noticed], name: str) -> list[float]:
    """The seconds of the hits that are not clouded; of all hits if every one is."""
    told = [(each.is_clouded, value) for each in noticed if (value := getattr(each, name)) is not None]
    return [value for is_clouded, value in told if not is_clouded] or [value for _, value in told]


def _spread(seconds: Sequence[float]) -> dict[str, float] | None:
    if not seconds:
        return None
    p90 = quantiles(seconds, n=10, method="inclusive")[-1] if len(seconds) > 1 else seconds[0]
    return {
        name: round(1000 * value, 1) for name, value in (("p50", median(seconds)), ("p90", p90), ("max", max(seconds)))
    }


def _longest_under(findings: Findings, name: str) -> float | None:
    """How long the longest exec took that overlapped a fault of this kind; None if none did."""
    spans = [(each.at, each.over_at) for each in findings.evidence.injections if each.name == name and not each.missed]
    met = [
        life.took_s
        for life in findings.evidence.witness.longest
        if any(life.submitted.at < end and life.ended_at > begin for begin, end in spans)
    ]
    return max(met, default=None)


def _load(findings: Findings) -> dict[str, Any]:
    evidence = findings.evidence
    witness = evidence.witness
    took_ms = sorted(1000 * seconds for seconds in witness.took_s)
    broken = {each.promise: len(each.broken) for each in findings.invariants}
    return {
        "execs": witness.counts["execs"],
        "right": witness.counts["right"],
        "expected_errors": dict(expected_errors(evidence)),
        "wrong": broken["every result was right"],
        "unexplained_errors": broken["errors came only where a fault explains them"],
        "twice": len(witness.twice),
        "unresolved": unresolved_count(evidence),
        "late": len(late(evidence)),
        "latency_ms": {
            name: round(took_ms[min(int(part * len(took_ms)), len(took_ms) - 1)], 1) if took_ms else None
            for name, part in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
        },
    }


# --- for a person -----------------------------------------------------------------------------------------------------


def report(findings: Findings, *, plain: bool) -> RenderableType:
    """The whole report; `plain` without table lines."""
    found = as_json(findings)
    return Group(
        _head(findings), Text(), _fault_table(found["faults"], plain=plain), _load_line(found["load"]), Text(),
        *(_promise(invariant) for invariant in findings.invariants), Text(), _foot(findings),
    )  # fmt: skip


def command_of(findings: Findings) -> str:
    """The command that runs the same plan again."""
    plan = findings.plan
    kinds = "all" if len(plan.kinds) == len(KINDS) else ",".join(kind.name for kind in plan.kinds)
    return (
        f"racepool chaos --seed {plan.seed} --seconds {plan.seconds:g} --rate {plan.rate:g} --every {plan.every_s:g} "
        f"--workers {plan.workers} --faults {kinds} --transform {findings.transform}"
    )


def _head(findings: Findings) -> RenderableType:
    plan, settings = findings.plan, findings.evidence.settings
    text = Text.assemble(("chaos", "bold"), f" seed {plan.seed}, {findings.seconds:.0f} s")
    text.append("" if findings.is_whole else f" of {plan.seconds:.0f}, interrupted", style="yellow")
    text.append(
        f", {plan.rate:g} execs a second by two clients, a fault every {plan.every_s:g} s, {plan.workers} workers\n"
        f"liveness {settings.liveness:g} s, {settings.max_attempts} attempts, queue timeout "
        f"{settings.queue_timeout:g} s, run timeout {settings.run_timeout:g} s, "
        f"transform {visible(str(findings.transform))}"
    )
    return text


def _fault_table(rows: Iterable[dict[str, Any]], *, plain: bool) -> NarrowTable:
    columns = (
        Column("fault", least=12), numbers("n"), Column("noticed by", least=12, wraps=True, optional=3),
        numbers("noticed\np50 ms"), numbers("noticed\np90 ms", 5), numbers("noticed\nmax ms", 2),
        numbers("back\np50 ms"), numbers("back\np90 ms", 4), numbers("back\nmax ms", 1), numbers("longest\nexec s"),
    )  # fmt: skip
    table = NarrowTable(columns, look(plain=plain))
    for row in rows:
        how = ", ".join(f"{name} {count}" for name, count in row["detected"].items())
        missed = f" (+{len(row['missed'])} missed)" if row["missed"] else ""
        longest = row["longest_exec_s"]
        table.add(
            row["kind"], f"{row['injected'] or NOT_TRIED}{missed}", how,
            *_cells(row["detection_ms"]), *_cells(row["recovery_ms"]),
            "" if longest is None else f"{longest:.2f}",
        )  # fmt: skip
    return table


def _cells(spread: dict[str, float] | None) -> Iterator[str]:
    return (f"{spread[name]:,.0f}" if spread else "" for name in ("p50", "p90", "max"))


def _load_line(load: dict[str, Any]) -> Text:
    errors = ", ".join(f"{count} {name}" for name, count in sorted(load["expected_errors"].items())) or "none"
    latency = ", ".join(f"{name} {value:,.0f}" for name, value in load["latency_ms"].items() if value is not None)
    bad = ("wrong", "unexplained_errors", "twice", "unresolved", "late")
    faults = ", ".join(f"{load[name]} {name.replace('_', ' ')}" for name in bad)
    return Text(
        f"load: {load['execs']} execs, {load['right']} right, expected errors: {errors}; {faults}\n"
        f"latency ms: {latency}"
    )


def _promise(invariant: Invariant) -> Text:
    if not invariant.broken:
        state = (f"{invariant.state:>9} ", _STYLES[invariant.state])
        return Text.assemble(state, f"{invariant.promise} ", (f"({invariant.checked})", "dim"))
    shown = "".join(f"\n            {visible(line)}" for line in invariant.broken[:DETAILS_SHOWN])
    more = len(invariant.broken) - DETAILS_SHOWN
    rest = f"\n            and {more} more" if more > 0 else ""
    head = f"{invariant.promise} ({invariant.checked}): {len(invariant.broken)} times"
    return Text.assemble((f"{BROKEN:>9} ", _STYLES[BROKEN]), head, shown, rest)


def _foot(findings: Findings) -> Text:
    left = f"\nnot tried: {', '.join(findings.not_tried)}" if findings.not_tried else ""
    if findings.holds and not findings.tried:
        return Text(f"no fault was done, so nothing was put to the test{left}", style="yellow")
    if findings.holds:
        cut = "" if findings.is_whole else " until then; unresolved execs were not judged"
        return Text.assemble((f"nothing broke{cut}", "green"), (left, "yellow"))
    broken = sum(bool(invariant.broken) for invariant in findings.invariants)
    place, again = visible(str(findings.directory)), visible(command_of(findings))
    head = (f"{broken} promises were broken", "bold red")
    return Text.assemble(head, f"; logs and records are in {place}\nagain: {again}")


def by_kind(findings: Findings) -> dict[str, list[float]]:
    """The instants of each kind, in seconds from the start of the load."""
    instants: defaultdict[str, list[float]] = defaultdict(list)
    for injection in findings.evidence.injections:
        instants[injection.name].append(injection.at - findings.begins_at)
    return instants
