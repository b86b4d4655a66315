"""The workers: whether all are there, alive, and of one version."""

from collections.abc import Iterator

from racepool.commands.doctor.facts import Facts
from racepool.commands.doctor.finding import Finding, ok, problem, warning

RECENT_S = 60.0
MANY_LOSSES = 3


def number(facts: Facts) -> Iterator[Finding]:
    """Whether there are as many workers as expected."""
    given, stats = facts.environment.settings, facts.stats
    if given is None or stats is None:
        return
    there, expected = stats.total_workers, stats.expected_workers
    text = f"{there} of {expected} are there, {stats.active_workers} busy"
    if stats.degraded:
        yield problem("workers", f"degraded: {text}", "look at the workers' logs, and at the line `programs` below")
    elif there > expected:
        yield warning("workers", f"{text}: more than the broker expects", "set RACEPOOL_WORKERS for broker and workers")
    else:
        yield ok("workers", text)
    if given.workers != expected:
        yield warning(
            "workers",
            f"the broker expects {expected}, RACEPOOL_WORKERS is {given.workers} here",
            "run this command in the pool's environment, or restart the pool",
        )


def frozen(facts: Facts) -> Iterator[Finding]:
    """Whether a worker is stopped, by SIGSTOP or a debugger; also one that the broker has forgotten."""
    programs = (facts.supervision.programs if facts.supervision else None) or ()
    names = {each.pid: each.name for each in programs}
    processes = [*facts.workers, *(each.process for each in programs if each.process and each.group == "worker")]
    for pid in sorted({process.pid for process in processes if process.state in "Tt"}):
        yield problem(
            "workers",
            f"{names.get(pid, 'a worker')} (pid {pid}) is frozen",
            f"kill -CONT {pid}; if it stays frozen, it is killed and replaced",
        )


def heartbeats(facts: Facts) -> Iterator[Finding]:
    """Whether a worker has been silent for a long time."""
    given, stats = facts.environment.settings, facts.stats
    if given is None or stats is None or not stats.workers:
        return
    oldest = max(stats.workers, key=lambda worker: worker.last_heartbeat_age_s)
    age_s = oldest.last_heartbeat_age_s
    text = f"the oldest is {oldest.name}'s, of {age_s:.1f} s ago (liveness {given.liveness:g} s)"
    if age_s > given.liveness:
        yield warning(
            "heartbeats",
            text,
            "one long C call silences a worker; make sure that RACEPOOL_LIVENESS is the same as the pool's",
        )
    elif age_s > given.liveness / 2:
        yield warning("heartbeats", text, "the machine may be overloaded, or the network slow")
    else:
        yield ok("heartbeats", text)


def versions(facts: Facts) -> Iterator[Finding]:
    """Whether all workers have the broker's version."""
    stats = facts.stats
    if stats is None or not stats.workers:
        return
    others = [f"{each.name} is {each.version}" for each in stats.workers if each.version != stats.broker.version]
    if others:
        yield warning(
            "worker versions", f"{', '.join(others)}; the broker is {stats.broker.version}", "restart the workers"
        )
    else:
        yield ok("worker versions", f"all are {stats.broker.version}")


def losses(facts: Facts) -> Iterator[Finding]:
    """Whether workers are lost one after the other."""
    stats, clock = facts.stats, facts.clock
    if stats is None or clock is None:
        return
    since = clock.now - RECENT_S
    lost = [each for each in stats.recent_events if each.event == "worker_lost" and each.at.timestamp() > since]
    if len(lost) < MANY_LOSSES:
        return
    reasons = ", ".join(sorted({each.reason or "unknown" for each in lost}))
    yield warning(
        "workers",
        f"{len(lost)} were lost within the last minute ({reasons})",
        "a race may kill them: look at `racepool dead list` and the workers' logs",
    )
