"""Runs the command many times with standard outputs of all kinds, in forks of one process that has imported it.

Reads a JSON list of runs from standard input, each with `arguments`, `output` and `encoding`; prints a JSON list of
exit code, output (as base64) and errors of each.
"""

import base64
import io
import json
import os
import sys
import tempfile
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

from racepool.commands import entry, group

CRASHED = 99
AT_EXIT = 120  # as Python ends a program whose output cannot be flushed


def redirect(output: str, folder: Path) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(os.open(folder / "err", os.O_WRONLY | os.O_CREAT), 2)
    if output == "closed":
        os.close(1)
    elif output == "gone":
        reader, writer = os.pipe()
        os.dup2(writer, 1)
        os.close(reader)
        os.close(writer)
    else:
        os.dup2(os.open("/dev/full" if output == "full" else folder / "out", os.O_WRONLY | os.O_CREAT), 1)


def run(arguments: list[str], output: str, encoding: str) -> int:
    os.environ["PYTHONIOENCODING"] = encoding  # for the programs that replace this process
    if output == "closed":
        sys.stdout = None
    else:
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "wb", closefd=False), encoding)
    sys.stderr = io.TextIOWrapper(io.FileIO(2, "wb", closefd=False), encoding, "backslashreplace", write_through=True)
    sys.argv = ["racepool", *arguments]
    try:
        entry.main()
        code: Any = 0
    except SystemExit as error:
        code = error.code or 0
    except BaseException:  # noqa: BLE001  # as the interpreter does
        traceback.print_exc()
        code = CRASHED
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
        sys.stderr.flush()
    except Exception:  # noqa: BLE001  # as above
        traceback.print_exc()
        code = AT_EXIT
    return int(code)


def start(arguments: list[str], output: str, encoding: str, folder: Path) -> int:
    pid = os.fork()
    if pid == 0:
        redirect(output, folder)
        os._exit(run(arguments, output, encoding))
    return pid


def main() -> None:
    for module in group.VERBS.values():
        import_module(f"racepool.commands.{module}")
    with tempfile.TemporaryDirectory() as place:
        asked, folders = json.load(sys.stdin), []
        for number, each in enumerate(asked):
            folder = Path(place, str(number))
            folder.mkdir()
            folders.append((start(folder=folder, **each), folder))
        ends = []
        for each, (pid, folder) in zip(asked, folders, strict=True):
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            out = (folder / "out").read_bytes() if (folder / "out").exists() else b""
            errors = (folder / "err").read_text(each["encoding"], errors="replace")
            ends.append((code, base64.b64encode(out).decode(), errors))
    sys.stdout.write(json.dumps(ends))


if __name__ == "__main__":
    main()
