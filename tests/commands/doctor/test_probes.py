"""The probes, as far as they need no broken set-up: what they read, and that they leave nothing open."""

from pathlib import Path

import pytest

from racepool.commands.doctor.probes import machine
from racepool.commands.doctor.probes.run_directory import endpoint, lock, run_directory, volume
from racepool.protocol.endpoints import SOCKETS
from racepool.protocol.settings import Settings

MIB = 2**20


def group(folder: Path, limit: str, used: int) -> None:
    """Writes the files of a control group, as both versions of cgroups have them."""
    folder.mkdir(parents=True, exist_ok=True)
    for limit_name, used_name in (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        (folder / limit_name).write_text(f"{limit}\n")
        (folder / used_name).write_text(f"{used}\n")


def test_memory_of_a_control_group_is_its_limit_less_its_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "GROUPS", tmp_path)
    for folder in (tmp_path, tmp_path / "memory"):
        group(folder, str(64 * MIB), 60 * MIB)

    found = machine.memory(None)

    assert (found.total, found.available, found.is_group) == (64 * MIB, 4 * MIB, True)


def test_control_group_without_a_limit_leaves_the_memory_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "GROUPS", tmp_path)
    group(tmp_path, "max", 60 * MIB)

    assert not machine.memory(None).is_group


def test_limits_of_outer_control_groups_count(tmp_path: Path) -> None:
    group(tmp_path / "outer", str(64 * MIB), 1)
    group(tmp_path / "outer" / "inner", str(128 * MIB), 2)

    found = machine._limits(tmp_path, "/outer/inner", "memory.max", "memory.current")

    assert found == [(128 * MIB, 2), (64 * MIB, 1)]


def test_file_system_is_that_of_the_innermost_mount() -> None:
    inner, outer = volume(Path("/proc/self")), volume(Path("/"))

    assert inner is not None
    assert outer is not None
    assert inner.kind == "proc"
    assert outer.kind != "proc"


@pytest.mark.parametrize("is_there", [True, False])
def test_run_directory_that_another_user_could_replace_is_told_before_it_is_made(
    tmp_path: Path, *, is_there: bool
) -> None:
    directory = tmp_path / "run"
    settings = Settings(dir=directory, **dict.fromkeys(SOCKETS, "tcp://127.0.0.1:1"))
    if is_there:
        directory.mkdir(mode=0o700)
    assert run_directory(settings).refusal == ""

    tmp_path.chmod(0o777)

    assert f"other users may write to {tmp_path}" in run_directory(settings).refusal


@pytest.mark.parametrize("is_there", [True, False])
def test_probes_leave_no_descriptor_open(run_dir: Path, *, is_there: bool) -> None:
    if is_there:
        (run_dir / "broker.lock").write_text("50\n")
    settings = Settings(dir=run_dir)
    before = len(list(Path("/proc/self/fd").iterdir()))

    found = [lock(settings) for _ in range(3)]
    states = [endpoint("endpoint", address).state for address in (f"ipc://{run_dir}/none.ipc", "tcp://127.0.0.1:1")]

    assert len(list(Path("/proc/self/fd").iterdir())) <= before
    assert {(each.is_there, each.holder_pid) for each in found} == {(is_there, None)}
    assert states == ["missing", "refused"]
