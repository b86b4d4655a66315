"""`racepool top` in a real terminal."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running import RACEPOOL, Blocked, Race, Running, WaitUntil, broker_held_back, environment, racepool
from tests.tmux import Tmux, terminal

pytestmark = pytest.mark.system
SEEN_S = 15.0


@pytest.fixture
def tmux(scripted: Running) -> Iterator[Tmux]:
    with terminal(scripted.env) as started:
        started.keys(f"{RACEPOOL} top --interval 0.2", "Enter")
        yield started


def test_three_workers_and_what_they_do_are_shown_live(
    scripted: Running, tmux: Tmux, blocked: Blocked, wait_until: WaitUntil
) -> None:
    wait_until(lambda: "OK: all 3 workers are there, 0 busy" in tmux.text(), SEEN_S)

    with blocked(scripted, workers=2):
        wait_until(lambda: "2 busy" in tmux.text(), SEEN_S)
        tasks = [worker.task_id[:8] for worker in scripted.stats().workers if worker.task_id]
        wait_until(lambda: all(task in tmux.text() for task in tasks), SEEN_S)
        assert len(tasks) == 2

    wait_until(lambda: ", 0 busy" in tmux.text(), SEEN_S)
    assert [line.split()[1] for line in tmux.lines() if line.startswith(" worker-")] == [
        str(pid) for pid in scripted.pids().values()
    ]


def test_killed_worker_is_seen_to_be_lost_and_back(scripted: Running, tmux: Tmux, wait_until: WaitUntil) -> None:
    wait_until(lambda: "all 3 workers are there" in tmux.text(), SEEN_S)
    killed = scripted.pids()["worker-1"]

    os.kill(killed, signal.SIGKILL)

    wait_until(lambda: "worker_lost worker-1 process_exit" in tmux.text(), SEEN_S)
    wait_until(lambda: "worker_restarted worker-1" in tmux.text(), SEEN_S)
    wait_until(lambda: str(scripted.pids().get("worker-1", killed)) in tmux.text(), SEEN_S)
    wait_until(lambda: str(killed) not in tmux.text(), SEEN_S)


def test_broker_that_goes_away_is_told_and_its_successor_found(
    scripted: Running, tmux: Tmux, wait_until: WaitUntil
) -> None:
    wait_until(lambda: "all 3 workers are there" in tmux.text(), SEEN_S)
    before = scripted.stats().broker.pid

    with broker_held_back(scripted):
        wait_until(lambda: "NO BROKER answers since" in tmux.text(), SEEN_S)

    wait_until(lambda: f"broker_restarted pid {before} ->" in tmux.text(), SEEN_S)
    wait_until(lambda: "OK: all 3 workers are there" in tmux.text(), SEEN_S)
    assert f"pid {scripted.stats().broker.pid}," in tmux.lines()[0]


def test_picture_follows_the_window(tmux: Tmux, wait_until: WaitUntil) -> None:
    wait_until(lambda: "q quit" in tmux.text(), SEEN_S)

    for width, height in ((150, 40), (60, 12), (80, 24)):
        tmux.resize(width, height)
        wait_until(lambda height=height: len(tmux.lines()) == height and tmux.lines()[-1].startswith(" q quit"), SEEN_S)
        wait_until(lambda: sum(line.startswith(" worker-") for line in tmux.lines()) == 3, SEEN_S)


@pytest.mark.parametrize("end", ["q", "C-c"])
def test_terminal_is_left_as_it_was(tmux: Tmux, wait_until: WaitUntil, end: str) -> None:
    wait_until(lambda: "q quit" in tmux.text(), SEEN_S)
    assert tmux.is_in_alternate_screen()

    tmux.keys(end)
    wait_until(lambda: not tmux.is_in_alternate_screen(), SEEN_S)
    wait_until(lambda: tmux.text().rstrip().endswith(("$", "#")), SEEN_S)  # earlier keys are discarded
    tmux.keys("echo it ended with $?; stty -a", "Enter")

    wait_until(lambda: "it ended with 0" in tmux.text(), SEEN_S)
    wait_until(lambda: " icanon" in tmux.text(), SEEN_S)
    assert " echo " in tmux.text()
    assert "q quit" not in tmux.text()


def test_pause_stops_the_picture_and_sorting_goes_on(
    scripted: Running, tmux: Tmux, race: Race, wait_until: WaitUntil
) -> None:
    wait_until(lambda: "sort: name" in tmux.text(), SEEN_S)

    tmux.keys("p")
    wait_until(lambda: "PAUSED" in tmux.text(), SEEN_S)
    counters = tmux.lines()[2]
    scripted.exec(race("sleep:1")).result(20)  # for five questions to the broker
    tmux.keys("s")
    wait_until(lambda: "sort: longest task" in tmux.text(), SEEN_S)
    assert tmux.lines()[2] == counters
    tmux.keys("p")

    wait_until(lambda: "PAUSED" not in tmux.text() and tmux.lines()[2] != counters, SEEN_S)


def test_suspended_it_gives_the_terminal_back_and_takes_it_again(tmux: Tmux, wait_until: WaitUntil) -> None:
    wait_until(lambda: "q quit" in tmux.text(), SEEN_S)

    tmux.keys("C-z")
    wait_until(lambda: not tmux.is_in_alternate_screen(), SEEN_S)
    wait_until(lambda: "Stopped" in tmux.text(), SEEN_S)
    tmux.keys("fg", "Enter")

    wait_until(lambda: tmux.is_in_alternate_screen() and "all 3 workers are there" in tmux.text(), SEEN_S)


def test_without_a_broker_it_waits_for_one(run_dir: Path, wait_until: WaitUntil) -> None:
    with terminal(environment(run_dir)) as tmux:
        tmux.keys(f"{RACEPOOL} top", "Enter")

        wait_until(lambda: "NO BROKER has answered yet" in tmux.text(), SEEN_S)
        assert "is `racepool up` running" in tmux.text()
        tmux.keys("q")
        wait_until(lambda: not tmux.is_in_alternate_screen(), SEEN_S)


def test_run_directory_that_is_opened_to_others_ends_it_with_the_reason(run_dir: Path, wait_until: WaitUntil) -> None:
    with terminal(environment(run_dir)) as tmux:
        tmux.keys(f"{RACEPOOL} top", "Enter")
        wait_until(lambda: "NO BROKER has answered yet" in tmux.text(), SEEN_S)

        run_dir.chmod(0o755)

        wait_until(lambda: "others may enter it" in tmux.text(), SEEN_S)
        assert not tmux.is_in_alternate_screen()
    run_dir.chmod(0o700)


def test_into_a_pipe_it_prints_one_picture(scripted: Running) -> None:
    done = racepool("top", env=scripted.env)

    assert done.returncode == 0, done.stderr
    assert "OK: all 3 workers are there" in done.stdout
    assert sum(line.startswith(" worker-") for line in done.stdout.splitlines()) == 3
    assert "\x1b" not in done.stdout


def test_into_a_pipe_without_a_broker_it_is_69(run_dir: Path) -> None:
    done = racepool("top", env=environment(run_dir))

    assert done.returncode == 69
    assert len(done.stderr.splitlines()) == 1
