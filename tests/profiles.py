"""Which of hypothesis's profiles (see tests/conftest.py) this run is with. For modules of tests, at their import."""

from hypothesis import settings


def is_long() -> bool:
    """Whether this is the search of `scripts/test --long`."""
    return settings().max_examples >= settings.get_profile("long").max_examples
