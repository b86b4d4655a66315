"""constraints.txt, which scripts/test and CI install by: names and versions alone, of all that the tests need."""

import re
import tomllib

from tests.running import ROOT

LINES = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line[:1] != "#"]


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_constraints_are_names_and_versions_alone() -> None:
    assert [line for line in LINES if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.!+]*", line)] == []


def test_every_dependency_of_the_tests_is_constrained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = {_normalised(re.split(r"[^\w.-]", requirement, maxsplit=1)[0]) for requirement in wanted}

    assert names - {_normalised(line.partition("==")[0]) for line in LINES} == set()
    assert "racepool" not in names
