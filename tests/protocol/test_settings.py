import os
import re
import stat
from pathlib import Path

import pytest

from racepool.protocol.endpoints import sockets_in, stats_endpoint
from racepool.protocol.errors import SettingsError
from racepool.protocol.flags import from_command_line
from racepool.protocol.settings import Settings, is_supervised, variable


@pytest.fixture(autouse=True)
def _no_settings_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("RACEPOOL_")]:
        monkeypatch.delenv(name)


def test_defaults_are_the_documented_ones() -> None:
    settings = Settings.load()
    documented = {
        "workers": 3,
        "heartbeat_interval": 0.25,
        "liveness": 2.0,
        "max_attempts": 3,
        "queue_timeout": 60,
        "run_timeout": 30,
        "connect_timeout": 30,
        "max_in_flight": 10_000,
        "backlog_limit": 100_000,
        "backlog_bytes": 2**30,
        "broker_memory_limit": 2**32,
        "payload_limit": 16 * 2**20,
        "max_tasks_per_worker": 0,
        "worker_memory_limit": 0,
        "log_level": "info",
        "log_format": None,
    }

    assert {name: getattr(settings, name) for name in documented} == documented


def test_run_directory_is_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert Settings.load().dir == Path("/run/user/7/racepool")
    assert Settings.load().endpoint == "ipc:///run/user/7/racepool/frontend.ipc"

    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("racepool.protocol.settings.MAX_IPC_PATH_BYTES", 1_000)
    assert Settings.load().dir == tmp_path / f"racepool-{os.getuid()}"


def test_sockets_lie_in_the_run_directory() -> None:
    settings = Settings.load(dir="/tmp/x")  # noqa: S108  # nothing is made there

    assert {name: getattr(settings, name) for name in sockets_in(Path("/x"))} == {
        "endpoint": "ipc:///tmp/x/frontend.ipc",
        "backend": "ipc:///tmp/x/backend.ipc",
        "heartbeat_endpoint": "ipc:///tmp/x/heartbeat.ipc",
        "stats_endpoint": "ipc:///tmp/x/stats.ipc",
    }


def test_relative_run_directory_is_the_same_after_a_change_of_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("racepool.protocol.settings.MAX_IPC_PATH_BYTES", 1_000)
    monkeypatch.chdir(tmp_path)

    assert Settings.load(dir="run").endpoint == f"ipc://{tmp_path}/run/frontend.ipc"


# --- precedence -------------------------------------------------------------------------------------------------------


def test_flag_goes_before_environment_before_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RACEPOOL_WORKERS", "5")
    monkeypatch.setenv("RACEPOOL_LIVENESS", "7")

    settings = Settings.load(workers=4)

    assert (settings.workers, settings.liveness, settings.max_attempts) == (4, 7.0, 3)
    assert [settings.origin(name) for name in ("workers", "liveness", "max_attempts")] == [
        "flag",
        "environment",
        "default",
    ]


def test_flag_goes_before_an_environment_that_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RACEPOOL_WORKERS", "many")

    assert Settings.load(workers=4).origin("workers") == "flag"


def test_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RACEPOOL_WORKERS", "")

    assert (Settings.load().workers, Settings.load().origin("workers")) == (3, "default")


def test_flags_of_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RACEPOOL_RUN_TIMEOUT", "9")
    monkeypatch.setenv("RACEPOOL_WORKERS", "2")
    monkeypatch.setattr("sys.argv", ["broker", "--run-timeout", "5", "--backlog-limit=7"])

    settings = from_command_line(Settings, "racepool broker")

    assert (settings.run_timeout, settings.backlog_limit, settings.workers) == (5.0, 7, 2)
    assert (settings.origin("run_timeout"), settings.origin("workers")) == ("flag", "environment")


def test_unknown_flag_is_a_usage_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["broker", "--wrokers", "5"])

    with pytest.raises(SystemExit) as caught:
        from_command_line(Settings, "racepool broker")

    assert caught.value.code == 2
    assert "--wrokers" in capsys.readouterr().err


def test_flag_that_breaks_its_rule_is_named_like_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["broker", "--workers", "0"])

    with pytest.raises(SettingsError, match="RACEPOOL_WORKERS=0: "):
        from_command_line(Settings, "racepool broker")


def test_help_names_each_flag_with_its_kind_meaning_and_default(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["broker", "--help"])
    monkeypatch.setenv("COLUMNS", "200")

    with pytest.raises(SystemExit) as caught:
        from_command_line(Settings, "racepool broker")

    shown = capsys.readouterr().out
    assert caught.value.code == 0
    assert all(f"--{name.replace('_', '-')} " in shown for name in Settings.model_fields)
    assert re.search(r"--keys PATH +key directory", shown)
    assert re.search(r"--workers NUMBER +how many workers .*; default: 3\n", shown)
    assert re.search(r"--liveness SECONDS +seconds of silence .*; default: 2.0\n", shown)
    assert re.search(r"--endpoint TEXT +where clients meet the broker\n", shown)
    assert re.search(r"--log-format console\|json\s+default: console on a terminal, else json\n", shown)


