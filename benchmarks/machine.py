"""The machine and the software of a run."""

import os
import platform
import subprocess
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Final

from benchmarks.contenders.registry import OURS, Contender

LIBRARIES: Final = ("pyzmq", "pydantic")


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
    """The versions of Python, of the libraries that racepool uses, and of each contender."""
    libraries = {library: version(library) for library in LIBRARIES}
    given = {contender.key: contender.version() for contender in contenders}
    node = {"Node": _said("node", "--version")} if "piscina" in given else {}
    ours = f"{given[OURS]} {_said('git', '-C', str(Path(__file__).parent), 'describe', '--always', '--dirty')}".strip()
    return {"Python": platform.python_version(), **node, **libraries, **given | {OURS: ours}}


def _said(*command: str) -> str:
    """The output of a program; empty if it is not installed, or if git runs outside of a checkout."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603
    except OSError:
        return ""
