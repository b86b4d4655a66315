"""The command line of `racepool chaos`: wrong usage, help, and no cost for other commands."""

import subprocess
import sys

import pytest

from racepool.commands.chaos.kinds import KINDS
from tests.running import RACEPOOL


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([RACEPOOL, "chaos", *arguments], capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--faults", "worker-kil"), "'worker-kil' is no kind of fault; there are worker-kill,"),
        (("--faults", ""), "leaves no kind of fault"),
        (("--seconds", "1"), "is not in the range"),
        (("--seconds", "soon"), "is not a valid float"),
        (("--rate", "0"), "is not in the range"),
        (("--workers", "1"), "is not in the range"),
        (("--seed", "-1"), "is not in the range"),
        (("--json", "/proc/nobody/x.json"), "/proc/nobody/x.json: No such file or directory"),
        (("--plot", "/proc/nobody/x.png"), "/proc/nobody/x.png: No such file or directory"),
        (("surprise",), "unexpected extra argument"),
    ],
)
def test_bad_usage_is_told_with_its_own_exit_code(arguments: tuple[str, ...], words: str) -> None:
    refused = run(*arguments)

    assert refused.returncode == 2
    assert words in " ".join(refused.stderr.split())


def test_help_names_every_kind_of_fault() -> None:
    lines = [line.split() for line in run("--help").stdout.splitlines()]

    assert [words[0] for words in lines if words and words[0] in KINDS] == list(KINDS)


def test_the_lab_is_not_imported_for_other_commands() -> None:
    code = "import sys, racepool.commands.group;"
    code += " print([n for n in sys.modules if n in ('racepool.commands.chaos.lab', 'matplotlib')])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)

    assert found.stdout.strip() == "[]"
