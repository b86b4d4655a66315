import os
import shlex
import shutil
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from supervisor.options import ServerOptions

from racepool.protocol.endpoints import sockets_in
from racepool.protocol.errors import SettingsError
from racepool.protocol.settings import Settings, variable
from racepool.supervision.configuration import (
    MARK,
    PYTHON,
    SHIPPED,
    child_environment,
    excess_bytes,
    supervisord_command,
    write_configuration,
)

MOST_DIGITS = "4194304"  # the most that pid_max can be


NAMES = [
    "plain", "with space", "per%cent", "both %(name)s %d", "%(here)s", "My #1 races", "a ;b", "#1", " ; ", "it's \"x\"",
    "back\\slash \\#", "Wettbüro 競馬", "no-break\u00a0#space", "end #",
]  # fmt: skip
"""Of folders: what supervisord's file, its expansions or a shell would take for something else."""


@pytest.fixture(autouse=True)
def _interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PYTHON, child_environment(Settings.load())[PYTHON])


@pytest.fixture(params=["plain", "both #1 ; %(name)s %d"])
def directory(request: pytest.FixtureRequest) -> Iterator[Path]:
    parent = Path(tempfile.mkdtemp(dir="/tmp"))
    yield parent / str(request.param)
    shutil.rmtree(parent)


def settings(directory: Path, **values: object) -> Settings:
    return Settings.load(**({"dir": directory, **sockets_in(directory)} | values))


def parsed(configuration: Path) -> Any:  # noqa: ANN401  # supervisor has no types
    """The options that supervisord itself reads from the file."""
    options = ServerOptions()
    options.realize(["--configuration", str(configuration), "--nodaemon"])
    return options


def processes(options: Any) -> dict[str, Any]:  # noqa: ANN401  # supervisor has no types
    return {process.name: process for group in options.process_group_configs for process in group.process_configs}


@pytest.mark.parametrize("name", NAMES)
def test_supervisord_reads_paths_as_they_are(name: str, run_dir: Path) -> None:
    directory = run_dir / name
    options = parsed(write_configuration(settings(directory, workers=2), owner_pid=7))

    assert options.pidfile == str(directory / "supervisord.pid")
    assert options.logfile == str(directory / "log" / "supervisord.log")
    assert [server["file"] for server in options.server_configs] == [str(directory / "supervisor.sock")]
    assert options.nodaemon
    logs = {name: process.stdout_logfile for name, process in processes(options).items()}
    assert logs == {
        name: str(directory / "log" / f"{name}.log") for name in ("broker", "worker-0", "worker-1", "owner")
    } | {"watchdog": None}
    assert processes(options)["watchdog"].stderr_logfile == str(directory / "log" / "watchdog.log")


@pytest.mark.parametrize("workers", [1, 5])
def test_as_many_workers_as_asked_for(directory: Path, workers: int) -> None:
    options = parsed(write_configuration(settings(directory, workers=workers)))

    names = {f"worker-{number}" for number in range(workers)}
    assert set(processes(options)) == names | {"broker", "watchdog"}


def test_programs_run_on_this_interpreter_and_are_never_given_up(directory: Path) -> None:
    told = processes(parsed(write_configuration(settings(directory, workers=1), owner_pid=7)))

    assert shlex.split(told["broker"].command) == [sys.executable, "-P", "-m", "racepool.broker"]
    assert shlex.split(told["worker-0"].command) == [sys.executable, "-P", "-m", "racepool.worker"]
    assert shlex.split(told["owner"].command) == [sys.executable, "-P", "-m", "racepool.supervision.owner", "7"]
    for process in told.values():
        assert process.autorestart.__name__ == "RestartUnconditionally"
        assert process.startsecs == 0
        assert process.stopasgroup
        assert process.killasgroup
        if process.name == "watchdog":
            assert process.stderr_logfile_maxbytes == 10 * 1024 * 1024
        else:
            assert process.redirect_stderr
            assert process.stdout_logfile_maxbytes == 10 * 1024 * 1024


