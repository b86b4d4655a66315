"""The machine: memory, clocks, and probes that did not end."""

from collections.abc import Iterator

from rich.filesize import decimal

from racepool.commands.doctor.facts import Facts, MachineProcess
from racepool.commands.doctor.finding import Finding, ok, problem, warning
from racepool.protocol.stats import PoolStats

LITTLE, LEAST = 0.1, 0.03
LEAST_BYTES = 64 * 2**20
SET_S = 0.1  # a smaller change is normal: a clock that is slewed
AHEAD_S = 2.0
APART_S = 10.0  # a worker notes its start some time after the kernel does


def memory(facts: Facts) -> Iterator[Finding]:
    """Whether enough memory is free, and whether the pool's own limits are below the machine's."""
    found, given = facts.memory, facts.environment.settings
    if found is None or given is None:
        return
    whose = "of the broker's control group" if found.is_group else "of this machine"
    text = f"{decimal(found.available)} {whose} are available, of {decimal(found.total)}"
    remedy = "free some memory, or the kernel will kill processes"
    if found.available < max(LEAST * found.total, LEAST_BYTES):
        yield problem("memory", text, remedy)
    elif found.available < LITTLE * found.total:
        yield warning("memory", text, remedy)
    else:
        yield ok("memory", text)
    limit = given.broker_memory_limit
    everything = limit + given.workers * given.worker_memory_limit
    if not limit:
        yield warning("memory", "the broker has no memory limit", "set RACEPOOL_BROKER_MEMORY_LIMIT")
    elif everything > found.total:
        parts = "the broker's limit" if limit > found.total else "the limits of broker and workers together"
        yield warning(
            "memory",
            f"{parts} ({decimal(everything)}) is more than there is: the kernel would kill first",
            "lower RACEPOOL_BROKER_MEMORY_LIMIT, RACEPOOL_BACKLOG_BYTES or RACEPOOL_WORKER_MEMORY_LIMIT",
        )


def clock(facts: Facts) -> Iterator[Finding]:
    """Whether the wall clock is steady. Timeouts do not depend on it, but times in logs and records do."""
    found, stats = facts.clock, facts.stats
    if found is None:
        return
    remedy = "let only one program set the clock (timedatectl, chrony); restart the pool to correct its times"
    if abs(found.was_set_by_s) > SET_S:
        yield warning("clock", f"it was set by {found.was_set_by_s:+.1f} s during this check", remedy)
        return
    latest = max((each.at.timestamp() for each in stats.recent_events), default=0.0) if stats else 0.0
    if latest > found.now + AHEAD_S:
        yield warning("clock", f"the broker's clock is {latest - found.now:.0f} s ahead of ours", remedy)
        return
    apart = {name: apart_s for name, apart_s in _apart(facts.workers, stats) if abs(apart_s) > APART_S}
    if apart:
        name, apart_s = max(apart.items(), key=lambda item: abs(item[1]))
        yield warning("clock", f"it was set by {apart_s:+.0f} s since {name} started", remedy)
    else:
        yield ok(
            "clock", f"it was not set during this check{', nor since the workers started' if facts.workers else ''}"
        )


def _apart(processes: tuple[MachineProcess, ...], stats: PoolStats | None) -> Iterator[tuple[str, float]]:
    """For each worker here, how much later its start is by the kernel than by the worker itself."""
    told = {each.pid: each for each in stats.workers} if stats else {}
    for process in processes:
        if process.told_pid in told:
            worker = told[process.told_pid]
            yield worker.name, process.started_at - worker.started_at.timestamp()


def workers_clocks(facts: Facts) -> Iterator[Finding]:
    """Whether clocks of other hosts are ahead of ours: a worker there would have started in our future."""
    found, stats = facts.clock, facts.stats
    if found is None or stats is None:
        return
    for worker in stats.workers:
        ahead_s = worker.started_at.timestamp() - found.now
        if ahead_s > AHEAD_S:
            yield warning(
                "clock", f"{worker.name}'s host is at least {ahead_s:.0f} s ahead of ours", "set the clocks by NTP"
            )


def overdue(facts: Facts) -> Iterator[Finding]:
    """Which probes did not end in time."""
    for name in facts.overdue:
        yield problem(name, "could not be checked in time", "find out whether its disk or its machine hangs")
