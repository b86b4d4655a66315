"""Standard output in any encoding, full, closed, or without a reader: each verb prints, or says that it cannot."""

import base64
import json
import subprocess
import sys
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from racepool.commands.group import VERBS
from racepool.protocol.exits import Exit
from racepool.protocol.messages import Id
from racepool.protocol.quarantine import LostAttempt, Record, file_of, pack_head
from racepool.races.payloads import pack_request
from tests.hostile import HOSTILE, is_harmless
from tests.running import RACEPOOL, ROOT, StartPool, environment

pytestmark = pytest.mark.system
SAMPLE = ROOT / "samples" / "harness.json"
TASK = "ab" * 16
COMMANDS = {
    "broker": ["--help"],
    "chaos": ["--help"],
    "config": [],
    "dead": ["list"],
    "doctor": [],
    "exporter": ["--help"],
    "keygen": ["client", "--force"],
    "keys": ["list"],
    "ping": [],
    "replay": ["RACES", "--out", "-"],
    "stats": [],
    "top": [],
    "transform": ["RACES", "--polled-at", "2025-07-17T00:45:00Z"],
    "up": ["--help"],
    "wait": [],
    "worker": ["--help"],
}
"""What each verb is asked for. All of it is printed, so that the loss of the output is noticed."""
MORE = (
    ["--help"],
    ["config", "--json"],
    ["dead", "list", "--json"],
    ["dead", "show", TASK],
    ["dead", "show", TASK, "--json"],
    ["dead", "show", TASK, "--body", "-"],
    ["doctor", "--json"],
    ["stats", "--json"],
    ["transform", "RACES", "--format", "json", "--polled-at", "2025-07-17T00:45:00Z"],
)
RUNS = [*([verb, *arguments] for verb, arguments in COMMANDS.items()), *MORE]
SOME = (["--help"], ["config"], ["dead", "show", TASK], ["worker", "--help"], RUNS[len(COMMANDS) - 4], MORE[-1])
LOST = {"full": "No space left on device", "closed": "Bad file descriptor", "gone": None}
ENCODED = [(run, "ascii") for run in RUNS] + [(run, encoding) for encoding in ("latin-1", "utf-16") for run in SOME]
LOSING = [(run, "full") for run in RUNS] + [(run, output) for output in ("closed", "gone") for run in SOME]
NAME = "Mōkai 語 " + "".join(text for kind, text in HOSTILE.items() if kind != "lone surrogate")  # JSON has none
FAULTS_FOUND = {"doctor": Exit.FAILURE, "doctor --json": Exit.FAILURE}  # what it finds on this machine is not the point


class End(NamedTuple):
    code: int
    output: bytes
    errors: str


Ends = dict[tuple[str, str, str], End]


@pytest.fixture(scope="module")
def ends(start_pool: StartPool, tmp_path_factory: pytest.TempPathFactory) -> Ends:
    """How each run ended with each kind of output, beside a pool, a poll and a dead task with hostile names."""
    real = start_pool(workers=1)
    env = real.env | {"RACEPOOL_KEYS": str(tmp_path_factory.mktemp("keys") / "keys")}
    races = tmp_path_factory.mktemp("races") / "Mōkai-20250717T004500Z.json"
    races.write_bytes(SAMPLE.read_bytes().replace(b"OTTERBY TROPHY", json.dumps(NAME)[1:-1].encode()))
    bury(real.dir, races.read_bytes())
    wanted = [(run, ("file", encoding)) for run, encoding in ENCODED]
    wanted += [(run, (output, "utf-8")) for run, output in LOSING]
    asked = [
        {"arguments": [str(races) if each == "RACES" else each for each in run], "output": output, "encoding": encoding}
        for run, (output, encoding) in wanted
    ]
    subprocess.run([RACEPOOL, "keygen"], env=env, check=True, capture_output=True, timeout=30)
    driver = [sys.executable, str(Path(__file__).with_name("command_processes.py"))]
    done = subprocess.run(driver, env=env, input=json.dumps(asked), text=True, stdout=subprocess.PIPE, check=True)
    answers = (End(code, base64.b64decode(output), errors) for code, output, errors in json.loads(done.stdout))
    return {(" ".join(run), *kind): end for (run, kind), end in zip(wanted, answers, strict=True)}


def bury(directory: Path, body: bytes) -> None:
    """Writes the record of a dead task, as the broker does."""
    payload = pack_request(body, datetime(2025, 7, 17, 0, 45, tzinfo=UTC), None).payload()
    attempts = (LostAttempt("worker-0", NAME, None, 1_700_000_001_000, 1_700_000_001_500),)
    path = file_of(directory, Id(bytes.fromhex(TASK)))
    path.parent.mkdir(exist_ok=True, mode=0o700)
    record = Record(Id(bytes.fromhex(TASK)), 1_700_000_005_000, 7_500, attempts, zlib.crc32(payload), len(payload))
    path.write_bytes(pack_head(record) + payload)


def test_no_verb_is_forgotten() -> None:
    assert set(COMMANDS) == set(VERBS)


@pytest.mark.parametrize(("run", "encoding"), [(" ".join(run), encoding) for run, encoding in ENCODED])
def test_what_the_encoding_lacks_is_replaced(ends: Ends, run: str, encoding: str) -> None:
    end = ends[run, "file", encoding]

    assert (end.code, end.errors.count("Traceback")) in [(Exit.OK, 0), (FAULTS_FOUND.get(run), 0)], end.errors
    assert is_harmless(end.errors)
    text = end.output.decode("utf-8" if run.endswith(" -") else encoding)
    assert text
    if "--body" not in run:  # the body goes out byte for byte
        assert is_harmless(text.replace("\t", " "))  # between the columns of `keys list`
    if "json" in run:
        assert json.loads(text)


@pytest.mark.parametrize(("run", "output"), [(" ".join(run), output) for run, output in LOSING])
def test_lost_output_is_an_error_of_one_line_or_silent_without_a_reader(ends: Ends, run: str, output: str) -> None:
    end = ends[run, output, "utf-8"]

    last = end.errors.splitlines()[-1:]
    assert end.code == Exit.FAILURE, end.errors
    assert "Traceback" not in end.errors
    assert "Exception ignored" not in end.errors
    if LOST[output] is None:
        assert not any("standard output" in line for line in last)
    else:
        assert last[0].startswith("racepool")
        assert last[0].endswith(f": standard output cannot be written: {LOST[output]}")


def test_lost_errors_change_no_exit_code(tmp_path: Path) -> None:
    command = f"exec {RACEPOOL} config 2>/dev/full"

    done = subprocess.run(["/bin/sh", "-c", command], env=environment(tmp_path, liveness="soon"), check=False)

    assert done.returncode == Exit.BAD_SETTINGS
