"""Keeps transformed polls in a database. Needs the extra `postgres`; knows nothing of pools and workers."""

from racepool.storage.postgres_store import PostgresStore

__all__ = ["PostgresStore"]
