"""The fake broker of the worker's tests: the test plays the broker for one worker."""

from tests.worker.conftest import broker, start_broker

__all__ = ["broker", "start_broker"]
