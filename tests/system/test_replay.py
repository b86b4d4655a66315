"""`racepool replay` of a captured day through a real pool: typed, interrupted, killed and resumed."""

import gzip
import json
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from racepool.protocol.extras import remedy
from racepool.races.race import RaceData
from samples.generate import race_day
from samples.polls import poll_instants, polls
from samples.races import invented_race
from samples.responses import normalised
from tests.profiles import is_long
from tests.running import RACEPOOL, ROOT, Running, StartPool, WaitUntil, broker_held_back, environment, racepool

pytestmark = pytest.mark.system
RACES, POLLS = (60, 40) if is_long() else (12, 30)
ONE_BODY = 400_000
PEAK = (
    "import re, sys; from pathlib import Path; from racepool.commands.group import main;"
    " main(sys.argv[1:], standalone_mode=False); "
    "print(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])"
)


@pytest.fixture(scope="module")
def real(start_pool: StartPool) -> Running:
    return start_pool()


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A race day: a third of the files is compressed, a third of the names has no instant."""
    folder = tmp_path_factory.mktemp("day")
    for index, (name, text) in enumerate(race_day(7, RACES, POLLS, last_starts=1)):
        if index % 3 == 0:
            (folder / f"{name}.gz").write_bytes(gzip.compress(text.encode(), 1))
        else:
            (folder / (name if index % 3 == 1 else f"{RACES * POLLS - index}.json")).write_text(text)
    return folder


@pytest.fixture(scope="module")
def whole(day: Path, real: Running, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """The table of the day, made without interruption."""
    path = tmp_path_factory.mktemp("whole") / "day.parquet"
    done = racepool("replay", day, "--out", path, env=real.env)
    assert done.returncode == 0, done.stderr
    assert (
        f"{RACES * POLLS:,} polls of {RACES} races: {parquet.read_metadata(path).num_rows:,} records in {path}"
        in done.stdout
    )
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    return parquet.read_table(path)


@pytest.fixture
def short(tmp_path: Path) -> Path:
    """Two races of six polls."""
    folder = tmp_path / "short"
    folder.mkdir()
    for name, text in race_day(3, 2, 6, last_starts=1):
        (folder / name).write_text(text)
    return folder


def lines(*arguments: object, env: dict[str, str]) -> list[dict[str, Any]]:
    """The rows that a replay prints; it must succeed."""
    done = racepool("replay", *arguments, "--out", "-", env=env)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def polls_of(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((row["race_id"], row["polling_timestamp"]) for row in rows))


def test_increments_of_a_day_add_up_to_the_last_amounts(whole: pa.Table) -> None:
    rows = whole.to_pylist()
    win: defaultdict[tuple[str, str], int] = defaultdict(int)
    place: defaultdict[tuple[str, str], int] = defaultdict(int)
    last: dict[tuple[str, str], tuple[int, int]] = {}
    for row in rows:
        runner = row["race_id"], row["entrant_id"]
        win[runner] += row["incremental_win_amount"]
        place[runner] += row["incremental_place_amount"]
        last[runner] = row["win_pool_amount"], row["place_pool_amount"]

    assert len(polls_of(rows)) == RACES * POLLS
    assert len(last) > 9 * RACES
    assert min(row["incremental_win_amount"] for row in rows) < 0 < max(max(last.values()))
    assert {runner: (win[runner], place[runner]) for runner in last} == last


def test_rows_are_by_start_race_poll_and_entrant(whole: pa.Table, day: Path) -> None:
    rows = whole.to_pylist()
    keys = [(row["start_time"], row["race_id"], row["polling_timestamp"]) for row in rows]
    first = next(path for path in day.iterdir() if path.name.endswith("race-01.json"))
    entrants = [entrant.entrant_id for entrant in RaceData.parse(first.read_bytes()).entrants]
    shown = [row["entrant_id"] for row in rows if row["polling_timestamp"] == rows[0]["polling_timestamp"]]

    assert keys == sorted(keys)
    assert shown == [entrant for entrant in entrants if entrant in shown]
    assert len(shown) > 5


def test_replay_that_is_interrupted_and_killed_gives_the_same_table(
    day: Path, real: Running, whole: pa.Table, tmp_path: Path, wait_until: WaitUntil
) -> None:
    path, checkpoint = tmp_path / "day.parquet", tmp_path / "day.parquet.replay"
    command = [str(RACEPOOL), "replay", str(day), "--out", str(path)]

    for number, size in ((signal.SIGINT, 500 * RACES * POLLS), (signal.SIGKILL, 2_000 * RACES * POLLS)):
        replay = subprocess.Popen(command, env=real.env, stderr=subprocess.PIPE, text=True)
        wait_until(lambda size=size: checkpoint.exists() and checkpoint.stat().st_size > size, 40)
        replay.send_signal(number)
        told = replay.communicate(timeout=20)[1]
        assert replay.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL)
        assert "Traceback" not in told
        assert not path.exists()
        if number == signal.SIGINT:
            assert "stopped after " in told
            assert f"of {RACES * POLLS:,} polls; the same command continues from there" in told
    done = racepool(*command[1:], env=real.env)

    assert done.returncode == 0, done.stderr
    assert f"of {RACES * POLLS:,} polls were done before; continuing from there" in done.stderr
    assert parquet.read_table(path).equals(whole)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_pool_that_goes_away_stops_it_and_it_goes_on_when_it_is_back(
    day: Path, real: Running, whole: pa.Table, tmp_path: Path, wait_until: WaitUntil
) -> None:
    path, checkpoint = tmp_path / "day.parquet", tmp_path / "day.parquet.replay"
    command = [str(RACEPOOL), "replay", str(day), "--out", str(path)]
    impatient = real.env | {"RACEPOOL_QUEUE_TIMEOUT": "0.5"}

    with subprocess.Popen(command, env=impatient, stderr=subprocess.PIPE, text=True) as replay:
        wait_until(lambda: checkpoint.exists() and checkpoint.stat().st_size > 50_000, 40)
        with broker_held_back(real):
            told = replay.communicate(timeout=20)[1]
    real.pool.wait_for_workers(timeout_s=20)
    done = racepool(*command[1:], env=real.env)

    assert replay.returncode == 1
    assert "the same command continues from there" in told
    assert "ran out of its 0.5 s while queued" in told
    assert done.returncode == 0, done.stderr
    assert parquet.read_table(path).equals(whole)


def test_broken_polls_are_named_and_the_others_count_from_the_last_good_one(short: Path, real: Running) -> None:
    files = sorted(path for path in short.iterdir() if "race-01" in path.name)
    torn, invalid, absurd = files[2:5]
    rest = [path for path in sorted(short.iterdir()) if path not in (torn, invalid, absurd)]
    expected = lines(*rest, env=real.env)
    torn.write_bytes(torn.read_bytes()[:1_000])
    response = json.loads(invalid.read_bytes())
    response["data"]["tote_pools"][0]["total"] = -1
    invalid.write_text(json.dumps(response))
    response = json.loads(absurd.read_bytes())
    for pool in response["data"]["tote_pools"]:
        pool["total"] = 1e12
    response["data"]["money_tracker"]["entrants"][0]["hold_percentage"] = 6e6
    absurd.write_text(json.dumps(response))

    done = racepool("replay", short, "--out", "-", env=real.env)

    assert done.returncode == 1
    assert [json.loads(line) for line in done.stdout.splitlines()] == expected
    told = done.stderr.splitlines()
    assert any(f"{torn}: " in line and "Invalid JSON" in line for line in told)
    assert any(f"{invalid}: " in line and "data.tote_pools.0.total: must be 0 or more" in line for line in told)
    assert any(f"{absurd}: " in line and "more than 9223372036854775807 cents" in line for line in told)
    assert "3 of 12 files failed; later polls are compared with the last good one" in told[-1]


def test_polls_out_of_order_on_disk_are_replayed_in_order(short: Path, real: Running, tmp_path: Path) -> None:
    files = sorted(short.iterdir())
    expected = lines(short, env=real.env)
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for index, path in enumerate(Random(5).sample(files, len(files))):
        shutil.copy(path, mixed / f"{index:02}.json")

    assert lines(mixed, env=real.env) == lines(*files[::-1], env=real.env) == expected


def test_normalised_races_are_replayed_by_the_instants_of_their_names(real: Running, tmp_path: Path) -> None:
    race = invented_race(Random(4), field=6)
    for poll in polls(race, poll_instants(race, 5), Random(4)):
        (tmp_path / f"{poll.at:%Y-%m-%dT%H-%M-%S}Z.json").write_text(json.dumps(normalised(race, poll)))

    rows = lines(tmp_path, env=real.env)

    assert [at for _, at in polls_of(rows)] == [f"{at:%Y-%m-%dT%H:%M:%S}Z" for at in poll_instants(race, 5)]


def test_day_needs_no_more_memory_when_its_bodies_are_large(real: Running, tmp_path: Path) -> None:
    peaks = []
    for padding in (0, ONE_BODY):
        folder = tmp_path / f"padded-{padding}"
        folder.mkdir()
        for name, text in race_day(5, 10, 20, last_starts=1):
            (folder / name).write_text(text[:-1] + f', "padding": "{"x" * padding}"' + "}")
        command = [sys.executable, "-c", PEAK, "replay", str(folder), "--out", str(tmp_path / f"{padding}.ndjson")]
        done = subprocess.run(command, env=real.env, capture_output=True, text=True, timeout=60, check=True)
        peaks.append(int(done.stdout.splitlines()[-1]) * 1024)

    assert 200 * ONE_BODY > 75 * 2**20
    assert peaks[1] - peaks[0] < 40 * 2**20
    assert (tmp_path / "0.ndjson").read_bytes() == (tmp_path / f"{ONE_BODY}.ndjson").read_bytes()


def test_full_backlog_is_waited_for(real: Running, start_pool: StartPool, tmp_path: Path) -> None:
    narrow = start_pool(workers=1, backlog_limit=1)
    for name, text in race_day(6, 8, 2, last_starts=1):
        (tmp_path / name).write_text(text)

    assert lines(tmp_path, "--workers", 8, env=narrow.env) == lines(tmp_path, env=real.env)
    assert narrow.stats().counters.rejected > 0


def test_replay_without_a_broker_brings_its_own(short: Path, real: Running, run_dir: Path) -> None:
    done = racepool("replay", short, "--out", "-", "--workers", 2, env=environment(run_dir))

    assert done.returncode == 0, done.stderr
    assert "starting a local pool of 2 workers" in done.stderr
    assert [json.loads(line) for line in done.stdout.splitlines()] == lines(short, env=real.env)
    assert not list(run_dir.iterdir())


def test_transform_that_gives_no_money_flow_is_told(short: Path, scripted: Running) -> None:
    done = racepool("replay", short, "--out", "-", env=scripted.env)

    assert done.returncode == 1
    assert "the workers' transform returns a dict and no money flow" in done.stderr
    assert "Traceback" not in done.stderr


def test_output_that_is_there_is_kept_until_it_may_be_replaced(short: Path, real: Running, tmp_path: Path) -> None:
    path = tmp_path / "day.ndjson"
    path.write_text("precious")

    refused = racepool("replay", short, "--out", path, env=real.env)
    assert refused.returncode == 1
    assert f"{path} exists already; give --overwrite, or another name" in refused.stderr
    assert path.read_text() == "precious"
    done = racepool("replay", short, "--out", path, "--overwrite", env=real.env)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in path.read_text().splitlines()] == lines(short, env=real.env)


def test_checkpoint_of_another_day_is_refused_and_kept(short: Path, real: Running, tmp_path: Path) -> None:
    checkpoint = tmp_path / "day.ndjson.replay"
    checkpoint.write_text('{"polls of this replay": "others"}\n')

    done = racepool("replay", short, "--out", tmp_path / "day.ndjson", env=real.env)

    assert done.returncode == 1
    assert f"{checkpoint} is the checkpoint of other polls" in done.stderr
    assert checkpoint.read_text() == '{"polls of this replay": "others"}\n'


def test_pictures_of_a_replay_are_one_of_a_race_or_a_folder_of_all(short: Path, real: Running, tmp_path: Path) -> None:
    one, every = tmp_path / "race.png", tmp_path / "pictures"

    single = racepool("replay", short, "--race", "R2", "--plot", one, env=real.env)
    folder = racepool("replay", short, "--plot", every, "--out", tmp_path / "day.ndjson", env=real.env)

    assert single.returncode == folder.returncode == 0, single.stderr + folder.stderr
    assert f"6 polls of 1 race: a picture in {one}" in single.stdout
    assert f"2 pictures in {every}" in folder.stdout
    assert [path.read_bytes()[:4] for path in (one, *every.iterdir())] == [b"\x89PNG"] * 3
    assert sorted(path.name.partition("-")[0] for path in every.iterdir()) == ["R1", "R2"]
    assert not list(tmp_path.glob("*.replay"))


def test_picture_of_several_races_is_refused_before_the_work(short: Path, real: Running, tmp_path: Path) -> None:
    done = racepool("replay", short, "--plot", tmp_path / "race.png", env=real.env)

    assert done.returncode == 1
    assert "there are 2 races; name a folder for a picture of each, or choose one with --race" in done.stderr
    assert not list(tmp_path.glob("race*"))


def test_transform_draws_the_polls_that_it_is_given(short: Path, real: Running, tmp_path: Path) -> None:
    files = sorted(path for path in short.iterdir() if "race-01" in path.name)

    done = racepool("transform", *files, "--format", "ndjson", "--plot", tmp_path / "race.png", env=real.env)
    alone = racepool("transform", files[0], "--format", "ndjson", "--plot", tmp_path / "one.png", env=real.env)
    every = racepool("transform", *short.iterdir(), "--format", "ndjson", "--plot", tmp_path / "all.png", env=real.env)

    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 6
    assert (tmp_path / "race.png").read_bytes().startswith(b"\x89PNG")
    assert alone.returncode == every.returncode == 1
    assert "no picture: there is only one poll" in alone.stderr
    assert "there are 2 races; name a folder" in every.stderr
    assert not (tmp_path / "one.png").exists()


@pytest.fixture
def lacking(tmp_path: Path, run_dir: Path) -> dict[str, str]:
    """An environment without any extra."""
    folder = tmp_path / "lacking"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import sys\nfor name in ('pyarrow', 'matplotlib', 'psycopg'): sys.modules[name] = None\n"
    )
    return environment(run_dir) | {"PYTHONPATH": f"{folder}:{ROOT}"}


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["replay", "DAY", "--out", "x.parquet"], f"--out x.parquet needs pyarrow: {remedy('replay')}"),
        (
            ["replay", "DAY", "--out", "postgresql://me:secret@host/name"],
            f"--out postgresql://... needs psycopg: {remedy('postgres')}",
        ),
        (["replay", "DAY", "--plot", "x.png"], f"--plot needs matplotlib: {remedy('plot')}"),
        (["transform", "DAY", "--plot", "x.png"], f"--plot needs matplotlib: {remedy('plot')}"),
    ],
)
def test_extra_that_is_not_installed_is_told_before_the_work(
    short: Path, lacking: dict[str, str], arguments: list[str], remedy: str
) -> None:
    done = racepool(*(str(short) if part == "DAY" else part for part in arguments), env=lacking)

    assert (done.returncode, done.stderr, done.stdout) == (1, f"racepool: {remedy}\n", "")


def test_lines_need_no_extra(short: Path, lacking: dict[str, str], real: Running) -> None:
    assert lines(short, env=lacking | {"RACEPOOL_DIR": str(real.dir)}) == lines(short, env=real.env)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere", "--out", "x.parquet"], "Path 'nowhere' does not exist"),
        (["EMPTY", "--out", "x.parquet"], "no polls (*.json, *.json.gz) in"),
        (["DAY"], "give --out FILE, --plot FILE, or both"),
        (["DAY", "--out", "x.csv"], "--out x.csv: its name must end in .parquet or .ndjson, or be -"),
        (["DAY", "--out", "-", "--race", "R9"], "--race R9: there are R1 ("),
        (["DAY", "--out", "-", "--workers", "0"], "0 is not in the range"),
        ([], "Missing argument"),
    ],
)
def test_bad_usage_is_told_with_its_own_exit_code(
    short: Path, tmp_path: Path, run_dir: Path, arguments: list[str], words: str
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    given = [{"DAY": str(short), "EMPTY": str(empty)}.get(part, part) for part in arguments]

    done = racepool("replay", *given, env=environment(run_dir))

    assert done.returncode == 2
    assert words in done.stderr


def test_files_of_which_none_is_a_poll_are_told(tmp_path: Path, run_dir: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "b.json").write_text('{"id": "r-1"}')

    done = racepool("replay", tmp_path, "--out", tmp_path / "x.ndjson", env=environment(run_dir))

    assert done.returncode == 1
    assert "none of 2 files is a poll" in done.stderr
    assert "a.json: the race is invalid: Invalid JSON" in done.stderr
    assert "b.json: does not say when it was polled" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "b.json"]


def test_replay_costs_the_other_commands_nothing() -> None:
    code = "import sys, racepool.commands.group;"
    code += " print([n for n in sys.modules if n.split('.')[0] in ('pyarrow', 'matplotlib')"
    code += " or n == 'racepool.commands.replay.replay_run'])"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "[]"
