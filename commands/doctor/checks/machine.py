"""The machine: memory, clocks, and what did not answer at all."""

from collections.abc import Iterator

from rich.filesize import decimal

from racepool.commands.doctor.facts import Facts, MachineProcess
from racepool.commands.doctor.finding import Finding, ok, problem, warning
from racepool.protocol.stats import PoolStats

LITTLE, LEAST = 0.1, 0.03
LEAST_BYTES = 64 * 2**20
SET_S = 0.1  # less than that a clock is slewed by
AHEAD_S = 2.0
APART_S = 10.0  # a worker tells its start some time after the kernel does


def memory(facts: Facts) -> Iterator[Finding]:
    """Whether there is some left, and whether the pool's own limits come before the machine's."""
    found, given = facts.memory, facts.environment.settings
    if found is None or given is None:
        return
    whose = "of the broker's control group" if found.is_group else "of this machine"
    text = f"{decimal(found.available)} {whose} are available, of {decimal(found.total)}"
    remedy = "make room, or the kernel will end processes"
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
            f"{parts} ({decimal(everything)}) is more than there is: the kernel would end it first",
            "lower RACEPOOL_BROKER_MEMORY_LIMIT, RACEPOOL_BACKLOG_BYTES or RACEPOOL_WORKER_MEMORY_LIMIT",
        )


def clock(facts: Facts) -> Iterator[Finding]:
    """Whether this machine's calendar is steady. Timeouts do not depend on it, what logs and records say does."""
    found, stats = facts.clock, facts.stats
    if found is None:
        return
    remedy = "let one program alone set the clock (timedatectl, chrony); restart the pool to have its times right"
    if abs(found.was_set_by_s) > SET_S:
        yield warning("clock", f"it was set by {found.was_set_by_s:+.1f} s while we looked", remedy)
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
        yield ok("clock", f"it was not set while we looked{', nor since the workers started' if facts.workers else ''}")


def _apart(processes: tuple[MachineProcess, ...], stats: PoolStats | None) -> Iterator[tuple[str, float]]:
    """Each worker of this machine: by how much the kernel's account of its start is later than its own."""
    told = {each.pid: each for each in stats.workers} if stats else {}
    for process in processes:
        if process.pid in told:
            worker = told[process.pid]
            yield worker.name, process.started_at - worker.started_at.timestamp()


def workers_clocks(facts: Facts) -> Iterator[Finding]:
    """Whether the clocks of workers on other hosts are ahead of ours: they would have started in our future."""
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
    """What did not come back in time."""
    for name in facts.overdue:
        yield problem(name, "could not be looked at in time", "see whether its disk or its machine hangs")
