"""A PostgreSQL server for all tests of a process, and databases in it."""

from collections.abc import Iterator

import pytest

from tests.storage.server import Server, started_server


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One that runs; a test that stops it starts it again."""
    with started_server() as server:
        yield server


@pytest.fixture
def dsn(server: Server) -> str:
    """An empty database."""
    return server.new_database()
