"""Brokers without sockets, audited after every test."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from racepool.broker.core import BrokerCore
from racepool.protocol.settings import Settings
from tests.broker.building import EPOCH


@pytest.fixture(autouse=True)
def make_broker() -> Iterator[Callable[..., BrokerCore]]:
    """Builds cores with these settings. At the end of the test their invariants must hold."""
    made: list[BrokerCore] = []

    def make(**settings: Any) -> BrokerCore:  # noqa: ANN401  # any setting's value
        made.append(BrokerCore(Settings.load(**settings), EPOCH))
        return made[-1]

    yield make
    assert [broken for broker in made for broken in broker.audit()] == []


@pytest.fixture
def broker(make_broker: Callable[..., BrokerCore]) -> BrokerCore:
    return make_broker()
