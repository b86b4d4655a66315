"""Reads the shipped units as systemd does."""

from collections import defaultdict
from pathlib import Path

from tests.running import ROOT

SYSTEMD = ROOT / "deploy" / "systemd"
PREFIX = "/opt/racepool/bin/"


def read_unit(name: str) -> dict[str, list[str]]:
    """The settings of a unit, of all sections together; a setting may occur several times."""
    settings: dict[str, list[str]] = defaultdict(list)
    for line in (SYSTEMD / name).read_text(encoding="utf-8").splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            settings[key].append(value)
    return settings


def command(unit: dict[str, list[str]], setting: str, scripts: Path) -> list[str]:
    """The command that systemd would run, with the scripts of this folder."""
    (line,) = unit[setting]
    program, *arguments = line.split()
    assert program.startswith(PREFIX)
    return [str(scripts / program.removeprefix(PREFIX)), *arguments]


def seconds(span: str) -> float:
    """A span of time, in seconds."""
    return float(span.removesuffix("ms")) / 1000 if span.endswith("ms") else float(span)