def test_watchdog_is_an_event_listener_that_is_stopped_last(directory: Path) -> None:
    options = parsed(write_configuration(settings(directory, workers=1), owner_pid=7))

    (pool,) = [group for group in options.process_group_configs if hasattr(group, "pool_events")]
    (watchdog,) = pool.process_configs
    assert shlex.split(watchdog.command) == [sys.executable, "-P", "-m", "racepool.supervision.watchdog"]
    assert {event.__name__ for event in pool.pool_events} == {"ProcessStateRunningEvent", "Tick5Event"}
    assert pool.buffer_size > 10
    assert pool.priority < min(each.priority for each in options.process_group_configs if each is not pool)


def test_exporter_runs_only_where_it_was_asked_for(directory: Path) -> None:
    without, beside = (
        processes(parsed(write_configuration(settings(directory, workers=1), exporter=exporter)))
        for exporter in (False, True)
    )

    assert set(beside) - set(without) == {"exporter"}
    assert shlex.split(beside["exporter"].command) == [sys.executable, "-P", "-m", "racepool.commands.exporter"]
    assert beside["exporter"].autostart
    assert beside["exporter"].stdout_logfile == str(directory / "log" / "exporter.log")


@pytest.mark.parametrize(("uid", "user"), [(0, "root"), (1000, None)])
def test_only_root_names_a_user(directory: Path, monkeypatch: pytest.MonkeyPatch, uid: int, user: str | None) -> None:
    configuration = settings(directory)
    configuration.private_dir()
    monkeypatch.setattr(os, "getuid", lambda: uid)
    monkeypatch.setattr(
        Settings, "private_dir", lambda _self: directory
    )  # the real one compares the owner with the real user

    text = write_configuration(configuration).read_text()

    assert ("user = root" in text) == (user is not None)


@pytest.mark.parametrize(("run_timeout_s", "stop_s"), [(30.0, 35), (7.2, 13), (0.5, 6)])
def test_stop_waits_for_a_task_as_long_as_it_may_run_and_for_its_result(
    directory: Path, run_timeout_s: float, stop_s: int
) -> None:
    told = processes(parsed(write_configuration(settings(directory, run_timeout=run_timeout_s))))

    assert told["worker-0"].stopwaitsecs == stop_s


def test_with_to_stdout_all_log_to_standard_output_or_error_and_to_no_file(directory: Path) -> None:
    options = parsed(write_configuration(settings(directory, workers=1), to_stdout=True, exporter=True))

    told = processes(options)
    watchdog = told.pop("watchdog")
    assert set(told) == {"broker", "worker-0", "exporter"}
    for program in told.values():
        assert (program.stdout_logfile, program.stdout_logfile_maxbytes) == ("/dev/stdout", 0)
        assert program.redirect_stderr
    assert (watchdog.stderr_logfile, watchdog.stderr_logfile_maxbytes) == ("/dev/stderr", 0)
    assert (options.logfile, options.logfile_maxbytes) == ("/dev/null", 0)


def test_longest_run_directory_has_room_for_supervisords_socket() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as parent:
        spare = -excess_bytes(Path(parent, "x"))
        longest, longer = Path(parent, "x" * (1 + spare)), Path(parent, "x" * (2 + spare))

        assert (excess_bytes(longest), excess_bytes(longer)) == (0, 1)
        longest.mkdir()
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(f"{longest}/supervisor.sock.{MOST_DIGITS}")
        with pytest.raises(SettingsError, match="1 bytes too long for supervisord's socket"):
            write_configuration(settings(longer))


