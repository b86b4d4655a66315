"""The pytest plugin: a real pool for the tests of whoever builds on racepool.

pytest loads it in every run on a machine that has racepool, also where nothing is tested with it. So it imports nothing
of ours before a fixture is used, adds no option, marker or hook, and its name is its own at the top level: `client` may
well be a folder of the tested project's, and pytest would have looked for the plugin in there.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from racepool import ZmqPool

WORKERS = 2
"""Enough for one task to overtake another, and cheap to start."""


@pytest.fixture(scope="session")
def racepool_settings() -> Mapping[str, object]:
    """The settings of the `racepool` fixture's pool, to be overridden in a conftest.py.

    Any setting by its name in lower case, as for `client.local_pool`: `{"workers": 1, "run_timeout": 5.0}`.
    """
    return {"workers": WORKERS}


@pytest.fixture(scope="session")
def racepool(racepool_settings: Mapping[str, object]) -> Iterator["ZmqPool"]:
    """A ZmqPool whose private broker and workers are running; one for the whole run, ended with it.

    It is started by the first test that asks for it and needs nothing that is running already. The variables
    RACEPOOL_... of the environment hold for it: with RACEPOOL_TRANSFORM=package.module:function its workers run that,
    which they must be able to import (installed, or on PYTHONPATH). A test that closes or breaks a pool makes its own,
    with `client.local_pool`. Under pytest-xdist each of its processes has one.

    Raises:
        SettingsError: a setting breaks its rule.
        BrokerUnavailableError: the workers did not start; with the last lines of their logs.

    Example:
        >>> def test_my_transform(racepool):  # doctest: +SKIP
        ...     assert racepool.exec(body).result(timeout=10).money_flow_records
    """
    from racepool import local_pool  # noqa: PLC0415  # what it takes to run a pool, for those who use one

    with local_pool(**racepool_settings) as pool:  # type: ignore[arg-type]  # workers is one of the settings
        yield pool
