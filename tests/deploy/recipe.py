"""Reads the Containerfile as a container engine does."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from tests.running import ROOT

CONTAINER = ROOT / "deploy" / "container"


@dataclass(frozen=True)
class Stage:
    """One stage: its parent image or stage, and its instructions in order."""

    parent: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, word: str) -> list[str]:
        return [argument for each, argument in self.instructions if each == word]

    def last(self, word: str) -> str:
        return self.all(word)[-1]

    def exec_form(self, word: str) -> list[str]:
        """The command of CMD, ENTRYPOINT or HEALTHCHECK, which is a JSON list and needs no shell."""
        argument = self.last(word)
        parsed: list[str] = json.loads(argument[argument.index("[") :])
        return parsed

    def copied(self) -> list[tuple[list[str], str]]:
        """The files that are copied from the sources, and their targets."""
        lines = [line.split() for line in self.all("COPY") if not line.startswith("--from")]
        return [(sources, target) for *sources, target in lines]


def read_recipe(path: Path = CONTAINER / "Containerfile") -> dict[str, Stage]:
    """The stages by name, in their order."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    stages: dict[str, Stage] = {}
    for line in "\n".join(lines).replace("\\\n", "").splitlines():
        word, _, argument = line.partition(" ")
        if word == "FROM":
            parent, _, name = argument.partition(" AS ")
            stages[name] = Stage(parent)
        else:
            stages[name].instructions.append((word, argument))
    return stages
