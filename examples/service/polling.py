"""One poll: the tote's response goes through the pool into the store. A race that fails affects no other race."""

from collections.abc import Sequence
from datetime import UTC, datetime

import httpx
import structlog

from examples.service.settings import ServiceSettings
from examples.service.store import Store
from examples.service.tally import Tally
from racepool import PoolError, PoolFuture, StoreError, TransformedRace, TransformError, ZmqPool

log = structlog.get_logger()
EVENT = "/affiliates/v1/racing/events/{}"


class Poller:
    """Polls single races. `poll` raises nothing but a cancellation: errors are logged and counted."""

    def __init__(
        self, http: httpx.AsyncClient, pool: ZmqPool, store: Store, settings: ServiceSettings, tally: Tally
    ) -> None:
        self._http = http
        self._pool = pool
        self._store = store
        self._settings = settings
        self._tally = tally
        self._listed: Sequence[str] = ()

    async def races(self) -> Sequence[str]:
        """The races to poll: those that start next. If the tote does not answer, the same as at the last tick."""
        try:
            response = (await self._http.get("/races")).raise_for_status().json()
            coming = [race for race in response["races"] if race["status"] != "Final"]
            coming.sort(key=lambda race: int(race["advertised_start"]))
            self._listed = [str(race["event_id"]) for race in coming[: self._settings.races_per_tick]]
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            self._failed(error, "races_not_listed")
        return self._listed

    async def poll(self, race_id: str) -> None:
        """One poll of one race."""
        future: PoolFuture[TransformedRace] | None = None
        try:
            response = (await self._http.get(EVENT.format(race_id))).raise_for_status()
            future = self._pool.exec(
                response.content,  # as fetched: the worker parses it, the event loop does not
                polled_at=datetime.now(UTC),
                # what was stored last, not what was computed last: if storing a poll fails, the increments of the next
                # poll count from the poll before it, and no money is lost
                previous=await self._store.previous(race_id),
                queue_timeout_s=self._settings.queue_timeout_s,
                run_timeout_s=self._settings.run_timeout_s,
            )
            result = await future
            await self._store.add(result)
        except httpx.HTTPError as error:
            self._failed(error, "race_not_fetched", race_id=race_id)
        except TransformError as error:  # the transform has a fault: somebody must read the traceback
            self._failed(
                error, "race_not_transformed", race_id=race_id, traceback=error.remote_traceback, **cost_of(future)
            )
        except StoreError as error:
            self._failed(error, "race_not_stored", race_id=race_id)
        except PoolError as error:  # invalid, timed out, given up, backlog full: the next tick brings a fresher poll
            self._failed(error, "race_not_transformed", race_id=race_id, **cost_of(future))
        except Exception as error:  # noqa: BLE001  # SQLite's own
            self._failed(error, "race_not_stored", race_id=race_id)
        else:
            self._tally.stored += 1
            self._tally.records += len(result.money_flow_records)
            records = len(result.money_flow_records)
            log.info("race_polled", race_id=race_id, status=result.status, records=records, **cost_of(future))

    def _failed(self, error: Exception, event: str, **fields: object) -> None:
        kind = type(error).__name__
        self._tally.failures[kind] += 1
        log.warning(event, error=kind, reason=str(error) or kind, **fields)


def cost_of(future: PoolFuture[TransformedRace] | None) -> dict[str, object]:
    """What the poll cost, as fields of its log line. Empty if neither a broker nor the queue timeout ended its task."""
    timing = None if future is None else future.timing
    return {} if timing is None else timing._asdict()
