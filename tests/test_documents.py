"""What the documents promise, held against the code."""

import re
from dataclasses import fields

import pytest

from protocol import messages
from protocol.settings import Settings, variable
from tests.running import ROOT

PROTOCOL = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
MESSAGES = [
    message
    for message in vars(messages).values()
    if isinstance(message, type)
    and message.__module__ == messages.__name__
    and hasattr(message, "__dataclass_fields__")
]
NO_FIELDS = "\u2013"


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


def _type_name(annotation: object) -> str:
    return str(getattr(annotation, "__name__", annotation)).lower()
