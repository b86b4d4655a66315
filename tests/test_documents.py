"""What the documents promise, held against the code."""

import importlib
import re
from collections.abc import Iterator
from dataclasses import fields
from types import NoneType
from typing import get_args

import click
import pytest
from pydantic import BaseModel

from racepool import ZmqPool
from racepool.commands.chaos.kinds import KINDS
from racepool.commands.group import main
from racepool.protocol import messages
from racepool.protocol.errors import PoolError
from racepool.protocol.settings import EXPORTER_SETTINGS, WORKER_SETTINGS, Settings, variable
from racepool.protocol.stats import BrokerStats, Counters, Distribution, Event, PoolStats, WorkerStats
from tests.commands.chaos.building import Case
from tests.running import ROOMS, ROOT

DOCS = ROOT / "docs"
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
MONITORING = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
SETTINGS = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
COMMANDS = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
GUARANTEES = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
CONTRACT = (ROOT / "docs" / "contract.md").read_text(encoding="utf-8")
RELIABILITY = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
OPERATING = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
LIMITS = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")
STATS = (ROOT / "docs" / "reference" / "stats.md").read_text(encoding="utf-8")
FIGURES: tuple[type[BaseModel], ...] = (PoolStats, Counters, WorkerStats, Distribution, Event, BrokerStats)
DOCUMENTS = ("contract", "limits", "protocol", "reliability")
FACTORS = {"": 1, "s": 1, "ms": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
MESSAGES = [
    message
    for message in vars(messages).values()
    if isinstance(message, type)
    and message.__module__ == messages.__name__
    and hasattr(message, "__dataclass_fields__")
]
NO_FIELDS = "\u2013"


def _limits() -> list[tuple[str, str]]:
    rows = re.findall(r"^\| (`[^|]*`) \| ([^|]*) \|", LIMITS, re.MULTILINE)
    return [
        (name, default)
        for names, default in rows
        for name in re.findall(r"`([\w.]+)`", names)
        if name.startswith("RACEPOOL_") or "." in name
    ]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.__name__)
def test_every_message_stands_in_the_protocol_document_with_its_fields(message: type) -> None:
    command = message.__name__.upper()
    header = [field for field in fields(message) if field.name != "payload"]
    expected = ", ".join(f"{field.name} {_type_name(field.type)}" for field in header)

    rows = re.findall(rf"^\| {command} \|(?: to \w+ \|)? ([^|]*) \|", PROTOCOL, re.MULTILINE)

    assert rows
    assert set(rows) == {expected or NO_FIELDS}


def test_the_protocol_document_names_no_message_that_is_not_there() -> None:
    commands = set(re.findall(r"^\| ([A-Z]+) \|", PROTOCOL, re.MULTILINE))

    assert commands == {message.__name__.upper() for message in MESSAGES}
    assert f"version {messages.PROTOCOL_VERSION}\n" in PROTOCOL
    assert f"The version is {messages.PROTOCOL_VERSION}. " in PROTOCOL


def test_every_outcome_has_its_payload_explained() -> None:
    section = PROTOCOL.partition("### Outcomes")[2].partition("## ")[0]

    assert set(re.findall(r"^\| ([a-z_]+) \|", section, re.MULTILINE)) - {"outcome"} == set(messages.Outcome)


def test_every_event_of_the_logs_is_explained() -> None:
    table = MONITORING.partition("\n## Logs\n")[2].partition("\n## ")[0]
    explained = {
        name for row in re.findall(r"^\| ([^|]+) \| [^|]{10,} \|$", table, re.MULTILINE) for name in _names(row)
    }
    source = "".join(path.read_text(encoding="utf-8") for room in ROOMS for path in (ROOT / room).rglob("*.py"))
    logged = re.findall(r'(?:Report|Kill|log\.(?:debug|info|warning|error|exception))\(\s*"([a-z]+_[a-z_]+)"', source)

    assert len(set(logged)) > 30
    assert set(logged) - explained == set()