def test_shortened_flag_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["broker", "--live", "5"])

    with pytest.raises(SystemExit):
        from_command_line(Settings, "racepool broker")


# --- rules ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("workers", "0", "greater than or equal to 1"),
        ("workers", "5000", "less than or equal to 4096"),
        ("workers", "three", "valid integer"),
        ("workers", "2.5", "valid integer"),
        ("heartbeat_interval", "0", "greater than 0"),
        ("heartbeat_interval", "inf", "finite number"),
        ("liveness", "nan", "finite number"),
        ("liveness", "-1", "greater than 0"),
        ("queue_timeout", "86401", "less than or equal to 86400"),
        ("run_timeout", "soon", "valid number"),
        ("connect_timeout", "0", "greater than 0"),
        ("max_attempts", "0", "greater than or equal to 1"),
        ("max_in_flight", "0", "greater than or equal to 1"),
        ("backlog_limit", "-5", "greater than or equal to 1"),
        ("backlog_bytes", "0", "greater than or equal to 1"),
        ("payload_limit", "1023", "greater than or equal to 1024"),
        ("payload_limit", str(2**30 + 1), "less than or equal to 1073741824"),
        ("max_tasks_per_worker", "-1", "greater than or equal to 0"),
        ("worker_memory_limit", "-1", "greater than or equal to 0"),
        ("log_level", "loud", "'debug', 'info', 'warning' or 'error'"),
        ("log_format", "xml", "'console' or 'json'"),
        ("endpoint", "frontend.ipc", "ipc:///absolute/path or tcp://HOST:PORT"),
        ("endpoint", "http://127.0.0.1:5555", "ipc:///absolute/path"),
        ("endpoint", "inproc://x", "ipc:///absolute/path"),
        ("endpoint", "ipc://", "ipc:///absolute/path"),
        ("endpoint", "ipc://relative/frontend.ipc", "ipc:///absolute/path"),
        ("endpoint", "ipc://@abstract", "ipc:///absolute/path"),
        ("endpoint", "ipc://*", "ipc:///absolute/path"),
        ("backend", "ipc:///" + "x" * 107, "at most 107 bytes"),
        ("backend", "ipc:///" + "é" * 54, "at most 107 bytes"),
        ("endpoint", "tcp://0.0.0.0:5555", "open to anyone"),
        ("endpoint", "tcp://*:5555", "open to anyone"),
        ("endpoint", "tcp://192.168.0.7:5555", "open to anyone"),
        ("endpoint", "tcp://example.org:5555", "open to anyone"),
        ("endpoint", "tcp://eth0;127.0.0.1:5555", "tcp://HOST:PORT"),
        ("endpoint", "tcp://127.0.0.1", "tcp://127.0.0.1:PORT"),
        ("endpoint", "tcp://127.0.0.1:", "tcp://127.0.0.1:PORT"),
        ("endpoint", "tcp://127.0.0.1:0", "tcp://127.0.0.1:PORT"),
        ("endpoint", "tcp://127.0.0.1:65536", "tcp://127.0.0.1:PORT"),
        ("endpoint", "tcp://127.0.0.1:*", "tcp://127.0.0.1:PORT"),
        ("endpoint", "tcp://127.0.0.1:5555/path", "tcp://127.0.0.1:PORT"),
        ("stats_endpoint", "tcp://10.0.0.1:1", "open to anyone"),
        ("heartbeat_endpoint", "tcp://10.0.0.1:1", "open to anyone"),
    ],
)
def test_broken_rule_names_variable_value_and_rule(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, rule: str
) -> None:
    monkeypatch.setenv(variable(name), value)

    with pytest.raises(SettingsError) as caught:
        Settings.load()

    assert str(caught.value).startswith(f"RACEPOOL_{name.upper()}={value}: ")
    assert rule in str(caught.value)


@pytest.mark.parametrize(
    "endpoint", ["ipc:///tmp/a.ipc", "ipc:///" + "x" * 106, "tcp://127.0.0.1:1", "tcp://localhost:65535"]
)
def test_endpoints_that_fit(endpoint: str) -> None:
    assert Settings.load(endpoint=endpoint).endpoint == endpoint


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "*",
        "0.0.0.0",  # noqa: S104  # nothing is bound
        "192.168.0.7",
        "broker",
        "broker.example.org",
        "my_broker",
        "[::1]",
        "[::]",
        "[fe80::1%eth0]",
        "[2001:db8::7]",
    ],
)
def test_with_keys_a_tcp_endpoint_may_be_anywhere(host: str, tmp_path: Path) -> None:
    endpoint = f"tcp://{host}:7000"

    assert Settings.load(endpoint=endpoint, keys=tmp_path).endpoint == endpoint


