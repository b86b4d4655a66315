"""`racepool dead` with files and without a broker: what it lists, shows, writes and removes; damaged files."""

import fcntl
import json
import os
import time
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgpack
import pytest
from click.testing import CliRunner, Result

from racepool.commands.dead.display import UNKNOWN
from racepool.commands.dead.tasks import DeadTasks
from racepool.commands.group import main
from racepool.protocol.errors import PoolError
from racepool.protocol.messages import Id
from racepool.protocol.quarantine import LATEST_MS, LostAttempt, Record, file_of, pack_head
from racepool.races.payloads import pack_request

POLLED_AT = datetime(2026, 1, 31, 1, 2, 3, tzinfo=UTC)
ATTEMPTS = (
    LostAttempt("worker-0", "process_exit", None, 1_700_000_001_000, 1_700_000_001_500),
    LostAttempt("worker-2", "process_exit", None, 1_700_000_002_000, 1_700_000_002_250),
    LostAttempt("worker-1", "silence", 9, 1_700_000_003_000, 1_700_000_005_000),
)
FIRST, SECOND, THIRD = ("aa" * 16, "aabb" * 8, "cc" * 16)
Bury = Callable[..., Path]
Race = Callable[..., dict[str, Any]]


@pytest.fixture
def bury(run_dir: Path, race: Race) -> Bury:
    """Writes a record as the broker does."""

    def write(
        task_id: str = FIRST,
        body: Any = None,  # noqa: ANN401  # any form of a race
        *,
        given_up_at_ms: int = 1_700_000_005_000,
        payload: bytes | None = None,
        attempts: tuple[LostAttempt, ...] = ATTEMPTS,
    ) -> Path:
        if payload is None:
            payload = pack_request(race("Cup") if body is None else body, POLLED_AT, None).payload()
        id_ = Id(bytes.fromhex(task_id))
        path = file_of(run_dir, id_)
        path.parent.mkdir(exist_ok=True, mode=0o700)
        record = Record(id_, given_up_at_ms, 7_500, attempts, zlib.crc32(payload), len(payload))
        path.write_bytes(pack_head(record) + payload)
        return path

    return write


def dead(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["dead", *map(str, arguments)], prog_name="racepool")


