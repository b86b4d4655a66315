"""The saboteur of the crash lab harms its process if a race asks for it; otherwise it changes nothing."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from racepool.commands.chaos.lab_processes import is_alive, started
from racepool.commands.chaos.saboteur import HARMS, Saboteur
from racepool.commands.chaos.switch import ABORT, ENDS_AT_IMPORT, EXIT_CODE
from racepool.races.race import RaceData
from tests.running import Race, WaitUntil

NOW = datetime(2026, 1, 31, tzinfo=UTC)
ALONE = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from racepool.races.race import RaceData
from tests.running import Race, WaitUntil
from racepool.commands.chaos.saboteur import Saboteur
race = RaceData.parse(sys.argv[1])
Saboteur(lambda race, **_: print("survived"), Path(sys.argv[2]))(race, polled_at=datetime.now(UTC), previous=None)
"""


@pytest.fixture
def harms(tmp_path: Path) -> Path:
    return tmp_path / "harms"


def innocent(race: RaceData, **given: object) -> tuple[str, object]:
    return race.name, given["polled_at"]


def noted(harms: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in harms.read_text().splitlines()] if harms.exists() else []


def named(race: dict[str, Any], name: str) -> RaceData:
    return RaceData.parse(race | {"name": name})


def test_other_races_go_to_the_transform_as_they_are(race: Race, harms: Path) -> None:
    saboteur = Saboteur(innocent, harms)

    assert saboteur(named(race(), "Lab Stakes: kill"), polled_at=NOW, previous=None) == ("Lab Stakes: kill", NOW)
    assert noted(harms) == []


def test_who_survives_answers_for_the_race_as_it_was(race: Race, harms: Path) -> None:
    before = time.monotonic()
    result = Saboteur(innocent, harms)(named(race(), "chaos:hold-gil:0.01:7:A: b"), polled_at=NOW, previous=None)

    (harm,) = noted(harms)
    assert result == ("A: b", NOW)
    assert (harm["verb"], harm["fault"], harm["pid"]) == ("hold-gil", 7, os.getpid())
    assert before <= harm["at"] <= time.monotonic()


def test_sleep_is_no_harm(race: Race, harms: Path) -> None:
    before = time.monotonic()
    result = Saboteur(innocent, harms)(named(race(), "chaos:sleep:0.05:0:A"), polled_at=NOW, previous=None)

    assert result == ("A", NOW)
    assert time.monotonic() - before >= 0.05
    assert noted(harms) == []


def test_held_gil_lets_no_other_thread_run_and_ends_in_time() -> None:
    beats: list[float] = []
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(0.01):
            beats.append(time.monotonic())

    thread = threading.Thread(target=beat)
    thread.start()
    while not beats:
        time.sleep(0.001)
    began_at = time.monotonic()
    HARMS["hold-gil"]("0.5")
    took_s = time.monotonic() - began_at
    stop.set()
    thread.join()

    assert not [instant for instant in beats if began_at + 0.1 < instant < began_at + 0.4]
    assert 0.5 <= took_s < 10.0


def test_raise_is_an_exception_like_any_other(race: Race, harms: Path) -> None:
    with pytest.raises(RuntimeError, match="as the race asked"):
        Saboteur(innocent, harms)(named(race(), "chaos:raise::1:A"), polled_at=NOW, previous=None)


@pytest.mark.parametrize(
    ("verb", "code"), [("kill", -signal.SIGKILL), ("exit", 1), ("exit:3", 3), ("fork-kill:2", -signal.SIGKILL)]
)
def test_harm_ends_its_process_after_it_was_noted(race: Race, harms: Path, verb: str, code: int) -> None:
    name = f"chaos:{verb if ':' in verb else verb + ':'}:5:A"
    with subprocess.Popen(
        [sys.executable, "-c", ALONE, json.dumps(race(name)), str(harms)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.wait(20) == code
        dead_at = time.monotonic()
        assert child.stdout is not None
        assert child.stdout.read() == ""  # end of file comes only when all processes have closed it, also a child

    assert [harm["fault"] for harm in noted(harms)] == [5]
    assert (time.monotonic() - dead_at > 1.0) is (verb == "fork-kill:2")


LEAVING = (
    ALONE.replace("Saboteur(lambda", "import signal\nSaboteur(lambda")
    + """
handler, blocked = signal.getsignal(signal.SIGALRM), signal.pthread_sigmask(signal.SIG_BLOCK, [])
print("handled" if callable(handler) else handler.name, *blocked, flush=True)
sys.stdin.read()
"""
)


def leaving(race: Race, harms: Path, verb: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", LEAVING, json.dumps(race(f"chaos:{verb}::5:A")), str(harms)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("verb", "left"),
    [
        ("alarm-handler", "handled"),
        ("alarm-ignored", "SIG_IGN"),
        ("alarm-blocked", "SIG_DFL 14"),
        ("alarm-handler+alarm-blocked", "handled 14"),
    ],
)
def test_race_leaves_sigalrm_changed_and_survives(race: Race, harms: Path, verb: str, left: str) -> None:
    with leaving(race, harms, verb) as child:
        out, _ = child.communicate(timeout=20)

    assert out.splitlines() == ["survived", left.replace("14", str(signal.SIGALRM))]
    assert [harm["verb"] for harm in noted(harms)] == verb.split("+")


@pytest.mark.parametrize("verb", ["session", "daemon", "fork-return"])
def test_child_that_is_left_is_noted_and_goes_on(race: Race, harms: Path, wait_until: WaitUntil, verb: str) -> None:
    with leaving(race, harms, verb) as worker:
        wait_until(lambda: len(noted(harms)) == 2, 20)
        harm = noted(harms)[1]
        child = harm["child"], harm["child_started"]
        try:
            assert (harm["pid"], harm["started"]) == (worker.pid, started(worker.pid))
            assert is_alive(*child)
            assert (os.getsid(child[0]) == os.getsid(worker.pid)) is (verb == "fork-return")
            worker.kill()
            worker.wait()
            assert is_alive(*child)
        finally:
            os.kill(child[0], signal.SIGKILL)
            worker.kill()


@pytest.mark.parametrize(("how", "code"), [("exit", EXIT_CODE), (ABORT, -signal.SIGABRT), (None, 0)])
def test_process_ends_at_import_while_the_lab_wants_it(tmp_path: Path, how: str | None, code: int) -> None:
    if how is not None:
        (tmp_path / ENDS_AT_IMPORT).write_text(how)
    base = {name: value for name, value in os.environ.items() if not name.startswith("RACEPOOL_")}
    ended = subprocess.run(
        [sys.executable, "-c", "import racepool.commands.chaos.saboteur"],
        env=base | {"RACEPOOL_CHAOS_HARMS": str(tmp_path / "harms")}, timeout=30, check=False, capture_output=True,
    )  # fmt: skip

    assert ended.returncode == code


@pytest.mark.parametrize(("verb", "state"), [("freeze", "T"), ("spin", "R")])
def test_harm_that_leaves_a_process_that_does_nothing(
    race: Race, harms: Path, wait_until: WaitUntil, verb: str, state: str
) -> None:
    command = [sys.executable, "-c", ALONE, json.dumps(race(f"chaos:{verb}::5:A")), str(harms)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        try:
            wait_until(lambda: noted(harms), 20)
            wait_until(lambda: Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] == state)
            assert child.poll() is None
        finally:
            child.kill()
