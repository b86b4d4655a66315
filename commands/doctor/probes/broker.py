"""The broker's answer about itself."""

import json
import time
from typing import Any

from racepool.client.monitoring import fetch_answer, stats_in
from racepool.commands.doctor.facts import StatsAnswer
from racepool.protocol.errors import PoolError
from racepool.protocol.settings import Settings

ASK_S = 1.0


def answer(settings: Settings) -> StatsAnswer:
    """Asks the stats socket. A broker of another version may answer in a form that we cannot read."""
    asked_at = time.perf_counter()
    try:
        said = fetch_answer(settings, ASK_S)
    except PoolError as error:
        return StatsAnswer(error=str(error))
    took_ms = (time.perf_counter() - asked_at) * 1000
    broker = _broker_in(said)
    version, protocol_version = broker.get("version"), broker.get("protocol_version")
    try:
        stats = stats_in(said, settings.stats_endpoint)
    except PoolError:
        stats = None
    return StatsAnswer(
        took_ms=took_ms,
        stats=stats,
        version=version if isinstance(version, str) else None,
        protocol_version=protocol_version if isinstance(protocol_version, int) else None,
    )


def _broker_in(said: bytes) -> dict[str, Any]:
    try:
        broker = json.loads(said)["broker"]
    except (ValueError, TypeError, LookupError, RecursionError):
        return {}
    return broker if isinstance(broker, dict) else {}
