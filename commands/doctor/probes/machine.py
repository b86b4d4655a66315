"""The machine: memory, clocks, file limits."""

import resource
import time
from pathlib import Path

from racepool.commands.doctor.facts import Memory

GROUPS = Path("/sys/fs/cgroup")
UNLIMITED = 2**60  # cgroup v1 has a number for "no limit", somewhat below 2**63


def hard_file_limit() -> int:
    """The most descriptors that a process of this user may have."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return UNLIMITED if limit == resource.RLIM_INFINITY else limit


def wall_offset_s() -> float:
    """The wall clock minus the monotonic clock."""
    return time.time() - time.monotonic()


def memory(broker_pid: int | None) -> Memory:
    """The memory for the broker; without a broker, the memory for this process."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    kilobytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    total, available = kilobytes["MemTotal"] * 1024, kilobytes["MemAvailable"] * 1024
    group = _group_memory(broker_pid)
    if group is None or group[0] >= total:
        return Memory(total, available, is_group=False)
    limit, used = group
    return Memory(limit, min(available, max(limit - used, 0)), is_group=True)


def _group_memory(broker_pid: int | None) -> tuple[int, int] | None:
    """Limit and use of the control group with the lowest limit around the process; None without a limit."""
    try:
        lines = Path(f"/proc/{broker_pid or 'self'}/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            found += _limits(GROUPS, path, "memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            found += _limits(GROUPS / "memory", path, "memory.limit_in_bytes", "memory.usage_in_bytes")
    return min(found, default=None)


def _limits(root: Path, path: str, limit_name: str, used_name: str) -> list[tuple[int, int]]:
    """Limits and uses of the group and of those around it. In a container, the root is the container's group."""
    inner = root / path.lstrip("/")
    found = []
    for folder in (inner, *inner.parents):
        if not folder.is_relative_to(root):
            break
        try:
            limit = (folder / limit_name).read_text(encoding="ascii").strip()
            used = (folder / used_name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if limit != "max" and int(limit) < UNLIMITED:
            found.append((int(limit), int(used)))
    return found
