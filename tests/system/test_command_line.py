"""The command line, as a person types it."""

import json
import os
import shutil
import signal
import socket
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.running import RACEPOOL, ROOT, SHARED, Running, StartPool, WaitUntil, environment, racepool

pytestmark = pytest.mark.system
API_FIELDS = {
    "total_workers", "active_workers", "idle_workers", "expected_workers", "degraded", "queue_depth", "held_by_clients",
    "in_flight", "oldest_queued_s", "backlog_limit", "workers", "counters", "queue_wait_ms", "run_ms",
    "crash_detection_ms", "clients", "recent_events", "failed_starts", "broker",
}  # fmt: skip
WORKER_FIELDS = {
    "name", "pid", "state", "task_id", "busy_for_s", "tasks_completed", "tasks_failed", "last_heartbeat_age_s",
    "started_at", "version", "rss_bytes",
}  # fmt: skip
COUNTERS = {
    "submitted", "completed", "failed", "crashed", "cancelled", "timed_out", "abandoned", "requeued", "rejected",
    "worker_crashes", "stale_results", "bad_frames", "dropped",
}  # fmt: skip


@pytest.fixture(scope="module")
def real(start_pool: StartPool) -> Running:
    return start_pool()


def test_transform_without_a_broker_brings_its_own(run_dir: Path) -> None:
    samples = sorted((ROOT / "samples").glob("*.json"))

    done = racepool("transform", *samples, "--format", "ndjson", env=environment(run_dir))

    assert done.returncode == 0, done.stderr
    assert len([json.loads(line) for line in done.stdout.splitlines()]) == len(samples) == 3
    assert "starting a local pool of 3 workers" in done.stderr
    assert not list(run_dir.iterdir())


