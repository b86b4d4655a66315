"""A PostgreSQL server for the example service's store."""

from collections.abc import Iterator

import pytest

from tests.storage.server import Server, started_server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with started_server() as server:
        yield server
