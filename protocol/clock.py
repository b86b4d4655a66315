"""The clock of all waiting and judging: seconds that only grow.

Tools for tests (freezegun, mocks of `time.monotonic`) stop or move the clocks of the module `time`. A pool in such a
test must still see time pass, so nothing here may be `time.monotonic` or `time.time` itself.
"""

from time import CLOCK_MONOTONIC, clock_gettime, sleep

__all__ = ["now", "sleep"]


def now() -> float:
    """The kernel's monotonic clock, in seconds. It is the same clock in all processes of a machine."""
    return clock_gettime(CLOCK_MONOTONIC)
