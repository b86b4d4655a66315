"""The run's side of a driver: the process that gets the commands, and its tree of processes."""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

from benchmarks.contenders.registry import NODE_FOLDER, Contender
from benchmarks.loads import POLLED_AT
from benchmarks.process_tree import ProcessTree

ROOT: Final = Path(__file__).parents[1]
START_S: Final = 90.0
ANSWER_S: Final = 90.0
STOP_S: Final = 10.0
LOOK_S: Final = 0.5
LOG_TAIL_LINES: Final = 12
READ_BYTES: Final = 65_536


class LaneError(Exception):
    """The driver failed, hangs, or has ended. The text has the end of its log."""


class Lane:
    """A contender in a driver of its own, which starts at once. A context manager; it leaves no process behind."""

    def __init__(self, contender: Contender, loads: Path, workers: int) -> None:
        self.contender = contender
        self._log_path = loads / f"{contender.key}.log"
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603  # ours
                _program(contender, loads, workers),
                cwd=ROOT,
                env=_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C goes to the run only, which then ends the driver
            )
        self.tree = ProcessTree(self._process.pid)
        self._answers = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def started_s(self) -> float:
        """Waits for the first result. Returns the time since the import of the contender's library, in seconds."""
        return float(self._answer("started_s", START_S))

    def ask(
        self, do: str, load: str, tasks: int, *, meanwhile: Callable[[], None] | None = None, every_s: float = LOOK_S
    ) -> Any:  # noqa: ANN401  # what the driver measured
        """Sends the driver a command, and returns its answer. Calls `meanwhile` at intervals until the answer is there.

        Raises:
            LaneError: it gave none.
        """
        command = json.dumps({"do": do, "load": load, "tasks": tasks}).encode() + b"\n"
        with suppress(BrokenPipeError):  # reading the answer then fails, with a better text
            os.write(self._process.stdin.fileno(), command)  # type: ignore[union-attr]  # a pipe
        return self._answer("value", ANSWER_S, meanwhile, every_s)

    def stop(self) -> None:
        """Closes its input, so that the driver closes its pool and ends. Then kills the processes that are left."""
        self.let_end()
        try:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_S)
        finally:  # also if Ctrl-C comes a second time
            self.tree.kill()
            self._process.wait()
            self._process.stdout.close()  # type: ignore[union-attr]  # a pipe

    def let_end(self) -> None:
        """Closes the driver's input, and does not wait."""
        self.tree.pids()  # notes the children now: their parent may end before them
        with suppress(BrokenPipeError):
            self._process.stdin.close()  # type: ignore[union-attr]  # a pipe

    def _answer(
        self, name: str, patience_s: float, meanwhile: Callable[[], None] | None = None, every_s: float = LOOK_S
    ) -> Any:  # noqa: ANN401
        deadline = time.monotonic() + patience_s
        output = self._process.stdout.fileno()  # type: ignore[union-attr]  # a pipe
        while b"\n" not in self._answers:
            if select.select([output], [], [], every_s)[0]:
                read = os.read(output, READ_BYTES)
                if not read:
                    raise self._error("ended")
                self._answers += read
            elif self._process.poll() is not None:
                raise self._error(f"ended with exit code {self._process.returncode}")
            elif time.monotonic() > deadline:
                raise self._error(f"gave no answer within {patience_s:.0f} s")
            if meanwhile:
                meanwhile()
        line, _, self._answers = self._answers.partition(b"\n")
        answer: Mapping[str, Any] = json.loads(line)
        return answer[name]

    def _error(self, what: str) -> LaneError:
        tail = self._log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return LaneError("\n".join([f"{self.contender.title}: its driver {what}", *tail]))


def _program(contender: Contender, loads: Path, workers: int) -> list[str]:
    if contender.key == "piscina":
        polled_at_ms = round(POLLED_AT.timestamp() * 1000)
        return ["node", "--expose-gc", str(NODE_FOLDER / "harness.js"), str(loads), str(workers), str(polled_at_ms)]
    return [sys.executable, "-m", "benchmarks.driver", contender.key, str(loads), str(workers)]


def _environment() -> dict[str, str]:
    """Our environment without racepool's settings. The processes of every peer can import our packages."""
    base = {name: value for name, value in os.environ.items() if not name.startswith("RACEPOOL_")}
    return base | {"PYTHONPATH": str(ROOT)}