def test_interrupt_while_the_command_is_imported_says_nothing(run_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    env = environment(run_dir) | {"PYTHONPATH": str(tmp_path)}
    child = subprocess.Popen([RACEPOOL, "up"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout
    assert child.stdout.readline() == "importing\n"

    child.send_signal(signal.SIGINT)

    assert child.communicate(timeout=20) == ("", "")
    assert child.returncode == -signal.SIGINT


def test_up_takes_closed_descriptors_for_nothing(run_dir: Path, wait_until: WaitUntil) -> None:
    with subprocess.Popen(["/bin/sh", "-c", f"exec {RACEPOOL} up <&- >&- 2>&-"], env=environment(run_dir)) as up:
        wait_until(lambda: racepool("ping", env=environment(run_dir)).returncode == 0, 20)
        assert {Path(f"/proc/{up.pid}/fd/{number}").readlink() for number in range(3)} == {Path(os.devnull)}
        up.terminate()
        assert up.wait(20) == 0


def test_path_with_no_room_for_supervisords_socket_is_one_clear_line(run_dir: Path) -> None:
    long = run_dir / ("x" * (90 - len(str(run_dir)) - 1))

    done = racepool("up", env=environment(long))

    assert done.returncode == 78
    assert f"RACEPOOL_DIR={long}: its path is 7 bytes too long for supervisord's socket; choose a" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_value_of_a_setting_is_shown_as_it_is() -> None:
    shown = racepool("config", env=environment(Path("/run/[b]x")))

    assert "/run/[b]x " in shown.stdout


def test_what_is_in_the_run_directory_is_for_its_owner_alone(real: Running) -> None:
    written = list(real.dir.rglob("*"))

    names = {path.name for path in written}
    assert {"supervisord.conf", "supervisor.sock", "broker.lock", "broker.log", "supervisord.log"} <= names
    assert {"frontend.ipc", "backend.ipc", "heartbeat.ipc", "stats.ipc"} <= names
    assert [path for path in written if path.stat().st_mode & 0o077] == []


def test_transform_shows_a_table_of_money(real: Running) -> None:
    done = racepool("transform", ROOT / "samples" / "thoroughbred.json", env=real.env)

    assert done.returncode == 0, done.stderr
    assert "Hold %" in done.stdout
    assert "Marmalade Lantern" in done.stdout
    assert "pools: win" in done.stdout
    assert done.stderr == ""


@pytest.mark.skipif(not SHARED.exists(), reason="../shared/data is not here")
def test_transform_gives_the_worked_figures(real: Running, tmp_path: Path) -> None:
    capture, normalised = SHARED / "nztab-event-awapuni-2025-07-17.json", SHARED / "race-awapuni-normalized.json"

    done = racepool("transform", capture, normalised, "--out", tmp_path / "out", env=real.env)

    assert done.returncode == 0, done.stderr
    first = json.loads((tmp_path / "out" / f"{capture.stem}.json").read_text())
    second = json.loads((tmp_path / "out" / f"{normalised.stem}.json").read_text())
    assert first["transformed_at"] == "2025-07-17T11:16:59.189042Z"
    assert {
        (r["hold_percentage"], r["win_pool_amount"], r["place_pool_amount"]) for r in first["money_flow_records"]
    } >= {(18, 164725, 70623)}
    ruji = next(entrant for entrant in second["entrants"] if entrant["name"] == "RUJI")
    record = next(r for r in second["money_flow_records"] if r["entrant_id"] == ruji["entrant_id"])
    assert (record["win_pool_amount"], record["place_pool_amount"], record["total_pool_amount"]) == (
        825000, 550000, 1375000
    )  # fmt: skip
    assert len(second["money_flow_records"]) == 7
    assert (second["metrics"]["hold_percentage_total"], second["metrics"]["bet_percentage_total"]) == (44, 39)
    assert "taking now" in done.stderr
    assert normalised.name in done.stderr


def test_transform_names_each_file_that_failed(real: Running, tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    good = ROOT / "samples" / "thoroughbred.json"

    done = racepool("transform", broken, good, tmp_path / "missing.json", "--format", "json", env=real.env)

    assert done.returncode == 1
    assert json.loads(done.stdout)["race_name"]
    failures = [line for line in done.stderr.splitlines() if "taking now" not in line]
    assert len(failures) == 3
    assert "broken.json" in failures[0]
    assert "JSON" in failures[0]
    assert "missing.json: No such file or directory" in failures[1]
    assert "2 of 3 files failed" in failures[2]


def test_transform_reads_standard_input(real: Running) -> None:
    text = (ROOT / "samples" / "harness.json").read_text()

    done = racepool(
        "transform", "-", "--format", "json", "--polled-at", "2025-07-17T00:45:00Z", env=real.env, text=text
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["transformed_at"] == "2025-07-17T00:45:00Z"


@pytest.mark.parametrize("instant", ["yesterday", "2025-07-17T00:45:00"])
def test_a_poll_instant_needs_a_time_zone(run_dir: Path, instant: str) -> None:
    done = racepool("transform", "x.json", "--polled-at", instant, env=environment(run_dir))

    assert done.returncode == 2
    assert instant in done.stderr


def test_stats_show_every_field(real: Running) -> None:
    done = racepool("stats", "--json", env=real.env)

    assert done.returncode == 0, done.stderr
    stats = json.loads(done.stdout)
    assert set(stats) == API_FIELDS
    assert set(stats["workers"][0]) == WORKER_FIELDS
    assert set(stats["counters"]) == COUNTERS
    assert set(stats["run_ms"]) == {"p50", "p90", "p99", "max", "count", "sum", "buckets"}
    assert set(stats["broker"]) == {"pid", "epoch", "version", "protocol_version", "uptime_s", "rss_bytes"}
    assert [worker["name"] for worker in stats["workers"]] == ["worker-0", "worker-1", "worker-2"]
    assert "3 of 3 workers" in racepool("stats", env=real.env).stdout


def test_wait_and_ping_answer(real: Running) -> None:
    assert racepool("wait", env=real.env).stdout == "3 workers are ready\n"
    assert racepool("wait", "--workers", 4, "--timeout", 3, env=real.env).returncode == 1
    assert f"pid {real.stats().broker.pid}" in racepool("ping", env=real.env).stdout


@pytest.mark.parametrize("verb", ["stats", "ping", "wait"])
def test_no_broker_is_69(run_dir: Path, verb: str) -> None:
    options = ["--timeout", "0.5"] if verb == "wait" else []

    done = racepool(verb, *options, env=environment(run_dir))

    assert done.returncode == 69
    assert "is `racepool up` running" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("program", ["up", "broker"])
def test_a_second_broker_is_75_and_names_the_first(real: Running, program: str) -> None:
    done = racepool(program, env=real.env)

    assert done.returncode == 75
    assert f"pid {real.stats().broker.pid}" in done.stdout + done.stderr
    assert real.stats().total_workers == 3


def test_up_that_is_refused_leaves_the_running_configuration_alone(real: Running) -> None:
    before = (real.dir / "supervisord.conf").read_bytes()

    assert racepool("up", "--workers", 5, env=real.env).returncode == 75

    assert (real.dir / "supervisord.conf").read_bytes() == before


def test_a_result_never_overwrites_another(real: Running, tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "race.json", tmp_path / "b" / "race.json"

    done = racepool("transform", first, second, "--out", tmp_path / "out", env=real.env)

    assert done.returncode == 2
    assert "2 of the files are called race" in done.stderr
    assert not (tmp_path / "out").exists()


def test_place_for_results_that_cannot_be_made_is_one_clear_line(real: Running, tmp_path: Path) -> None:
    sample, taken = ROOT / "samples" / "harness.json", tmp_path / "taken"
    (taken / "harness.json").mkdir(parents=True)

    for place, said in ((Path("/proc/x"), "/proc/x: No such file"), (taken, f"{taken}/harness.json: Is a directory")):
        done = racepool("transform", sample, "--out", place, env=real.env)
        assert (done.returncode, done.stderr.splitlines()[-1][: 16 + len(said)]) == (1, f"racepool: --out {said}")


def test_json_too_deep_to_read_fails_alone(real: Running, tmp_path: Path) -> None:
    deep = tmp_path / "deep.json"
    deep.write_text("[" * 100_000)

    done = racepool("transform", deep, ROOT / "samples" / "thoroughbred.json", "--format", "ndjson", env=real.env)

    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert str(deep) in done.stderr


def test_other_transforms_results_are_printed_as_json(scripted: Running) -> None:
    done = racepool("transform", ROOT / "samples" / "harness.json", env=scripted.env)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["name"] == "OTTERBY TROPHY 2100"


def test_the_shipped_configuration_runs_as_it_is(run_dir: Path, wait_until: WaitUntil) -> None:
    here = run_dir / "My #1 %s ;"
    here.mkdir()
    shutil.copy(ROOT / "supervisord.conf", here)
    env = environment(run_dir) | {"PATH": f"{RACEPOOL.parent}:{os.environ['PATH']}"}
    journal, ours = socket.socketpair()  # under systemd /dev/stdout is a socket, which cannot be opened
    command = [str(RACEPOOL.with_name("supervisord")), "-c", str(here / "supervisord.conf")]
    with journal, ours, subprocess.Popen(command, env=env, stdout=ours.fileno(), stderr=ours.fileno()) as supervisord:
        try:
            assert racepool("wait", "--timeout", 20, env=env).stdout == "3 workers are ready\n"
            wait_until(lambda: _statuses(here) == {"RUNNING": 5, "STOPPED": 1})
        finally:
            supervisord.terminate()
    assert supervisord.returncode == 0
    assert (here / "racepool-watchdog.log").read_text() == ""
    wait_until(lambda: "broker_stopped" in (here / "racepool-broker.log").read_text())
    assert len(list(here.glob("racepool-worker-*.log"))) == 3


@pytest.mark.parametrize("verb", ["up", "broker", "worker", "stats", "config", "transform"])
def test_bad_settings_are_78_and_name_the_variable(run_dir: Path, verb: str) -> None:
    arguments = ["x.json"] if verb == "transform" else []

    done = racepool(verb, *arguments, env=environment(run_dir, liveness="soon"))

    assert done.returncode == 78
    assert "RACEPOOL_LIVENESS=soon" in done.stderr
    assert "Traceback" not in done.stderr


def test_config_tells_where_a_value_came_from(run_dir: Path) -> None:
    env = environment(run_dir, workers=5) | {"RACEPOOL_WROKERS": "9"}

    done = racepool("config", "--json", env=env)

    settings = json.loads(done.stdout)
    assert settings["RACEPOOL_WORKERS"] == {"value": 5, "origin": "environment"}
    assert settings["RACEPOOL_LIVENESS"] == {"value": 2.0, "origin": "default"}
    assert done.stderr == "racepool: RACEPOOL_WROKERS is set but is no setting\n"
    assert "RACEPOOL_LIVENESS" in racepool("config", env=env).stdout


def test_up_ends_at_ctrl_c_and_leaves_nothing(run_dir: Path) -> None:
    env = environment(run_dir, workers=2)
    up = subprocess.Popen([RACEPOOL, "up"], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert racepool("wait", "--timeout", 20, env=env).stdout == "2 workers are ready\n"
    stats = json.loads(racepool("stats", "--json", env=env).stdout)
    pids = [stats["broker"]["pid"], *(worker["pid"] for worker in stats["workers"])]

    up.send_signal(signal.SIGINT)
    output, _ = up.communicate(timeout=20)

    assert up.returncode == 0
    assert "Traceback" not in output
    assert "SIGKILL" not in output
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    again = racepool("transform", ROOT / "samples" / "harness.json", env=env)
    assert again.returncode == 0, again.stderr


def test_up_logs_to_standard_output_what_programs_say_and_nothing_else(run_dir: Path) -> None:
    env = environment(run_dir / "silent", workers=1)
    up = subprocess.Popen(
        [RACEPOOL, "up", "--stdout"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert racepool("wait", "--timeout", 20, env=env).returncode == 0

    up.send_signal(signal.SIGTERM)
    output, said = up.communicate(timeout=20)

    assert up.returncode == 0
    events = {json.loads(line)["event"] for line in output.splitlines()}
    assert {"broker_started", "worker_ready", "broker_stopped"} <= events
    assert "spawned: 'broker'" in said
    assert list((run_dir / "silent" / "log").iterdir()) == []


def test_up_refuses_a_standard_output_that_has_no_path(run_dir: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        done = subprocess.run(
            [RACEPOOL, "up", "--stdout"],
            env=environment(run_dir), stdout=theirs.fileno(), stderr=subprocess.PIPE, text=True, timeout=20,
            check=False,
        )  # fmt: skip

    assert done.returncode == 2
    assert "it is a socket, as that of systemd's journal is" in done.stderr


def test_no_orphan_outlives_a_killed_supervisord(run_dir: Path, wait_until: WaitUntil) -> None:
    env = environment(run_dir, workers=2)
    with subprocess.Popen([RACEPOOL, "up"], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as up:
        assert racepool("wait", "--timeout", 20, env=env).returncode == 0
        stats = json.loads(racepool("stats", "--json", env=env).stdout)
        pids = [stats["broker"]["pid"], *(worker["pid"] for worker in stats["workers"])]

        os.kill(up.pid, signal.SIGKILL)

    wait_until(lambda: not any(_is_alive(pid) for pid in pids))


def _statuses(directory: Path) -> Counter[str]:
    """How many processes supervisord has for each program: watchdog, broker, three workers; an exporter could run."""
    command = [str(RACEPOOL.with_name("supervisorctl")), "-c", str(directory / "supervisord.conf"), "status"]
    status = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout
    return Counter(line.split()[1] for line in status.splitlines())


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
