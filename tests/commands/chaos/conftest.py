"""A broker that the test plays for one worker, as for the worker's own tests."""

from tests.worker.conftest import broker, start_broker

__all__ = ["broker", "start_broker"]
