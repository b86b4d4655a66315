"""One contender in a process of its own: `python -m benchmarks.driver KEY LOADS WORKERS`, controlled by lines of JSON.

It answers `{"started_s": …}` when the first result is there, then each `{"do": …, "load": …, "tasks": …}` with
`{"value": …}`; it ends with its standard input. A process of its own gives each contender the same idle machine, and
makes its memory and CPU those of a tree of processes.
"""

import asyncio
import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.contenders.registry import contender
from benchmarks.loads import NORMALISED, read_loads
from benchmarks.measures import Caller

MAX_LINE_BYTES = 65_536
DOES = {
    "results": Caller.results,
    "sustained": Caller.sustained_s,
    "together": Caller.together_ms,
    "idle": Caller.idle_ms,
    "bursts": Caller.bursts_ms,
    "submit": Caller.submit_us,
    "stall": Caller.stall_ms,
    "bare_stall": Caller.bare_stall_ms,
}


async def drive(key: str, folder: Path, workers: int, answers: int) -> None:
    """Opens the pool and carries out the commands. The end of standard input cancels a command that still runs."""
    commands: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    listening = asyncio.create_task(_listen(commands, asyncio.current_task()))
    loads = read_loads(folder)
    started_at = time.perf_counter()
    async with contender(key).opener()(workers) as submit:
        await submit(loads[NORMALISED].races[0])
        _answer(answers, {"started_s": time.perf_counter() - started_at})
        caller = Caller(submit, loads)
        while not listening.done():
            command = await commands.get()
            value = await DOES[command["do"]](caller, command["load"], command["tasks"])
            _answer(answers, {"value": value})


async def _listen(commands: "asyncio.Queue[dict[str, Any]]", driving: "asyncio.Task[None] | None") -> None:
    """Ends the driver without a signal handler: forked processes would inherit one."""
    reader = asyncio.StreamReader(limit=MAX_LINE_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        commands.put_nowait(json.loads(line))
    if driving is not None:
        driving.cancel()


def _answer(answers: int, content: dict[str, Any]) -> None:
    line = memoryview(json.dumps(content).encode() + b"\n")
    while line:
        line = line[os.write(answers, line) :]


def main() -> None:
    """Keeps standard output for the answers: what libraries print goes to standard error."""
    answers = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    key, folder, workers = sys.argv[1:]
    with suppress(asyncio.CancelledError):
        asyncio.run(drive(key, Path(folder), int(workers), answers))


if __name__ == "__main__":
    main()
