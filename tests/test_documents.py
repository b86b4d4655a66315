"""What the documents promise, held against the code."""

import importlib
import re
from dataclasses import fields

import pytest

from protocol import messages
from protocol.settings import Settings, variable
from tests.running import ROOT

PROTOCOL = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
LIMITS = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")
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


def test_every_outcome_has_its_payload_explained() -> None:
    section = PROTOCOL.partition("### Outcomes")[2].partition("## ")[0]

    assert set(re.findall(r"^\| ([a-z_]+) \|", section, re.MULTILINE)) - {"outcome"} == set(messages.Outcome)


def test_the_readme_lists_every_setting() -> None:
    table = README.partition("## Settings")[2].partition("## ")[0]
    named = re.findall(r"`(?:RACEPOOL)?(_[A-Z_]+)`", table)

    assert {variable(name).removeprefix("RACEPOOL") for name in Settings.model_fields} <= set(named)


def test_every_link_and_test_that_the_readme_names_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    tests = re.findall(r"`(test_\w+)`", README)
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))

    assert [link for link in links if not (ROOT / link).exists()] == []
    assert [test for test in tests if f"def {test}(" not in source] == []
    assert tests


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


def _type_name(annotation: object) -> str:
    return str(getattr(annotation, "__name__", annotation)).lower()
