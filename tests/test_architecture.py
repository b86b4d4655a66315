"""The rules of the house, executed: who may import whom, who may touch the world, what nobody may use."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROGRAMS = ("broker", "worker", "client")
OURS = (*PROGRAMS, "protocol")
MODULES = sorted(path for folder in OURS for path in (ROOT / folder).rglob("*.py"))
CORES = [
    *(
        ROOT / "broker" / f"{name}.py"
        for name in ("core", "ledger", "backlog", "roster", "tasks", "workers", "actions", "resource_watch")
    ),
    ROOT / "worker" / "core.py",
    ROOT / "worker" / "heartbeat.py",
    ROOT / "client" / "core.py",
    ROOT / "client" / "stream.py",
    ROOT / "client" / "watchdog_core.py",
    ROOT / "client" / "replay" / "schedule.py",
    *sorted((ROOT / "client" / "doctor" / "checks").glob("*.py")),
    ROOT / "client" / "exporter" / "history.py",
    ROOT / "client" / "exporter" / "metrics.py",
]
WORLD = {"zmq", "time", "socket", "threading", "asyncio", "os", "random", "structlog"}
WORLD |= {"select", "subprocess", "signal", "selectors", "multiprocessing", "secrets", "uuid", "logging", "datetime"}
ENVIRONMENT_READERS = {"protocol/settings.py", "protocol/endpoints.py", "worker/settings.py"}
ENVIRONMENT_READERS |= {"client/supervision.py", "client/supervisor_rpc.py"}
PICKLES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve"}
EXTRAS = {"matplotlib", "prometheus_client", "pyarrow", "starlette", "uvicorn"}  # imported where they are used
EVALS = {"eval", "exec", "compile", "__import__"}

every_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(path: Path) -> set[str]:
    """The top names of all that a module imports, at its top or within a function."""
    names = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add((node.module or "").partition(".")[0])
    return names


def environment_uses(path: Path) -> Iterator[int]:
    """The lines that touch the process's environment."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv", "putenv"):
            yield node.lineno
        if (
            isinstance(node, ast.ImportFrom)
            and node.module == "os"
            and {"environ", "getenv"} & {n.name for n in node.names}
        ):
            yield node.lineno


def test_there_is_something_to_check() -> None:
    assert {path.parent.name for path in MODULES} >= set(OURS)
    assert all(core.exists() for core in CORES)


@every_module
def test_programs_import_the_protocol_and_never_each_other(path: Path) -> None:
    program = path.relative_to(ROOT).parts[0]
    allowed = {program, "protocol"} if program != "protocol" else {"protocol"}

    assert (imported(path) & {*OURS, "tests", "samples", "benchmarks"}) - allowed == set()


@pytest.mark.parametrize("path", CORES, ids=lambda path: str(path.relative_to(ROOT)))
def test_core_knows_nothing_of_the_world(path: Path) -> None:
    assert imported(path) & WORLD == set()


@pytest.mark.parametrize("core", ["broker.core", "worker.core", "worker.heartbeat", "client.core"])
def test_core_can_be_imported_without_the_modules_beside_it_that_touch_the_world(core: str) -> None:
    program, seen, todo = core.partition(".")[0], set(), [core]
    while todo:
        path = ROOT / f"{todo.pop().replace('.', '/')}.py"
        if path in seen or not path.exists():
            continue
        seen.add(path)
        todo += [
            node.module
            for node in ast.walk(tree(path))
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(f"{program}.")
        ]

    assert [path for path in sorted(seen) if imported(path) & {"zmq", "socket", "time", "threading"}] == []


@every_module
def test_environment_is_read_in_settings_only(path: Path) -> None:
    if str(path.relative_to(ROOT)) not in ENVIRONMENT_READERS:
        assert list(environment_uses(path)) == []


@every_module
def test_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(tree(path))


@every_module
def test_module_has_a_name_of_its_own(path: Path) -> None:
    assert not {"utils", "util", "common", "helpers", "helper", "base", "misc"} & {
        path.stem,
        *path.relative_to(ROOT).parts,
    }


@every_module
def test_nothing_is_pickled_or_evaluated(path: Path) -> None:
    assert imported(path) & PICKLES == set()
    calls = [
        node.func.id for node in ast.walk(tree(path)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    assert EVALS & set(calls) == set()


@every_module
def test_actions_are_matched_to_the_last(path: Path) -> None:
    """A core's or shell's `match` over actions ends with assert_never, so that mypy guards the list."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Match) and isinstance(node.subject, ast.Name) and node.subject.id == "action":
            last = node.cases[-1].body[0]
            assert isinstance(last, ast.Expr)
            assert "assert_never" in ast.unparse(last)


def test_public_names_of_the_client_are_sorted_exact_and_there() -> None:
    client = importlib.import_module("client")
    defined = {
        alias.asname or alias.name
        for node in tree(ROOT / "client" / "face.py").body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }

    assert client.__all__ == sorted(client.__all__)
    assert set(client.__all__) == {name for name in defined if not name.startswith("_")}
    assert all(hasattr(client, name) for name in client.__all__)
    assert dir(client) == client.__all__
    assert not hasattr(client, "no_such_name")


@pytest.mark.parametrize("program", ["client.watchdog", "client.owner"])
def test_programs_that_stay_beside_every_pool_are_small(program: str) -> None:
    code = f"import sys, {program}; print(*sys.modules)"

    loaded = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True).stdout

    assert {"pydantic", "pydantic_settings", "structlog", "asyncio", "rich", "click"} & set(loaded.split()) == set()


def test_nothing_is_imported_that_is_not_declared() -> None:
    """Nothing but the standard library, our own and the declared dependencies is needed to import the library."""
    tops = {name for path in MODULES for name in imported(path)}

    declared = {
        "click",
        "msgpack",
        "msgspec",
        "orjson",
        "ormsgpack",
        "pydantic",
        "pydantic_core",
        "pydantic_settings",
        "zmq",
        "rich",
        "structlog",
    }
    assert tops - set(sys.stdlib_module_names) - set(OURS) - declared - {"supervisor", "tzdata"} - EXTRAS == set()