def test_every_setting_stands_in_the_table_of_settings() -> None:
    rows = re.findall(r"^\| (`RACEPOOL_[^|]+) \| [^|]+ \| [^|]{10,} \|$", SETTINGS, re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`(?:RACEPOOL)?(_[A-Z_]+)`", row)]
    extra = {*WORKER_SETTINGS, *EXPORTER_SETTINGS}

    assert sorted(named) == sorted(variable(name).removeprefix("RACEPOOL") for name in {*Settings.model_fields, *extra})


def test_every_command_stands_in_the_table_of_commands() -> None:
    rows = re.findall(r"^\| (`racepool (?:[^|\\]|\\\|)+) \| .{10,} \|$", COMMANDS, re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`racepool ([a-z]+(?: [a-z]+)?)", row)]

    assert sorted(named) == sorted(_commands(main))


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in FIGURES for name in kind.model_fields])
def test_every_figure_of_the_broker_is_explained(kind: type[BaseModel], name: str) -> None:
    section = STATS.partition(f"`{kind.__name__}`")[2].partition("\n## ")[0]

    assert re.search(rf"^\| (?:`\w+`, )*`{name}`(?:, `\w+`)* \| .{{10,}} \|$", section, re.MULTILINE)


@pytest.mark.parametrize(
    "name", sorted(str(path.relative_to(ROOT)) for path in [*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
)
def test_every_link_and_test_that_a_document_names_is_there(name: str) -> None:
    document = (ROOT / name).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", document)
    tests = re.findall(r"`(test_\w+)`", document)
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))

    assert [link for link in links if not ((ROOT / name).parent / link).exists()] == []
    assert [test for test in tests if f"def {test}(" not in source] == []
    assert tests or name not in {"docs/guarantees.md", "docs/contract.md"}


def test_every_guarantee_is_proved_by_tests_of_the_files_that_it_names() -> None:
    rows = re.findall(r"^\| [^|]+ \| ([^|]+) \|$", GUARANTEES, re.MULTILINE)
    proofs = [proof for proof in rows if proof not in {"proved by", "---"}]
    named = [
        (file, test)
        for proof in proofs
        for part in proof.split("; ")
        for file in re.findall(r"\b(test_\w+\.py)\b", part)[:1]
        for test in re.findall(r"`(test_\w+)`", part)
    ]

    assert len(proofs) > 10
    assert [proof for proof in proofs if "`test_" not in proof] == []
    assert len(named) == len(re.findall(r"`test_\w+`", GUARANTEES)), "each test stands after its file"
    assert [(file, test) for file, test in named if f"def {test}(" not in _sources_called(file)] == []


def test_every_promise_of_the_contract_is_proved_by_tests_of_the_files_that_it_names() -> None:
    promises = re.findall(r"^\| [^|]+ \| ([^|]+) \|$", CONTRACT, re.MULTILINE)
    proofs = [proof for promise in promises for proof in promise.split("; ")]
    named = [
        (file, test)
        for file, tests in re.findall(r"(\w+/test_\w+\.py) ((?:`test_\w+`(?:, )?)+)", CONTRACT)
        for test in re.findall(r"test_\w+", tests)
    ]

    assert len(named) == len(re.findall(r"`test_\w+`", CONTRACT)), "each test stands after its file"
    assert [proof for proof in proofs if "`test_" not in proof] == ["proved by", "---"] * CONTRACT.count("proved by |")
    assert [(file, test) for file, test in named if f"def {test}(" not in _source("tests", *file.split("/"))] == []


def test_every_call_and_every_error_stands_in_the_contract() -> None:
    headings = ", ".join(re.findall(r"^## (.*)$", CONTRACT, re.MULTILINE)).split(", ")
    calls = {name for name in vars(ZmqPool) if not name.startswith("_")} - {"of"}
    errors = {
        kind.__name__: ({base.__name__ for base in kind.__bases__} - {"PoolError"})
        for kind in PoolError.__subclasses__()
    }
    rows = re.findall(r"^\| `(\w+Error)` \| (?:`(\w+)` )?\|", CONTRACT, re.MULTILINE)

    assert calls <= set(headings)
    assert {error: {also} - {""} for error, also in rows} == errors


@pytest.mark.parametrize(("name", "default"), _limits())
def test_every_limit_of_the_document_is_the_codes(name: str, default: str) -> None:
    number, _, unit = default.partition(" ")
    if name.startswith("RACEPOOL_"):
        field = name.removeprefix("RACEPOOL_").lower()
        real = Settings.model_fields[field].default
    else:
        module, _, constant = name.rpartition(".")
        real = getattr(importlib.import_module(module), constant)

    assert float(number.replace(",", "")) * FACTORS[unit] == real


def test_every_setting_that_is_a_limit_stands_in_the_document() -> None:
    numbers = {name for name, field in Settings.model_fields.items() if isinstance(field.default, int | float)}

    assert {variable(name) for name in numbers - {"workers"}} <= {name for name, _ in _limits()}


def test_supervisords_patience_stands_in_the_document() -> None:
    shipped = (ROOT / "supervisord.conf").read_text(encoding="utf-8")
    stated = re.findall(r"^\| `stopwaitsecs` of [^|]* \| (\d+) s \|", LIMITS, re.MULTILINE)

    assert re.findall(r"^stopwaitsecs=(\d+)", shipped, re.MULTILINE) == stated


def test_every_kind_of_fault_stands_in_the_document_with_what_it_may_show() -> None:
    section = RELIABILITY.partition("## Faults, and what")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([\w-]+)` \| [^|]+ \| ([^|]+) \|$", section, re.MULTILINE)

    assert [name for name, _ in rows] == list(KINDS)
    for name, shows in rows:
        outcomes = {outcome.partition(" ")[0] for outcome in KINDS[name].shows}
        assert set(re.findall(r"`(\w+Error)`", shows)) == outcomes, name


def test_every_promise_of_the_lab_stands_in_the_document() -> None:
    section = RELIABILITY.partition("## What it does")[2].partition("\n## ")[0]
    told = {part for row in re.findall(r"^\| ([^|]+) \| [^|]+ \|$", section, re.MULTILINE) for part in row.split("; ")}

    assert told - {"promise", "---"} == {invariant.promise for invariant in Case().verdict()}


def test_every_check_of_the_doctor_stands_in_the_document() -> None:
    section = OPERATING.partition("## `racepool doctor`")[2].partition("\n## ")[0]
    told = {name for row in re.findall(r"^\| ([a-z, ]+) \| ", section, re.MULTILINE) for name in row.split(", ")}
    source = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "commands" / "doctor" / "checks").glob("*.py")
    )
    checks = set(re.findall(r'\b(?:ok|warning|problem|told|_room)\(\s*"([a-z ]+)"', source))

    assert len(checks) > 20
    assert told - {"check"} == checks


def _names(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


def _commands(group: click.Group) -> Iterator[str]:
    """The words of each command that is no group."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield from (f"{name} {verb}" for verb in _commands(command)) if isinstance(command, click.Group) else (name,)


def _sources_called(file: str) -> str:
    return "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob(file))


def _source(*parts: str) -> str:
    return ROOT.joinpath(*parts).read_text(encoding="utf-8")


def _type_name(annotation: object) -> str:
    kinds = get_args(annotation) or (annotation,)
    return " or ".join("nil" if kind is NoneType else str(getattr(kind, "__name__", kind)).lower() for kind in kinds)
