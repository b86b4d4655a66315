import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from benchmarks.process_tree import CALLER, Part, ProcessTree
from tests.running import state_of

PARENT = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time\\nwhile True: time.process_time()"])
held = os.memfd_create("held")
os.write(held, bytes(50_000_000))
print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def parent() -> Iterator["subprocess.Popen[str]"]:
    """A process with a busy child, which lives on after its parent."""
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def child_of(process: "subprocess.Popen[str]") -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def test_child_is_in_the_tree_and_its_cpu_is_told_apart(
    parent: "subprocess.Popen[str]", wait_until: Callable[..., None]
) -> None:
    child, tree = child_of(parent), ProcessTree(parent.pid)

    assert tree.pids() == sorted([parent.pid, child])
    wait_until(lambda: tree.cpu()[Part("worker", "main")] > 200e6)
    assert set(tree.cpu()) == {Part(CALLER, "main"), Part("worker", "main")}
    tree.kill()


def test_memory_that_is_mapped_by_nobody_counts(parent: "subprocess.Popen[str]") -> None:
    child_of(parent)
    tree = ProcessTree(parent.pid)

    assert 50e6 < tree.memory_bytes() < 150e6
    tree.kill()


def test_child_is_ended_though_its_parent_ended_before(
    parent: "subprocess.Popen[str]", wait_until: Callable[..., None]
) -> None:
    child, tree = child_of(parent), ProcessTree(parent.pid)
    tree.pids()
    parent.kill()
    parent.wait()

    assert tree.pids() == [child]
    tree.kill()
    wait_until(lambda: not state_of(child))
    assert tree.pids() == []
