"""The installation: interpreter, packages, time zones."""

from collections.abc import Iterator

from racepool.commands.doctor.facts import Facts
from racepool.commands.doctor.finding import Finding, ok, problem

OLDEST_PYTHON = (3, 11)


def versions(facts: Facts) -> Iterator[Finding]:
    """The versions of racepool, Python, ZeroMQ and the kernel."""
    here = facts.installation
    if here is None:
        return
    python = ".".join(map(str, here.python))
    text = f"racepool {here.racepool}, Python {python}, {here.zmq}, {here.kernel}"
    if here.python < OLDEST_PYTHON:
        yield problem("versions", text, "install Python 3.11 or newer")
    elif not here.kernel.startswith("Linux "):
        yield problem("versions", text, "run it on Linux: racepool needs its kernel to notice the end of a process")
    else:
        yield ok("versions", text)


def time_zone(facts: Facts) -> Iterator[Finding]:
    """Whether the tote's time zone is known: race times need it."""
    if facts.installation is None:
        return
    error = facts.installation.zone_error
    if error:
        yield problem("time zone", f"Pacific/Auckland is not known ({error})", "pip install tzdata")
    else:
        yield ok("time zone", "Pacific/Auckland is known")


def extras(facts: Facts) -> Iterator[Finding]:
    """Which optional parts are installed; none is necessary."""
    for extra in facts.installation.extras if facts.installation else ():
        if extra.missing:
            lacks = f"{extra.name} is not installed (it needs {', '.join(extra.missing)})"
            yield ok("extras", lacks, f"if you want it: {extra.remedy}")
        else:
            yield ok("extras", f"{extra.name} is installed")
