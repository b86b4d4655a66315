"""The command `racepool` as a whole: its verbs are imported one by one, and errors have their exit codes."""

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from racepool.commands import group, ping
from racepool.protocol.errors import BrokerUnavailableError, PoolError, SettingsError
from racepool.protocol.exits import Exit

EXTRAS = {"matplotlib", "prometheus_client", "psycopg", "pyarrow", "starlette", "uvicorn"}
MODULES = sorted({f"racepool.commands.{module}" for module in group.VERBS.values()})


def racepool(*arguments: str) -> Result:
    return CliRunner().invoke(group.main, arguments)


def loaded_by(*arguments: str) -> set[str]:
    """The modules in memory after this command."""
    code = "import sys; from click.testing import CliRunner; from racepool.commands.group import main; "
    code += f"result = CliRunner().invoke(main, {list(arguments)}); print(result.exit_code, *sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    exit_code, *modules = done.stdout.split()
    assert exit_code == "0"
    return set(modules)


def test_help_lists_every_verb_with_its_purpose() -> None:
    done = racepool("--help")

    assert done.exit_code == Exit.OK
    _, _, listed = done.output.partition("Commands:\n")
    lines = [line.split(maxsplit=1) for line in listed.splitlines() if line.startswith("  ") and line[2] != " "]
    assert [line[0] for line in lines] == sorted(group.VERBS)
    assert all(len(line) == 2 for line in lines)


@pytest.mark.parametrize("name", group.VERBS)
def test_every_verb_is_a_command_of_its_name(name: str) -> None:
    command = group.main.get_command(click.Context(group.main), name)

    assert command is not None
    assert command.name == name


def test_unknown_verb_is_wrong_usage() -> None:
    done = racepool("tarnsform")

    assert done.exit_code == Exit.USAGE
    assert "No such command 'tarnsform'" in done.output
    assert group.main.get_command(click.Context(group.main), "display") is None, "a module that is no verb"


def test_verb_whose_module_cannot_be_imported_says_so_and_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(group.VERBS, "broken", "no_such_module")

    done = racepool("broken", "--with", "options")

    assert isinstance(done.exception, ModuleNotFoundError), "it is no unknown verb"
    assert "racepool.commands.no_such_module" in str(done.exception)
    assert racepool("ping", "--help").exit_code == Exit.OK
    assert re.search(r"\n  broken +Cannot be imported: No module named", racepool("--help").output)


def test_verb_imports_no_other_verb() -> None:
    assert loaded_by("ping", "--help") & set(MODULES) == {"racepool.commands.ping"}


def test_help_loads_no_extra_and_none_of_what_the_verbs_work_with() -> None:
    loaded = loaded_by("--help")

    assert loaded >= set(MODULES)
    assert loaded & EXTRAS == set()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SettingsError("as the test asked"), Exit.BAD_SETTINGS),
        (BrokerUnavailableError("as the test asked"), Exit.NO_BROKER),
        (PoolError("as the test asked"), Exit.FAILURE),
    ],
)
def test_pool_error_is_one_line_and_an_exit_code(monkeypatch: pytest.MonkeyPatch, error: PoolError, code: Exit) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(ping, "fetch_stats", fail)

    done = racepool("ping")

    assert (done.exit_code, done.stderr, done.stdout) == (code, "racepool: as the test asked\n", "")


@pytest.mark.parametrize("variable", ["RACEPOOL_DIR", "RACEPOOL_ENDPOINT", "RACEPOOL_STATS_ENDPOINT"])
def test_up_starts_nothing_where_another_user_could_replace_what_it_uses(
    variable: str, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = run_dir / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    monkeypatch.setenv("RACEPOOL_DIR", str(run_dir / "run"))
    monkeypatch.setenv(variable, str(shared / "run") if variable == "RACEPOOL_DIR" else f"ipc://{shared}/x.ipc")

    result = racepool("up")

    assert (result.exit_code, result.stdout) == (78, "")
    assert f"other users may write to {shared}" in result.stderr
    assert list(shared.iterdir()) == []
