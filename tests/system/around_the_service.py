"""Runs the service code from a document, read from standard input, with a tote, a database and a scheduler.

Its two polls must become money-flow records in the database, the second compared with the first.
"""

import asyncio
import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fastapi import FastAPI

STORED: list[dict[str, Any]] = []
STEPS: list[str] = []
BODY = Path("samples/harness.json").read_bytes()


async def upsert(records: list[dict[str, Any]]) -> None:
    STORED.extend(records)


async def get(_path: str) -> SimpleNamespace:
    return SimpleNamespace(content=BODY)


async def run(service: dict[str, Any]) -> None:
    async with service["lifespan"](FastAPI()):
        first = await service["poll"]("R2")
        await service["poll"]("R2", first)


SERVICE = {
    "upsert": upsert,
    "http": SimpleNamespace(get=get),
    "log": logging.getLogger("service"),
    "scheduler": SimpleNamespace(start=lambda: STEPS.append("start"), shutdown=lambda: STEPS.append("shutdown")),
}
exec(compile(sys.stdin.read(), "README.md", "exec"), SERVICE)  # noqa: S102  # the document's code
asyncio.run(run(SERVICE))
came = [record["incremental_win_amount"] for record in STORED]
runners = len(came) // 2
assert STEPS == ["start", "shutdown"]
assert runners > 5
assert sum(came[:runners]) > 0
assert came[runners:] == [0] * runners, "the second poll brought nothing new"
