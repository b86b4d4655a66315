"""A run directory for the programs that the recipes run."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def run_dir() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="rp-", dir="/tmp"))  # ipc paths must be short
    yield directory
    shutil.rmtree(directory, ignore_errors=True)