def done(*arguments: object) -> str:
    """The output of a command that succeeds."""
    result = dead(*arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def refused(*arguments: object) -> str:
    """The one line of a command that fails."""
    result = dead(*arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    return line


@pytest.mark.parametrize("verb", [("list",), ("retry", "--all"), ("remove", "--all")], ids=" ".join)
def test_nothing_there_is_no_error(run_dir: Path, verb: tuple[str, ...]) -> None:
    assert done(*verb) == "no dead tasks\n"
    assert list(run_dir.iterdir()) == []


def test_run_directory_that_is_not_there_is_no_error_and_not_made(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RACEPOOL_DIR", str(run_dir / "elsewhere"))

    assert done("list") == "no dead tasks\n"
    assert json.loads(done("list", "--json")) == []
    assert not (run_dir / "elsewhere").exists()


def test_run_directory_of_others_is_not_looked_into(run_dir: Path, bury: Bury) -> None:
    bury()
    run_dir.chmod(0o755)

    result = dead("list")

    assert result.exit_code == 78
    assert "others may enter it" in result.stderr


def test_list_shows_the_latest_first_with_what_became_of_it(bury: Bury, race: Race) -> None:
    bury(FIRST, race("Cup", "race-1"), given_up_at_ms=1_700_000_000_000)
    bury(THIRD, json.dumps(race("Plate", "race-2")).encode(), given_up_at_ms=1_700_000_009_000)

    heading, *lines = done("list").splitlines()

    assert heading.split() == ["Task", "Race", "Size", "Given", "up", "Lost", "workers"]
    assert [line.split()[:2] for line in lines] == [[THIRD, "race-2"], [FIRST, "race-1"]]
    assert all("process_exit: worker-0, worker-2; silence: worker-1" in line for line in lines)


def test_list_as_json_tells_all(bury: Bury) -> None:
    path = bury(FIRST, payload=b"no request at all")

    assert json.loads(done("list", "--json")) == [
        {
            "task_id": FIRST,
            "race_id": None,
            "race_name": None,
            "given_up_at": "2023-11-14T22:13:25.000+00:00",
            "run_timeout_s": 7.5,
            "payload_bytes": 17,
            "attempts": [
                {
                    "worker": attempt.worker,
                    "reason": attempt.reason,
                    "signal": attempt.signal,
                    "assigned_at": datetime.fromtimestamp(attempt.assigned_at_ms / 1000, UTC).isoformat(
                        timespec="milliseconds"
                    ),
                    "lost_at": datetime.fromtimestamp(attempt.lost_at_ms / 1000, UTC).isoformat(
                        timespec="milliseconds"
                    ),
                }
                for attempt in ATTEMPTS
            ],
            "path": str(path),
        }
    ]


def test_race_is_told_by_the_beginning_of_a_large_body(bury: Bury, race: Race) -> None:
    bury(body=json.dumps(race("Cup", "race-1") | {"padding": "x" * 2_000_000}).encode())

    (task,) = json.loads(done("list", "--json"))

    assert (task["race_id"], task["race_name"]) == ("race-1", "Cup")


def test_show_tells_each_attempt(bury: Bury) -> None:
    bury()

    shown = done("show", FIRST)

    assert f"Task         {FIRST}" in shown
    assert "Cup (race-1)" in shown
    assert "7.5 s" in shown
    rows = [line.split() for line in shown.splitlines()[-3:]]
    assert [(row[0], row[1], row[2], row[3], row[-2]) for row in rows] == [
        ("1", "worker-0", "process_exit", UNKNOWN, "0.500"),
        ("2", "worker-2", "process_exit", UNKNOWN, "0.250"),
        ("3", "worker-1", "silence", "SIGKILL", "2.000"),
    ]


@pytest.mark.parametrize(
    ("body", "facts"),
    [
        (b'{"id": "r1"}', {"body": "json", "body_bytes": 12, "polled_at": POLLED_AT.isoformat()}),
        ({"id": "r1"}, {"body": "mapping", "body_bytes": None, "polled_at": POLLED_AT.isoformat()}),
        (None, {"body": None, "body_bytes": None, "polled_at": None}),
    ],
    ids=["text", "mapping", "no request"],
)
def test_show_as_json_tells_what_was_submitted(bury: Bury, body: object, facts: dict[str, object]) -> None:
    bury(body=body, payload=b"?" if body is None else None)

    shown = json.loads(done("show", FIRST, "--json"))

    assert {name: shown[name] for name in facts} == facts
    assert shown["task_id"] == FIRST


@pytest.mark.parametrize("body", [b'{"id": "r1"}\n', b"\xff\x00 no JSON at all", b""], ids=["json", "bytes", "empty"])
def test_body_comes_out_byte_for_byte(bury: Bury, tmp_path: Path, body: bytes) -> None:
    bury(body=body)

    assert dead("show", FIRST, "--body", "-").stdout_bytes == body
    assert done("show", FIRST, "--body", tmp_path / "body.json") == ""
    assert (tmp_path / "body.json").read_bytes() == body


def test_mapping_comes_out_as_json(bury: Bury, race: Race) -> None:
    bury(body=race("Cup") | {"raw": b"bytes"})

    assert json.loads(done("show", FIRST, "--body", "-")) == race("Cup") | {"raw": "b'bytes'"}


def test_body_that_cannot_be_given_is_told_and_leaves_no_file(bury: Bury, tmp_path: Path) -> None:
    bury(FIRST, payload=b"no request")
    bury(THIRD, {b"key": 1})

    assert "its payload is no request" in refused("show", FIRST, "--body", tmp_path / "body.json")
    assert "cannot be written as JSON" in refused("show", THIRD, "--body", tmp_path / "body.json")
    assert not (tmp_path / "body.json").exists()


def test_body_that_cannot_be_written_is_told(bury: Bury) -> None:
    bury(body=b"{}")

    assert refused("show", FIRST, "--body", "/dev/full") == "racepool: /dev/full: No space left on device"


@pytest.mark.parametrize("name", ["c", "cc", "CCCC", THIRD])
def test_task_is_named_by_as_much_as_tells_it_from_others(bury: Bury, name: str) -> None:
    bury(FIRST)
    bury(THIRD)

    assert json.loads(done("show", name, "--json"))["task_id"] == THIRD


@pytest.mark.parametrize(
    ("name", "why"),
    [("aa", "2 dead tasks begin with 'aa'"), ("d", "no dead task 'd'"), ("", "no dead task ''"), ("*", "no dead task")],
)
def test_name_that_is_not_one_tasks_is_refused(bury: Bury, name: str, why: str) -> None:
    bury(FIRST)
    bury(SECOND)

    assert why in refused("show", name)
    assert why in refused("retry", name)
    assert why in refused("remove", name)


def test_short_names_are_told_apart(bury: Bury, run_dir: Path) -> None:
    first, second = "0123456789" + "a" * 22, "0123456789" + "b" * 22
    for task_id in (first, second, THIRD):
        bury(task_id)

    found = DeadTasks(run_dir)

    assert sorted(found.short_id(task) for task in found.tasks) == [first[:11], second[:11], THIRD[:8]]


def test_removed_is_what_was_named_or_all(bury: Bury) -> None:
    paths = [bury(task_id) for task_id in (FIRST, SECOND, THIRD)]

    assert done("remove", "cc", THIRD) == "1 removed\n"
    assert [path.exists() for path in paths] == [True, True, False]
    assert done("remove", "--all") == "2 removed\n"
    assert not any(path.exists() for path in paths)


@pytest.mark.parametrize("verb", ["retry", "remove"])
@pytest.mark.parametrize("arguments", [(), (FIRST, "--all")], ids=["neither", "both"])
def test_tasks_are_named_or_all(bury: Bury, verb: str, arguments: tuple[str, ...]) -> None:
    path = bury()

    assert dead(verb, *arguments).exit_code == 2
    assert path.exists()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _grown(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def _emptied(path: Path) -> None:
    path.write_bytes(b"")


def _replaced(path: Path) -> None:
    path.write_text('{"id": "race-1"}')


def _renamed(path: Path) -> None:
    path.rename(path.with_name(f"{THIRD}.dead"))


def _piped(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _linked(path: Path) -> None:
    target = path.rename(path.parent.parent / "elsewhere")
    path.symlink_to(target)


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "damage", [_cut, _grown, _emptied, _replaced, _renamed, _piped, _linked, _directory], ids=lambda each: each.__name__
)
def test_what_is_no_record_is_named_and_skipped(bury: Bury, damage: Callable[[Path], None]) -> None:
    whole, damaged = bury(SECOND), bury(FIRST)
    damage(damaged)

    result = dead("list", "--json")

    assert result.exit_code == 0
    assert [task["path"] for task in json.loads(result.stdout)] == [str(whole)]
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"racepool: {whole.parent}/")
    assert line.endswith("; skipped")


def test_damaged_record_is_refused_by_its_name_and_can_be_removed(bury: Bury) -> None:
    path = bury()
    _cut(path)

    assert "is damaged" in refused("show", FIRST)
    assert "is damaged" in refused("retry", FIRST)
    assert done("remove", FIRST) == "1 removed\n"
    assert not path.exists()


def test_payload_that_is_not_what_was_submitted_is_never_given_out(bury: Bury) -> None:
    path = bury(body=b'{"id": "r1"}')
    path.write_bytes(path.read_bytes()[:-3] + b'2"}')

    assert json.loads(done("list", "--json"))[0]["race_id"] == "r2"  # a list reads only the beginnings of files
    assert "its payload is not what was submitted" in refused("show", FIRST, "--body", "-")


def test_foreign_files_are_named_and_never_removed(bury: Bury) -> None:
    path = bury()
    notes = path.with_name("notes.txt")
    notes.write_text("mine")
    path.with_suffix(".unfinished").write_text("what the broker is about to write")

    result = dead("list")

    assert "notes.txt: is damaged, or no record of a dead task" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert done("remove", "--all") == "1 removed\n"
    assert notes.exists()


def test_what_is_in_a_record_never_speaks_to_the_terminal(bury: Bury, race: Race) -> None:
    evil = "\x1b[2J[bold]\x9b31m\n"
    bury(body=race(f"n{evil}", f"i{evil}"), attempts=(LostAttempt(f"w{evil}", f"r{evil}", None, 0, LATEST_MS),))

    printed = done("list") + done("show", FIRST)

    assert not {"\x1b", "\x9b"} & set(printed)
    assert "[bold]" in printed


@pytest.fixture
def far_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Pacific/Auckland")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("far_east")
def test_instants_at_the_ends_of_the_calendar_are_shown(bury: Bury) -> None:
    last_us = (datetime.max.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    attempts = (LostAttempt("worker-0", "silence", 64, 0, LATEST_MS),)
    bury(FIRST, given_up_at_ms=LATEST_MS, attempts=attempts)
    bury(THIRD, given_up_at_ms=0, attempts=(), payload=msgpack.packb(["json", last_us, None, b"{}"]))

    assert "9999-01-01 13:00:00" in done("list")
    assert "9999-01-01 13:00:00 NZDT" in done("show", FIRST)
    assert "9999-12-31 23:59:59 UTC" in done("show", THIRD)


def test_task_that_is_being_retried_is_left_to_whoever_does_it(bury: Bury, run_dir: Path) -> None:
    bury()
    (task,) = DeadTasks(run_dir).tasks

    with task.claimed(), pytest.raises(PoolError, match="is being retried by another process"), task.claimed():
        pytest.fail("two at once")
    with task.path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the lock was released


def test_record_that_is_gone_meanwhile_is_told(bury: Bury, run_dir: Path) -> None:
    path = bury()
    (task,) = DeadTasks(run_dir).tasks
    path.unlink()

    with pytest.raises(PoolError, match="No such file"):
        task.payload()
    with pytest.raises(PoolError, match="No such file"), task.claimed():
        pytest.fail("it is not there")
    task.remove()


def test_retry_without_a_broker_is_69_and_keeps_all(bury: Bury) -> None:
    path = bury()

    result = dead("retry", FIRST)

    assert result.exit_code == 69
    assert path.exists()
