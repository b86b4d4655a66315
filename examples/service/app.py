"""The application: its lifespan starts and stops everything that it needs; it answers HTTP."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from http import HTTPStatus

import httpx
from fastapi import FastAPI, HTTPException, Response
from pydantic import BaseModel

from examples.service.health import Health, judged
from examples.service.polling import Poller
from examples.service.schedule import Schedule
from examples.service.settings import ServiceSettings
from examples.service.store import store_of
from examples.service.tally import Tally
from racepool import PoolError, PoolStats, ZmqPool


class Amounts(BaseModel):
    """The money on one entrant in cents, as of the last stored poll that told it."""

    entrant_id: str
    win_pool_amount: int
    place_pool_amount: int


def create_app(settings: ServiceSettings) -> FastAPI:
    """The application with these settings. Its start fails with a PoolError if pool or database is not ready."""
    tally = Tally()
    store = store_of(settings.database)
    pool = ZmqPool()
    http = httpx.AsyncClient(base_url=settings.tote_url, timeout=settings.fetch_timeout_s)
    poller = Poller(http, pool, store, settings, tally)
    schedule = Schedule(poller.races, poller.poll, settings.interval_s, tally)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:  # closes everything in the reverse order
            stack.push_async_callback(store.aclose)
            await store.open()
            await stack.enter_async_context(http)
            await stack.enter_async_context(pool)
            # before the first tick: an exec right after it finds a worker
            await pool.wait_for_workers_async(timeout_s=settings.start_timeout_s)
            ticking = asyncio.create_task(schedule.run())
            try:
                yield
            finally:
                ticking.cancel()
                with suppress(asyncio.CancelledError):
                    await ticking
                await schedule.drain(settings.stop_timeout_s)

    app = FastAPI(title="Money flow", lifespan=lifespan)

    @app.get("/health", responses={HTTPStatus.SERVICE_UNAVAILABLE.value: {"model": Health}})
    async def health(response: Response) -> Health:
        """Whether the service can serve; 503 if not."""
        stats = await _stats(pool, settings.health_timeout_s)
        verdict = judged(stats, schedule.last_tick_age_s(), settings.interval_s, tally)
        if verdict.status == "unable":
            response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
        return verdict

    @app.get("/races/{race_id}/money-flow")
    async def money_flow(race_id: str) -> list[Amounts]:
        """The money on each entrant of the race, as stored."""
        rows = await store.previous(race_id)
        if not rows:
            raise HTTPException(HTTPStatus.NOT_FOUND, f"no money of race {race_id} has been stored")
        return [Amounts.model_validate(row) for row in rows]

    return app


async def _stats(pool: ZmqPool, timeout_s: float) -> PoolStats | str:
    """The pool's stats, or the reason why there are none. A probe does not wait for a broker as long as a task does."""
    try:
        return await asyncio.wait_for(pool.stats_async(), timeout_s)
    except TimeoutError:
        return f"the pool's broker does not answer within {timeout_s:g} s"
    except PoolError as error:
        return str(error)
