"""Where and with what a run was made."""

import os
import platform
import subprocess
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Final

from benchmarks.contenders.registry import OURS, Contender

LIBRARIES: Final = ("pyzmq", "pydantic", "msgpack")


def machine() -> dict[str, str]:
    """The processors, the memory and the kernel."""
    fields = [line.partition(":") for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()]
    model = next((value.strip() for name, _, value in fields if name.strip() == "model name"), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": model,
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
    }


def versions(contenders: Iterable[Contender]) -> dict[str, str]:
    """Of Python, of what racepool stands on, and of each contender that is compared."""
    libraries = {library: version(library) for library in LIBRARIES}
    given = {contender.key: contender.version() for contender in contenders if contender.distribution}
    return {"Python": platform.python_version(), **libraries, **given, OURS: f"{version('racepool')}{_revision()}"}


def _revision() -> str:
    """The commit that was measured, if this is a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        described = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603
    except OSError:
        return ""
    return f" ({described})" if described else ""
