"""The rules of the house, executed: who may import whom, who may touch the world, what nobody may use."""

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

import racepool
from tests.running import ROOMS, ROOT

PACKAGE = ROOT / "src" / "racepool"
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
MAY_IMPORT = {
    "protocol": set(),
    "races": {"protocol"},
    "broker": {"protocol"},
    "worker": {"protocol", "races"},
    "client": {"protocol", "races"},
    "storage": {"protocol", "races"},
    "supervision": {"protocol", "races", "client"},
    "commands": {"protocol", "races", "client", "storage", "supervision"},
}
"""The other rooms of which a room may import. Only the crash lab may import of the worker, too."""
CRASH_LAB = "commands/chaos/"
CLIENT_LINES = 4_000
WORLD = {"zmq", "time", "socket", "threading", "asyncio", "os", "random", "structlog"}
WORLD |= {"select", "subprocess", "signal", "selectors", "multiprocessing", "secrets", "uuid", "logging", "datetime"}
ENVIRONMENT_READERS = {"protocol/settings.py", "protocol/endpoints.py", "worker/settings.py"}
ENVIRONMENT_READERS |= {"supervision/configuration.py", "supervision/rpc.py"}
OPENERS = {"json", "msgpack", "msgspec", "orjson", "ormsgpack", "pydantic_core"}
PICKLES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve"}
EXTRAS = {
    "matplotlib",
    "prometheus_client",
    "psycopg",
    "pyarrow",
    "pytest",
    "starlette",
    "uvicorn",
}  # imported where they are used
EVALS = {"eval", "exec", "compile", "__import__"}
MAX_LINES = 400


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def broken(paths: Iterable[Path], rule: Callable[[Path], object]) -> dict[str, object]:
    """What the rule says against each of these files, by the file's name; nothing if all of them keep it."""
    return {name_of(path): against for path in paths if (against := rule(path))}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(path: Path) -> Iterator[str]:
    """The dotted names of all modules that a module imports, at its top or within a function."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module
            is_of_rooms = node.module.count(".") == 1 and node.module.startswith("racepool.")
            yield from (f"{node.module}.{alias.name}" for alias in node.names) if is_of_rooms else (node.module,)


def imported(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)}


def rooms_of(path: Path) -> set[str]:
    """The rooms of which a module imports, its own among them; `racepool` is the public face."""
    return {
        name.split(".")[1] if name.count(".") else name
        for name in imports(path)
        if name == "racepool" or name.startswith("racepool.")
    }


def is_core(path: Path) -> bool:
    """Whether the module decides and touches nothing: by its name, or because CORES lists it."""
    return path.stem.endswith("core") or name_of(path) in CORES


CORES = {
    *(f"broker/{name}.py" for name in ("ledger", "backlog", "roster", "tasks", "workers", "actions", "resource_watch")),
    *(f"broker/{name}.py" for name in ("assignments", "clients", "frozen", "prefetch", "session_end", "sessions")),
    "worker/heartbeat.py",
    *(f"client/{name}.py" for name in ("actions", "stream", "task", "window", "withdrawals")),
    "commands/replay/schedule.py",
    *(name_of(path) for path in sorted((ROOT / "commands" / "doctor" / "checks").glob("*.py"))),
    "commands/exporter/chart_history.py",
    "commands/exporter/metrics.py",
}


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


def test_every_folder_of_the_product_is_a_room_with_rules() -> None:
    assert set(MAY_IMPORT) == set(ROOMS)
    assert all((PACKAGE / room).resolve() == ROOT / room for room in ROOMS)
    assert {path.relative_to(ROOT).parts[0] for path in MODULES} == set(ROOMS)
    assert set(map(name_of, MODULES)) >= CORES


def test_room_imports_only_what_it_may() -> None:
    def imports_more(path: Path) -> set[str]:
        room = path.relative_to(ROOT).parts[0]
        extra = {"worker"} if name_of(path).startswith(CRASH_LAB) else set()
        bare = imported(path) & {*ROOMS, "tests", "samples", "benchmarks"}
        return rooms_of(path) - {room} - MAY_IMPORT[room] - extra - {"racepool"} | bare

    assert broken(MODULES, imports_more) == {}


def test_only_what_stands_above_the_library_uses_its_public_face() -> None:
    below = [path for path in MODULES if path.relative_to(ROOT).parts[0] not in ("supervision", "commands")]

    assert broken(below, lambda path: rooms_of(path) & {"racepool"}) == {}


def test_the_broker_loads_no_race_model() -> None:
    code = "import sys, racepool.broker.__main__; print(*sys.modules)"

    loaded = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True).stdout

    assert [name for name in loaded.split() if name.startswith(("racepool.races", "racepool.client"))] == []


def test_the_broker_has_nothing_to_open_a_payload_with() -> None:
    """It reads headers by protocol/frames.py, and references by protocol/shared_memory.py, which bound both."""

    def opens(path: Path) -> set[str]:
        names = {node.attr for node in ast.walk(tree(path)) if isinstance(node, ast.Attribute)}
        names |= {
            alias.name for node in ast.walk(tree(path)) if isinstance(node, ast.ImportFrom) for alias in node.names
        }
        return imported(path) & OPENERS | {name for name in names if name.startswith(("unpack", "peek"))}

    assert broken((ROOT / "broker").glob("*.py"), opens) == {}


def test_the_library_stays_small() -> None:
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / "client").rglob("*.py"))

    assert lines < CLIENT_LINES


def test_module_is_no_longer_than_a_reader_can_hold() -> None:
    assert broken(MODULES, lambda path: len(path.read_text(encoding="utf-8").splitlines()) // (MAX_LINES + 1)) == {}


def test_core_knows_nothing_of_the_world() -> None:
    assert broken(filter(is_core, MODULES), lambda path: imported(path) & WORLD) == {}


def test_the_domain_is_pure() -> None:
    def touches(path: Path) -> set[str]:
        knows_uuids = path.stem in ("row_values", "plain_values")  # a database's UUIDs, no new ones
        types = {"datetime", "uuid"} if knows_uuids else {"datetime"}
        return imported(path) & (WORLD - types)

    assert broken((ROOT / "races").glob("*.py"), touches) == {}


@pytest.mark.parametrize("core", ["broker.core", "worker.core", "worker.heartbeat", "client.core"])
def test_core_can_be_imported_without_the_modules_beside_it_that_touch_the_world(core: str) -> None:
    room, seen, todo = core.partition(".")[0], set(), [f"racepool.{core}"]
    while todo:
        path = ROOT / f"{todo.pop().removeprefix('racepool.').replace('.', '/')}.py"
        if path in seen or not path.exists():
            continue
        seen.add(path)
        todo += [name for name in imports(path) if name.startswith(f"racepool.{room}.")]

    assert [path for path in sorted(seen) if imported(path) & {"zmq", "socket", "time", "threading"}] == []


def stoppable_clocks(path: Path) -> list[int]:
    """The lines that read a clock, or sleep, by a name that a test tool may replace."""
    stoppable = {"monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "sleep"}
    return [
        node.lineno
        for node in ast.walk(tree(path))
        if (isinstance(node, ast.Attribute) and ast.unparse(node.value) == "time" and node.attr in stoppable)
        or (isinstance(node, ast.ImportFrom) and node.module == "time" and stoppable & {n.name for n in node.names})
    ]


def test_programs_and_library_wait_by_a_clock_that_test_tools_leave_alone() -> None:
    rooms = {"protocol", "broker", "worker", "client", "storage", "supervision"}
    waiting = [path for path in MODULES if path.relative_to(ROOT).parts[0] in rooms]

    library_owned = {"client/greenlets.py"}  # sleeps by the function that the greenlet library has put there
    assert broken(waiting, stoppable_clocks).keys() - library_owned == {"protocol/clock.py"}


def test_environment_is_read_in_settings_only() -> None:
    others = [path for path in MODULES if name_of(path) not in ENVIRONMENT_READERS]

    assert broken(others, lambda path: list(environment_uses(path))) == {}


def test_module_says_what_it_is() -> None:
    assert broken(MODULES, lambda path: not ast.get_docstring(tree(path))) == {}


def test_module_has_a_name_of_its_own() -> None:
    vague = {"utils", "util", "common", "helpers", "helper", "base", "misc"}

    assert broken(MODULES, lambda path: vague & {path.stem, *path.relative_to(ROOT).parts}) == {}


def test_nothing_is_pickled_or_evaluated() -> None:
    def calls(path: Path) -> set[str]:
        nodes = [node.func for node in ast.walk(tree(path)) if isinstance(node, ast.Call)]
        return {function.id for function in nodes if isinstance(function, ast.Name)}

    assert broken(MODULES, lambda path: imported(path) & PICKLES | calls(path) & EVALS) == {}


def test_actions_are_matched_to_the_last() -> None:
    """A core's or shell's `match` over actions ends with assert_never, so that mypy guards the list."""

    def open_ended(path: Path) -> list[int]:
        matches = [node for node in ast.walk(tree(path)) if isinstance(node, ast.Match)]
        over_actions = [node for node in matches if isinstance(node.subject, ast.Name) and node.subject.id == "action"]
        return [node.lineno for node in over_actions if "assert_never" not in ast.unparse(node.cases[-1].body[0])]

    assert broken(MODULES, open_ended) == {}


ROOM = f"(?:{'|'.join(ROOMS)})"
STATEMENT = rf"(?:^|[;\"'`]|\\n) *(?:>>> )?(?:from {ROOM}[.\w]* import|import {ROOM}\b)"
PROGRAM = rf"(?:-m |\"-m\", \"){ROOM}\b"
FILES_OF_A_USER = "tests/supervision/test_pytest_plugin.py"


def leads_past(line: str) -> bool:
    """Whether a line holds a statement, a program, or the dotted name of a module, that lacks `racepool.`."""
    names = re.findall(rf"[\"'`]({ROOM}(?:\.\w+)+)[:\"'`]", line)
    modules = {name for name in names if (ROOT / f"{'/'.join(name.split('.')[:2])}.py").exists()}
    return bool(re.search(f"{STATEMENT}|{PROGRAM}", line)) or modules - {"broker.lock"} != set()


@pytest.mark.parametrize(
    "line", ['"from broker import core"', '["-P", "-m", "broker"]', '"worker.core:x"', "import client"]
)
def test_bare_name_is_noticed(line: str) -> None:
    assert leads_past(line)
    assert not leads_past(re.sub(rf"\b({ROOM})\b", r"racepool.\1", line))


def test_no_string_leads_past_the_name_racepool() -> None:
    """In a clone the rooms can be imported by their bare names as well, as a second set of classes."""
    folders = (*ROOMS, "src", "tests", "benchmarks", "examples", "samples", "deploy", "docs", ".")
    files = {path for folder in folders for path in (ROOT / folder).glob("*" if folder == "." else "**/*")}
    texts = {path for path in files if path.suffix in (".py", ".md", ".conf", ".toml", ".service", ".yaml")}
    exempt = {"tests/test_architecture.py", FILES_OF_A_USER, "CHANGELOG.md"}
    wanted = sorted(path for path in texts if name_of(path) not in exempt)

    assert len(wanted) > 400
    assert broken(wanted, lambda path: [*filter(leads_past, path.read_text(encoding="utf-8").splitlines())]) == {}


def test_public_names_are_sorted_exact_and_there() -> None:
    (guard,) = [node for node in tree(PACKAGE / "__init__.py").body if isinstance(node, ast.If)]
    told_to_checkers = {
        alias.name: f"{node.module}" for node in guard.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }

    assert racepool.__all__ == sorted(racepool.__all__)
    assert set(racepool.__all__) == set(told_to_checkers)
    assert all(
        getattr(racepool, name) is getattr(importlib.import_module(module), name)
        for name, module in told_to_checkers.items()
    )
    assert dir(racepool) == racepool.__all__
    assert not hasattr(racepool, "no_such_name")


@pytest.mark.parametrize("program", ["racepool.supervision.watchdog", "racepool.supervision.owner"])
def test_programs_that_stay_beside_every_pool_are_small(program: str) -> None:
    code = f"import sys, {program}; print(*sys.modules)"

    loaded = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True).stdout

    assert {"pydantic", "pydantic_settings", "structlog", "asyncio", "rich", "click"} & set(loaded.split()) == set()


@pytest.mark.parametrize("program", ["racepool.broker.__main__", "racepool.worker.__main__"])
def test_programs_of_a_pool_start_without_what_they_never_use(program: str) -> None:
    code = f"import sys, {program}; print(*sys.modules); import rich.traceback; rich.traceback.Traceback"

    loaded = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True).stdout

    assert {"click", "pydantic_settings", "rich"} & set(loaded.split()) == set()


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
        "racepool",
        "zmq",
        "rich",
        "structlog",
    }
    assert tops - set(sys.stdlib_module_names) - declared - {"supervisor", "tzdata"} - EXTRAS == set()
