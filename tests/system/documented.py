"""The commands and code of a document, run in order in a clone of the repository.

Comments before a block, which the rendered page does not show, tell how to run it:

    <!-- not run: REASON -->       it is not run here
    <!-- service -->               it keeps running in a terminal of its own, until Ctrl-C at the end of the document
    <!-- needs: PROGRAM -->        it is skipped if this program is not installed
    <!-- with: SCRIPT -->          this script of the repository runs it, and provides what it needs
    <!-- file: NAME -->            it is written to this file, not run
    <!-- output -->                it is the standard output of the command before it; `…` stands for any text
    <!-- output within N s -->     the same; the command is repeated for up to N seconds

All other blocks of a language that can be run are run; blocks of text are not.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.programs import required
from tests.running import ROOT

FENCE = re.compile(r"^```([\w{}-]*)$")
SAYING = re.compile(r"^<!-- (not run|service|needs|with|file|output)(?:: (.+?)| within (\d+) s)? -->$")
ELLIPSIS = "\u2026"
SHELL = ("/bin/bash", "-euo", "pipefail", "-c")
PATIENCE_S = 60
RETRY_S = 0.5
STOP_S = 20
NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "racepool-*", "*.egg-info")
ADDRESSES = {"127.0.0.1:9724": "RACEPOOL_EXPORTER_PORT", "127.0.0.1:9725": "PROMETHEUS_PORT"}
"""What documents say, and who runs them may have in use; each gets a port of its own."""


class DocumentError(Exception):
    """The document breaks these rules."""


@dataclass(frozen=True)
class Block:
    """A fenced block, and its comments."""

    document: str
    line: int
    language: str
    text: str
    said: dict[str, str]


@dataclass(frozen=True)
class Step:
    """A block to run, and its expected output if there is one; it may be repeated for `within_s`."""

    block: Block
    output: str | None = None
    within_s: int = 0

    def __str__(self) -> str:
        return f"{self.block.document}:{self.block.line}"


def steps(document: str, text: str) -> list[Step]:
    """Everything to run or write, in order.

    Raises:
        DocumentError: a block is not run and does not say why.
    """
    found: list[Step] = []
    previous: Block | None = None
    for block in _blocks(document, text):
        if "output" in block.said:
            if previous is None or not found or found[-1].block is not previous:
                raise DocumentError(f"{document}:{block.line}: this is the output of nothing that is run")
            found[-1] = Step(previous, block.text, int(block.said["output"] or 0))
        elif block.language in {"bash", "python"}:
            if "not run" not in block.said:
                found.append(Step(block))
            elif len(block.said["not run"]) < len("a reason"):
                raise DocumentError(f"{document}:{block.line}: `not run` without a reason")
        elif block.language != "text" or block.said:
            raise DocumentError(f"{document}:{block.line}: {block.language or 'no language'} is neither run nor text")
        previous = block
    return found


def _blocks(document: str, text: str) -> Iterator[Block]:
    said: dict[str, str] = {}
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        if saying := SAYING.match(line):
            said[saying[1]] = saying[2] or saying[3] or ""
        elif line.startswith("<!--"):
            raise DocumentError(f"{document}:{number}: no such directive: {line}")
        elif fence := FENCE.match(line):
            body = []
            for _, inner in lines:
                if inner == "```":
                    break
                body.append(inner)
            yield Block(document, number, fence[1], "\n".join(body), said)
            said = {}
        elif line.strip() and said:
            raise DocumentError(f"{document}:{number}: {said} is said about no block")


def matches(pattern: str, printed: str) -> bool:
    """Whether the output matches the document line by line; an ellipsis matches any text."""
    expression = r"[\s\S]*?".join(re.escape(part) for part in _plain(pattern).split(ELLIPSIS))
    return re.fullmatch(expression, _plain(printed)) is not None


def _plain(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())


@dataclass
class Reader:
    """A reader who types the commands of a document, in a copy of the repository at `folder`."""

    folder: Path
    run_dir: Path
    done: list[Step] = field(default_factory=list)
    services: list["subprocess.Popen[str]"] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._ports = {address: f"127.0.0.1:{_free_port()}" for address in ADDRESSES}
        shutil.copytree(ROOT, self.folder, ignore=NOT_COPIED, dirs_exist_ok=True)
        (self.folder / ".venv").symlink_to(sys.prefix)
        configuration = self.folder / "deploy" / "prometheus" / "prometheus.yml"
        hurried = configuration.read_text().replace("scrape_interval: 15s", "scrape_interval: 5s")
        configuration.write_text(self._with_ports(hurried))
        base = {name: value for name, value in os.environ.items() if not name.startswith("RACEPOOL_")}
        ports = {ADDRESSES[address]: own.rpartition(":")[2] for address, own in self._ports.items()}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._env = base | ports | {"PATH": path, "RACEPOOL_DIR": str(self.run_dir), "COLUMNS": "100"}

    def follow(self, step: Step) -> None:
        """Runs the block and compares its output with the document."""
        if program := step.block.said.get("needs"):
            required(program)
        text = self._with_ports(step.block.text)
        if name := step.block.said.get("file"):
            (self.folder / name).write_text(text + "\n", encoding="utf-8")
        elif "service" in step.block.said:
            self.services.append(self._started(text))
        else:
            self._run(step, text)

    def leave(self) -> None:
        """Presses Ctrl-C in each terminal, the last one first."""
        for service in reversed(self.services):
            assert service.poll() is None, f"it ended by itself: {service.args!r}"
            os.killpg(service.pid, signal.SIGINT)
            service.wait(STOP_S)

    def _run(self, step: Step, text: str) -> None:
        deadline = time.monotonic() + step.within_s
        while True:
            done = self._ended(step.block, text)
            is_shown = step.output is None or matches(self._with_ports(step.output), done.stdout)
            if (done.returncode == 0 and is_shown) or time.monotonic() >= deadline:
                break
            time.sleep(RETRY_S)
        assert done.returncode == 0, f"{step} ended with {done.returncode}\n{done.stdout}{done.stderr}"
        assert is_shown, f"{step} printed\n{done.stdout}{done.stderr}\nwhere this is shown:\n{step.output}"

    def _ended(self, block: Block, text: str) -> "subprocess.CompletedProcess[str]":
        is_python = block.language == "python"
        command = [sys.executable, block.said.get("with", "-")] if is_python else [*SHELL, text]
        given = text if is_python else ""
        return subprocess.run(
            command, cwd=self.folder, env=self._env, input=given, capture_output=True, text=True, timeout=PATIENCE_S,
            check=False,
        )  # fmt: skip

    def _started(self, text: str) -> "subprocess.Popen[str]":
        with (self.folder / f"terminal-{len(self.services)}.log").open("w") as screen:
            return subprocess.Popen(
                [*SHELL, f"exec {text}"], cwd=self.folder, env=self._env, stdout=screen,
                stderr=subprocess.STDOUT, text=True, start_new_session=True,
            )  # fmt: skip

    def _with_ports(self, text: str) -> str:
        for address, own in self._ports.items():
            text = text.replace(address, own)
        return text


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port
