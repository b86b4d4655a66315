"""The contract of broker, worker and client: messages, payloads, errors, settings, stats, sockets, logs.

Imports no other room.
"""

VERSION = "0.1.0"
