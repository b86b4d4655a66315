"""The watch behind the status page, and how many pages may follow it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import orjson
import pytest
import structlog
from prometheus_client import CollectorRegistry
from starlette.requests import Request
from structlog.testing import capture_logs

from racepool.commands.exporter import pool_watch
from racepool.commands.exporter.pool_watch import PoolWatch
from racepool.commands.exporter.server import STREAMS, Pages
from racepool.protocol.errors import BrokerUnavailableError
from racepool.protocol.stats import PoolStats
from tests.commands.exporter.building import pool_stats

REQUEST = Request({"type": "http"})


def watch(ask: Callable[[], PoolStats]) -> PoolWatch:
    return PoolWatch(ask, None, structlog.get_logger())


async def messages(watched: PoolWatch, count: int) -> list[dict[str, object]]:
    """Runs the watch until it has published so many messages."""
    running = asyncio.create_task(watched.run())
    found = []
    async with asyncio.timeout(20):
        for _ in range(count):
            message = await watched.feed.next()
            assert message
            found.append(orjson.loads(message))
    running.cancel()
    return found


def test_going_and_coming_of_the_broker_is_logged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_watch, "INTERVAL_S", 0.01)
    answers: list[PoolStats | None] = [pool_stats(), None, None, pool_stats(), pool_stats()]

    def ask() -> PoolStats:
        answer = answers.pop(0) if answers else pool_stats()
        if answer is None:
            raise BrokerUnavailableError("no broker answered")
        return answer

    with capture_logs() as logged:
        published = asyncio.run(messages(watch(ask), 5))

    assert [each["event"] for each in logged] == ["broker_away", "broker_back"]
    assert [each["level"] for each in published] == ["ok", "down", "down", "ok", "ok"]


def test_turns_that_a_pause_has_missed_are_not_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_watch, "INTERVAL_S", 0.05)
    asked: list[float] = []

    def ask() -> PoolStats:
        asked.append(time.monotonic())
        if len(asked) == 1:
            time.sleep(1.0)  # twenty turns
        return pool_stats()

    asyncio.run(messages(watch(ask), 12))

    assert asked[11] - asked[1] > 5 * 0.05


def test_pages_are_bounded_and_a_closed_one_makes_room() -> None:
    async def statuses() -> list[int]:
        pages = Pages(watch(pool_stats), CollectorRegistry())
        streams: list[AsyncIterator[bytes]] = [pages._stream() for _ in range(STREAMS)]
        found = []
        for stream in streams:
            found.append((await pages._events(REQUEST)).status_code)
            await anext(stream)
        found.append((await pages._events(REQUEST)).status_code)
        await streams[0].aclose()  # type: ignore[attr-defined]  # a generator
        return [*found, (await pages._events(REQUEST)).status_code]

    assert asyncio.run(statuses()) == [200] * STREAMS + [503, 200]
