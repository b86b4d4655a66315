"""The broker: whether it answers, and how near it is to its limits."""

from collections.abc import Iterator

from rich.filesize import decimal

from racepool.commands.doctor.facts import Facts
from racepool.commands.doctor.finding import Finding, ok, problem, told, warning
from racepool.protocol import VERSION
from racepool.protocol.messages import PROTOCOL_VERSION

CROWDED, FULL = 0.5, 0.8
OWN_FILES = 64  # the same number as in racepool.broker.resource_watch
FILES_PER_WORKER = 3
SPARE_FILES = 16
SUPERVISOR_FILES = 256  # minfds of supervisord.conf
SLOW_MS = 200.0


def answers(facts: Facts) -> Iterator[Finding]:
    """Whether a broker answers, and how soon."""
    answer = facts.answer
    if answer is None:
        return
    if answer.error:
        yield told("broker", answer.error)
    elif answer.stats is None:
        yield problem(
            "broker",
            f"answers in a way that racepool {VERSION} does not understand (it is {answer.version or 'unknown'})",
            "install the same version for both",
        )
    else:
        broker = answer.stats.broker
        here = facts.broker.pid if facts.broker else broker.pid
        namespace = "" if here == broker.pid else f" (pid {broker.pid} in its own pid namespace)"
        text = f"pid {here}{namespace} answered in {answer.took_ms:.0f} ms; up for {broker.uptime_s:.0f} s"
        if answer.took_ms > SLOW_MS:
            yield warning("broker", text, "find out what keeps the machine busy: processors, swap, a flood of requests")
        else:
            yield ok("broker", text)


def versions(facts: Facts) -> Iterator[Finding]:
    """Whether the broker has our version."""
    answer = facts.answer
    if answer is None or answer.version is None:
        return
    protocol = answer.protocol_version
    if protocol != PROTOCOL_VERSION:
        yield problem(
            "broker version",
            f"the broker ({answer.version}) speaks protocol {protocol}, we ({VERSION}) speak {PROTOCOL_VERSION}",
            "install the same version for both, and restart the older side",
        )
    elif answer.version != VERSION:
        yield warning(
            "broker version",
            f"the broker is {answer.version}, we are {VERSION}; both speak protocol {protocol}",
            "restart the broker if it was updated since its start",
        )
    else:
        yield ok("broker version", f"{answer.version} with protocol {protocol}, the same as ours")


def memory(facts: Facts) -> Iterator[Finding]:
    """How near the broker is to its memory limit, at which it ends."""
    given, stats = facts.environment.settings, facts.stats
    if given is None or stats is None or not given.broker_memory_limit:
        return
    used, limit = stats.broker.rss_bytes, given.broker_memory_limit
    text = f"the broker uses {decimal(used)} of the {decimal(limit)} at which it is replaced"
    if used > FULL * limit:
        yield warning("broker memory", text, "find the client that submits without end, or raise the limit")
    else:
        yield ok("broker memory", text)


def files(facts: Facts) -> Iterator[Finding]:
    """Whether the broker has enough descriptors: libzmq aborts a process that has none left."""
    given, stats, broker = facts.environment.settings, facts.stats, facts.broker
    if given is None:
        return
    limit = broker.file_limit if broker and broker.file_limit is not None else facts.hard_file_limit
    workers = stats.expected_workers if stats else given.workers
    needed = OWN_FILES + FILES_PER_WORKER * workers
    clients = limit - needed
    remedy = "raise the hard limit of open files (ulimit -Hn, LimitNOFILE) and restart the pool"
    if broker and broker.open_files is not None:
        text = f"the broker has {broker.open_files} of {limit} open"
        if broker.open_files > FULL * limit:
            yield problem("open files", text, remedy)
            return
    else:
        text = f"a process may have {limit} open"
    if clients < SPARE_FILES:
        yield problem("open files", f"{text}, and {workers} workers need all of them", remedy)
    elif broker is None and limit < SUPERVISOR_FILES:
        yield problem("open files", f"{text}; supervisord does not start with less than {SUPERVISOR_FILES}", remedy)
    elif broker and broker.open_files is not None and broker.open_files > CROWDED * limit:
        yield warning("open files", text, remedy)
    else:
        yield ok("open files", f"{text}; with {workers} workers there is room for {clients} clients")


def backlog(facts: Facts) -> Iterator[Finding]:
    """Whether tasks pile up."""
    given, stats = facts.environment.settings, facts.stats
    if given is None or stats is None:
        return
    depth, limit = stats.queue_depth - stats.held_by_clients, stats.backlog_limit
    oldest_s = stats.oldest_queued_s or 0.0
    text = f"{depth} of {limit} tasks wait at the broker"
    if oldest_s:
        text += f", the oldest for {oldest_s:.1f} s"
    remedy = "add workers (RACEPOOL_WORKERS), or submit less"
    if depth > FULL * limit:
        yield problem("backlog", text, remedy)
    elif depth > CROWDED * limit or oldest_s > CROWDED * given.queue_timeout:
        yield warning("backlog", text, remedy)
    else:
        yield ok("backlog", text)


def dead_tasks(facts: Facts) -> Iterator[Finding]:
    """Whether there are dead tasks."""
    if facts.dead is None:
        return
    count, unread = facts.dead.count, facts.dead.unread
    if count:
        noun = "dead task is" if count == 1 else "dead tasks are"
        yield warning("dead tasks", f"{count} {noun} kept", "`racepool dead list` shows why")
    if unread:
        noun = "file" if unread == 1 else "files"
        yield warning("dead tasks", f"{unread} {noun} of dead tasks cannot be read", "`racepool dead list` names them")
    if not count and not unread:
        yield ok("dead tasks", "none")