@pytest.mark.parametrize(
    "host",
    [
        "",
        "a b",
        "a" * 254,
        "::1",
        "[::1",
        "[127.0.0.1]",
        "[]",
        "eth0;127.0.0.1",
        "-a",
        "a-",
        "a..b",
        ".",
        "bücher",
        "a/b",
        "*a",
        "user@host",
    ],
)
def test_keys_do_not_make_an_address_of_anything(host: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"tcp://HOST:PORT"):
        Settings.load(endpoint=f"tcp://{host}:7000", keys=tmp_path)


@pytest.mark.parametrize("host", ["192.168.0.7", "*", "[::1]", "broker"])
def test_without_keys_the_remedy_for_an_open_endpoint_is_named(host: str) -> None:
    with pytest.raises(SettingsError, match=r"`racepool keygen` and set RACEPOOL_KEYS, or use tcp://127\.0\.0\.1:PORT"):
        Settings.load(backend=f"tcp://{host}:7000")


def test_relative_key_directory_is_the_same_after_a_change_of_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)

    assert Settings.load(keys="keys").keys == tmp_path / "keys"


def test_remedy_names_what_may_be_wrong_with_an_endpoint(tmp_path: Path) -> None:
    without, keyed = Settings.load(), Settings.load(keys=tmp_path)

    assert "RACEPOOL_DIR" in keyed.remedy("ipc:///x")
    assert "RACEPOOL_KEYS" in without.remedy("tcp://127.0.0.1:1")
    assert "is our key in its list" in keyed.remedy("tcp://127.0.0.1:1")


def test_run_directory_too_long_for_its_sockets_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"RACEPOOL_ENDPOINT=.*choose a shorter RACEPOOL_DIR"):
        Settings.load(dir="/tmp/" + "x" * 100)  # noqa: S108


def test_brokers_memory_must_hold_its_backlog_twice_over() -> None:
    with pytest.raises(
        SettingsError, match=r"RACEPOOL_BROKER_MEMORY_LIMIT \(19\) must be 0 or at least twice .* \(10\)"
    ):
        Settings.load(broker_memory_limit=19, backlog_bytes=10)

    assert Settings.load(broker_memory_limit=20, backlog_bytes=10).broker_memory_limit == 20
    assert Settings.load(broker_memory_limit=0, backlog_bytes=2**40).broker_memory_limit == 0


def test_silence_must_outlast_two_heartbeats() -> None:
    with pytest.raises(SettingsError, match=r"RACEPOOL_LIVENESS \(0.4\) must be at least twice HEARTBEAT_INTERVAL"):
        Settings.load(liveness=0.4)

    assert Settings.load(liveness=0.5).liveness == 0.5


def test_all_broken_rules_are_named_at_once() -> None:
    with pytest.raises(SettingsError, match=r"RACEPOOL_WORKERS=0.*; RACEPOOL_LOG_LEVEL=loud"):
        Settings.load(workers=0, log_level="loud")


def test_unknown_setting_is_refused() -> None:
    with pytest.raises(SettingsError, match="RACEPOOL_WROKERS=1: "):
        Settings.load(wrokers=1)


def test_misspelt_variables_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RACEPOOL_WROKERS", "5")
    monkeypatch.setenv("RACEPOOL_WORKERS", "5")
    monkeypatch.setenv("racepool_workers", "4")

    assert Settings.unknown_variables() == ["RACEPOOL_WROKERS", "racepool_workers"]
    assert Settings.load().workers == 5


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        setattr(Settings.load(), "workers", 4)  # noqa: B010  # a type checker would say so too