@pytest.mark.parametrize("name", [*NAMES, "line\nbreak", "return\r", "tab\t;"])
def test_interpreter_in_any_folder(name: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executable = f"/opt/{name}/bin/python"
    monkeypatch.setattr(sys, "executable", executable)
    monkeypatch.setenv(PYTHON, child_environment(Settings.load())[PYTHON])

    told = processes(parsed(write_configuration(settings(directory, workers=1), owner_pid=7)))

    assert {shlex.split(each.command)[0] for each in told.values()} == {executable}
    assert supervisord_command(Path("x"))[0] == executable


@pytest.mark.parametrize("name", NAMES)
def test_shipped_file_works_in_any_folder(name: str, run_dir: Path) -> None:
    here = run_dir / name
    here.mkdir()
    shutil.copy(SHIPPED, here / "supervisord.conf")

    options = parsed(here / "supervisord.conf")

    assert (options.childlogdir, options.nocleanup) == (str(here), True), "it removes nothing in TMPDIR"
    assert options.pidfile == f"{here}/racepool-supervisor.pid"
    assert [server["file"] for server in options.server_configs] == [f"{here}/racepool-supervisor.sock"]
    told = processes(options)
    assert {each.stdout_logfile for each in told.values()} == {None} | {
        f"{here}/racepool-{each}.log" for each in ("broker", "worker-0", "worker-1", "worker-2", "exporter")
    }
    assert told["watchdog"].stderr_logfile == f"{here}/racepool-watchdog.log"


@pytest.mark.parametrize("character", ["\n", "\r", "\t", "\x1b", "\x7f", "\x85", "\v"])
def test_control_character_in_the_run_directory_is_refused_by_name(character: str, run_dir: Path) -> None:
    with pytest.raises(SettingsError, match="control character") as raised:
        write_configuration(settings(run_dir / f"a{character}[program:x]"))

    assert ascii(character) in str(raised.value)
    assert str(raised.value).isprintable()


def test_dots_behind_a_link_lead_where_the_file_system_says(run_dir: Path) -> None:
    (run_dir / "far" / "away").mkdir(parents=True)
    (run_dir / "link").symlink_to("far/away")

    options = parsed(write_configuration(settings(run_dir / "link" / ".." / "pool", workers=1)))

    assert options.pidfile == str(run_dir.resolve() / "far" / "pool" / "supervisord.pid")


@pytest.mark.parametrize("name", ["supervisord.conf", "supervisor.sock", "supervisord.pid"])
@pytest.mark.parametrize("is_link", [False, True])
def test_file_that_is_not_ours_is_neither_overwritten_nor_removed(name: str, is_link: bool, run_dir: Path) -> None:  # noqa: FBT001  # a parameter of the test
    file = run_dir / "notes"
    file.write_text("somebody's notes")
    if is_link:
        (run_dir / name).symlink_to("notes")
    else:
        file.rename(run_dir / name)

    with pytest.raises(SettingsError, match=f"{name} in it is not racepool's"):
        write_configuration(settings(run_dir))

    assert (run_dir / name).read_text() == "somebody's notes"
    assert len(list(run_dir.iterdir())) == 1 + is_link


def test_what_a_pool_left_behind_is_ours(directory: Path) -> None:
    write_configuration(settings(directory))
    (directory / "supervisord.pid").write_text("4711\n")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(directory / "supervisor.sock"))

    assert write_configuration(settings(directory)).read_text().startswith(MARK)


def test_run_directory_that_cannot_be_written_is_a_settings_error(directory: Path) -> None:
    settings(directory).private_dir()
    (directory / "log").write_text("a file in the way")

    with pytest.raises(SettingsError, match="File exists"):
        write_configuration(settings(directory))


def test_run_directory_is_ours_alone(directory: Path) -> None:
    write_configuration(settings(directory))

    for made in (directory, directory / "log"):
        assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / "supervisord.conf").stat().st_mode) == 0o600


def test_nothing_is_written_where_another_user_could_replace_it(directory: Path) -> None:
    """Whoever replaces supervisord's file has their program run by us."""
    directory.parent.chmod(0o777)

    with pytest.raises(SettingsError, match=f"other users may write to {directory.parent}"):
        write_configuration(Settings.load(dir=directory))

    assert list(directory.parent.iterdir()) == []


def test_written_again_it_is_the_same(directory: Path) -> None:
    first = write_configuration(settings(directory)).read_text()

    assert write_configuration(settings(directory)).read_text() == first


def test_children_find_these_very_settings(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RACEPOOL_RUN_TIMEOUT", "99")
    given = settings(
        directory,
        workers=7,
        run_timeout=1.25,
        heartbeat_interval=0.1,
        payload_limit=4096,
        log_format="json",
        keys=directory / "keys",
    )

    environment = child_environment(given)
    for name in list(os.environ):
        if name.startswith("RACEPOOL_"):
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert Settings.load() == given
    assert set(type(given).model_fields) == {
        name.removeprefix("RACEPOOL_").lower() for name in environment if name.startswith("RACEPOOL_")
    }
    assert environment["PATH"] == os.environ["PATH"]
    assert environment[variable("run_timeout")] == "1.25"
