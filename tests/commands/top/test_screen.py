from datetime import timedelta

import pytest
from rich.console import Console

from racepool.commands.top.screen import ORDERS, View, frame, snapshot
from racepool.commands.top.trend import PoolTrend
from racepool.protocol.stats import PoolStats, WorkerStats
from tests.commands.stats import NOON, event, pool, worker

ENDPOINT = "ipc:///run/racepool/stats.ipc"


def view(*stats: PoolStats, silent: bool = False, **changes: object) -> View:
    trend = PoolTrend(0.0)
    for index, each in enumerate(stats):
        trend.on_stats(each, float(index), NOON + timedelta(seconds=index))
    if silent:
        trend.on_silence(len(stats) + 1.0)
    plain = {"dead_tasks": 0} | changes
    now = float(len(stats) + 2)
    return View(trend, now, NOON + timedelta(seconds=now), ENDPOINT, "start one", **plain)  # type: ignore[arg-type]


def drawn(picture: View, width: int = 80, height: int = 24) -> list[str]:
    console = Console(width=width, height=height, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(frame(picture, width, height), end="")
    return capture.get().split("\n")


def crowd(count: int) -> list[WorkerStats]:
    return [worker(f"worker-{index}", tasks_completed=index) for index in range(count)]


def names(lines: list[str]) -> list[str]:
    return [line.split()[0] for line in lines if line.startswith(" worker-")]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 60), (60, 15), (40, 8), (20, 4), (8, 2), (1, 1)])
@pytest.mark.parametrize("silent", [False, True])
def test_frame_fills_any_window_exactly(width: int, height: int, *, silent: bool) -> None:
    events = [event("worker_lost", after_s=index, who="worker-1") for index in range(50)]

    lines = drawn(view(pool(*crowd(20), recent_events=events), silent=silent), width, height)

    assert len(lines) == height
    assert max(map(len, lines)) <= width


def test_pool_that_is_whole_is_told_in_plain_words() -> None:
    lines = drawn(view(pool(), pool(completed=30)))

    assert "OK: all 3 workers are there, 0 busy" in lines[1]
    assert "completed 30" in lines[2]
    assert names(lines) == ["worker-0", "worker-1", "worker-2"]
    assert lines[-1].startswith(" q quit")


def test_degraded_pool_names_who_is_away() -> None:
    lines = drawn(view(pool(), pool(worker("worker-0"), worker("worker-2"))))

    assert "DEGRADED: 2 of 3 workers are there; worker-1 is away" in lines[1]
    assert any("worker-1" in line and " away " in line for line in lines)


def test_broker_that_is_away_is_told_with_the_instant_and_the_last_picture() -> None:
    lines = drawn(view(pool(), silent=True), width=120)

    since = f"{NOON.astimezone():%H:%M:%S}"
    assert f"NO BROKER answers since {since} (0:00:03 ago)" in lines[1]
    assert names(lines) == ["worker-0", "worker-1", "worker-2"]


def test_broker_that_never_answered_is_told_with_the_remedy() -> None:
    text = "\n".join(drawn(view(silent=True)))

    assert "NO BROKER has answered yet" in text
    assert ENDPOINT in text
    assert "start one" in text


def test_workers_without_room_are_counted_and_sorting_brings_them_up() -> None:
    stats = pool(*crowd(60), expected_workers=60, degraded=False)
    by_name, by_done = (order for order in ORDERS if order.name in ("name", "done"))

    plain, sorted_ = drawn(view(stats, order=by_name)), drawn(view(stats, order=by_done))

    assert names(plain)[:3] == ["worker-0", "worker-1", "worker-2"]
    assert names(sorted_)[:3] == ["worker-59", "worker-58", "worker-57"]
    assert f"and {60 - len(names(plain))} more" in "\n".join(plain)


def test_low_window_shows_the_workers_rather_than_the_past() -> None:
    low = drawn(view(pool()), height=10)

    assert names(low) == ["worker-0", "worker-1", "worker-2"]
    assert not any("p99" in line for line in low)


def test_dead_tasks_are_told_with_the_command_that_shows_them() -> None:
    assert "dead tasks 2 (racepool dead list)" in "\n".join(drawn(view(pool(), dead_tasks=2)))
    assert "dead tasks" not in "\n".join(drawn(view(pool(), dead_tasks=None)))


def test_paused_picture_says_so() -> None:
    assert "PAUSED" in drawn(view(pool(), is_paused=True))[0]


def test_name_of_a_worker_cannot_speak_to_the_terminal() -> None:
    console = Console(width=80, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(snapshot(view(pool(worker("evil\x1b]0;owned\x07"))), 80))

    assert "\x1b" not in capture.get()
    assert "evil" in capture.get()


def test_snapshot_shows_every_worker_and_event() -> None:
    events = [event("worker_lost", after_s=index) for index in range(50)]
    console = Console(width=240, color_system=None)
    with console.capture() as capture:
        console.print(snapshot(view(pool(*crowd(30), recent_events=events)), 240))

    lines = capture.get().split("\n")
    assert len(names(lines)) == 30
    assert sum("worker_lost" in line for line in lines) == 50
    assert all(line == line.rstrip() for line in lines)
