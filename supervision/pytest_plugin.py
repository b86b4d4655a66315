"""The pytest plugin: a real pool for the tests of a project that uses racepool.

pytest loads it in every run in an environment that has racepool, also where no test uses it. So it imports no other
module of racepool before a fixture is used, and adds no option, marker or hook.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from racepool import ZmqPool

WORKERS = 2
"""Two are enough for one task to overtake another, and start quickly."""


@pytest.fixture(scope="session")
def racepool_settings() -> Mapping[str, object]:
    """The settings of the `racepool` fixture's pool; override this fixture in a conftest.py.

    Any argument of `racepool.local_pool`: `{"workers": 1, "transform": "package.module:function", "run_timeout": 5.0}`.
    """
    return {"workers": WORKERS}


@pytest.fixture(scope="session")
def racepool(racepool_settings: Mapping[str, object]) -> Iterator["ZmqPool"]:
    """A ZmqPool with a private broker and private workers; one for the whole run.

    The first test that asks for it starts the pool; the end of the run stops it. No other pool need run. The variables
    RACEPOOL_... of the environment apply: with RACEPOOL_TRANSFORM=package.module:function the workers run that function
    and must be able to import it (installed, or on PYTHONPATH). A test that closes or breaks a pool makes its own with
    `racepool.local_pool`. Under pytest-xdist each process has its own pool.

    Raises:
        SettingsError: a setting breaks its rule, or the workers cannot import the transform.
        BrokerUnavailableError: the workers did not start; the text has the last lines of their logs.

    Example:
        >>> def test_my_transform(racepool):  # doctest: +SKIP
        ...     assert racepool.exec(body).result(timeout=10).money_flow_records
    """
    from racepool import local_pool  # noqa: PLC0415  # see above

    with local_pool(**racepool_settings) as pool:  # type: ignore[arg-type]  # workers is one of the settings
        yield pool
