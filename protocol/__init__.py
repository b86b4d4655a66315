"""The contract of broker, worker and client: messages, codec, race models, errors. Imports nothing of the programs."""

VERSION = "0.1.0"
