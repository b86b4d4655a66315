"""Programs that tests need and a machine may lack."""

import os
import shutil

import pytest


def required(program: str) -> str:
    """The program's path. Where it is absent the test is skipped by name, or fails under REQUIRE_PROGRAMS=1."""
    path = shutil.which(program)
    if path is not None:
        return path
    if os.environ.get("REQUIRE_PROGRAMS") == "1":
        pytest.fail(f"{program} is not installed, and REQUIRE_PROGRAMS=1 asks for all tests")
    pytest.skip(f"{program} is not installed")