# --- the run directory ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ('"/run/racepool"', "begins with a quote or a space"),
        ("'/run/racepool'", "begins with a quote or a space"),
        ("~/racepool", "only a shell replaces ~ and $"),
        ("~", "only a shell replaces ~ and $"),
        ("$HOME/racepool", "only a shell replaces ~ and $"),
        ("${HOME}/racepool", "only a shell replaces ~ and $"),
    ],
)
@pytest.mark.parametrize("variable", ["RACEPOOL_DIR", "RACEPOOL_KEYS"])
def test_directory_that_only_a_shell_would_understand_is_refused(
    variable: str, value: str, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of variables, as docker and systemd read them, keep quotes, and replace no ~."""
    monkeypatch.setenv(variable, value)

    with pytest.raises(SettingsError, match=f"(?s)^{variable}=.*: {re.escape(rule)}"):
        Settings.load()


@pytest.mark.parametrize("variable", ["TMPDIR", "XDG_RUNTIME_DIR"])
def test_default_directory_that_only_a_shell_would_understand_is_refused(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "$HOME/run")

    with pytest.raises(SettingsError, match=r"^RACEPOOL_DIR=\$HOME/run/racepool.*: only a shell replaces"):
        Settings.load()


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr("racepool.protocol.settings.MAX_IPC_PATH_BYTES", 1_000)
    return tmp_path / "run"


def test_run_directory_is_made_for_us_alone(directory: Path) -> None:
    before = os.umask(0)
    try:
        made = Settings.load(dir=directory / "deep").private_dir()
    finally:
        os.umask(before)

    assert made == directory / "deep"
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert Settings.load(dir=made).private_dir() == made


@pytest.mark.parametrize("mode", [0o710, 0o701, 0o777, 0o750, 0o704])
def test_run_directory_that_others_may_enter_is_refused(directory: Path, mode: int) -> None:
    directory.mkdir()
    directory.chmod(mode)

    with pytest.raises(SettingsError, match=f"RACEPOOL_DIR={directory}: others may enter it; chmod 700"):
        Settings.load(dir=directory).private_dir()


def test_run_directory_of_another_user_is_refused(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory.mkdir(mode=0o700)
    monkeypatch.setattr("os.getuid", lambda: directory.stat().st_uid + 1)

    with pytest.raises(SettingsError, match=r"belongs to user.*choose another"):
        Settings.load(dir=directory).private_dir()


def test_run_directory_behind_a_link_is_refused(directory: Path) -> None:
    directory.mkdir(mode=0o700)
    link = directory.with_name("link")
    link.symlink_to(directory)

    with pytest.raises(SettingsError, match="is no directory; choose another"):
        Settings.load(dir=link).private_dir()


def test_file_in_the_place_of_the_run_directory_is_refused(directory: Path) -> None:
    directory.touch()

    with pytest.raises(SettingsError, match=r"cannot be made \(File exists\); choose another"):
        Settings.load(dir=directory).private_dir()


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives a directory away")
def test_run_directory_that_another_user_put_in_the_place_of_ours_is_refused(directory: Path) -> None:
    """After root has cleaned /tmp, another user can do this."""
    directory.parent.chmod(0o1777)
    settings = Settings.load(dir=directory)
    settings.private_dir()
    directory.rename(directory.with_name("moved"))
    directory.mkdir(mode=0o700)
    os.chown(directory, 65_534, 65_534)

    for setting in sockets_in(directory):
        with pytest.raises(SettingsError, match=r"belongs to user 65534, we are 0; choose another"):
            settings.guard(getattr(settings, setting))


def test_a_client_makes_the_run_directory_before_anybody_else_can(directory: Path) -> None:
    settings = Settings.load(dir=directory)

    settings.guard(settings.endpoint)

    assert directory.stat().st_mode & 0o777 == 0o700


def test_an_endpoint_elsewhere_asks_nothing_of_the_run_directory(directory: Path) -> None:
    directory.mkdir(mode=0o755)
    elsewhere = directory.with_name("elsewhere")
    settings = Settings.load(dir=directory, endpoint=f"ipc://{elsewhere}/frontend.ipc")

    settings.guard(settings.endpoint)  # its directory may be made later

    elsewhere.mkdir()
    settings.guard(settings.endpoint)
    elsewhere.chmod(0o1777)
    with pytest.raises(SettingsError, match=f"^{settings.endpoint}: other users may write to {elsewhere}"):
        settings.guard(settings.endpoint)
    with pytest.raises(SettingsError, match="others may enter it"):
        settings.guard(settings.backend)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"XDG_RUNTIME_DIR": "/run/user/7"},
        {"XDG_RUNTIME_DIR": ""},
        {"RACEPOOL_DIR": "/run/here"},
        {"RACEPOOL_DIR": "relative"},
        {"RACEPOOL_DIR": ""},
        {"RACEPOOL_DIR": "/run/here", "RACEPOOL_STATS_ENDPOINT": "tcp://127.0.0.1:5555"},
        {"RACEPOOL_STATS_ENDPOINT": ""},
    ],
)
def test_small_programs_find_the_stats_socket_where_all_others_do(
    given: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)

    assert stats_endpoint() == Settings.load().stats_endpoint


def test_supervision_is_known_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUPERVISOR_ENABLED", raising=False)
    assert not is_supervised()

    monkeypatch.setenv("SUPERVISOR_ENABLED", "1")
    assert is_supervised()
