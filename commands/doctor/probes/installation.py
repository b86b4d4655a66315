"""Reads what is installed here."""

import importlib.metadata
import platform
import re
import sys
import zoneinfo

import zmq

from racepool.commands.doctor.facts import Extra, Installation
from racepool.protocol import VERSION
from racepool.protocol.extras import DISTRIBUTION, remedy

ZONE = "Pacific/Auckland"  # of the tote
FOR_DEVELOPERS = {"dev"}
_REQUIREMENT = re.compile(r"""([A-Za-z0-9._-]+).*extra\s*==\s*['"]([A-Za-z0-9._-]+)['"]""")


def installation() -> Installation:
    """The versions of the interpreter, its packages and the kernel."""
    return Installation(
        racepool=VERSION,
        python=sys.version_info[:3],
        zmq=f"pyzmq {zmq.__version__} (libzmq {zmq.zmq_version()})",
        kernel=f"{platform.system()} {platform.release()}",
        zone_error=_zone_error(),
        extras=_extras(),
    )


def _zone_error() -> str:
    try:
        zoneinfo.ZoneInfo(ZONE)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        return str(error) or type(error).__name__
    return ""


def _extras() -> tuple[Extra, ...]:
    """The extras in our own metadata; none if racepool runs without metadata."""
    try:
        requirements = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return ()
    needs: dict[str, list[str]] = {}
    for requirement in requirements:
        found = _REQUIREMENT.match(requirement)
        if found and found[2] not in FOR_DEVELOPERS:
            needs.setdefault(found[2], []).append(found[1])
    return tuple(
        Extra(name, tuple(each for each in needed if not _is_installed(each)), remedy(name))
        for name, needed in needs.items()
    )


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
