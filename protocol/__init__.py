"""The contract of broker, worker and client: messages, codec, race models, errors. Imports nothing of the programs."""

from importlib.metadata import version

VERSION = version("racepool")
