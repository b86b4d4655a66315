"""The whole command with real pools. The scale is too small for figures that mean something."""

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.measured import load_measured
from benchmarks.process_tree import ProcessTree
from tests.running import ROOT

pytestmark = pytest.mark.system
COMMAND = [sys.executable, "-m", "benchmarks"]
SECTIONS = [
    "Goals",
    "In pictures",
    "Throughput, tasks a second",
    "Latency, ms",
    "The caller's event loop",
    "Start-up and memory",
    "CPU per task, µs",
    "The broker at scale",
    "How it was measured",
]


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=90, check=False)


def test_quick_run_writes_a_report_with_every_section_and_figure(tmp_path: Path) -> None:
    finished = run("--quick", "--out", str(tmp_path))

    assert finished.returncode == 0, finished.stderr
    report = (tmp_path / "report.md").read_text()
    assert re.findall(r"^## (.*)$", report, re.MULTILINE) == SECTIONS
    pictures = re.findall(r"\]\((.*\.png)\)", report)
    assert len(pictures) == 3
    assert all((tmp_path / picture).stat().st_size > 10_000 for picture in pictures)
    measured = load_measured(tmp_path)
    assert measured is not None
    assert all(set(by_contender) == {"racepool", "ppe"} for by_contender in measured.figures.values())
    assert all(figure > 0 for name, each in measured.figures.items() if name.startswith("throughput")
               for figures in each.values() for figure in figures)  # fmt: skip
    peaks = measured.figures["memory at its peak"]
    assert all(10e6 < peak < 2e9 for figures in peaks.values() for peak in figures)
    parts = {part.process for part in measured.cpu["raw"]["racepool"]}
    assert parts <= {"caller", "broker", "worker", "supervisord", "supervisord's watchdog"}
    assert "worker" in parts


def test_interrupted_run_leaves_no_process_behind(tmp_path: Path, wait_until: Callable[..., None]) -> None:
    command = [*COMMAND, "--only", "ppe", "--rounds", "1", "--scale", "50", "--out", str(tmp_path / "out")]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        tree = ProcessTree(process.pid)
        wait_until(lambda: len(tree.pids()) > 12, timeout=30)  # both pools are open
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)

    assert process.returncode == 130
    assert "interrupted; nothing was written" in errors
    assert tree.pids() == []
    assert not (tmp_path / "out").exists()


def test_drivers_end_with_a_run_that_was_killed(tmp_path: Path, wait_until: Callable[..., None]) -> None:
    command = [*COMMAND, "--only", "ppe", "--rounds", "1", "--scale", "50", "--out", str(tmp_path / "out")]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        tree = ProcessTree(process.pid)
        wait_until(lambda: len(tree.pids()) > 12, timeout=30)
        process.kill()

    wait_until(lambda: tree.pids() == [], timeout=15)
