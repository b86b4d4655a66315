"""The settings: `SERVICE_` and the name in the environment. Durations are in seconds."""

from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

Seconds = Annotated[float, Field(gt=0, le=86_400)]


class ServiceSettings(BaseSettings):
    """The defaults are for a tick every 15 s: a poll ends before the next one, unless it kills its workers."""

    model_config = SettingsConfigDict(env_prefix="SERVICE_", frozen=True)

    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, lt=65_536)
    tote_url: str = "http://127.0.0.1:8070"
    interval_s: Seconds = 15.0
    races_per_tick: int = Field(5, ge=1)
    fetch_timeout_s: Seconds = 4.0
    queue_timeout_s: Seconds = 8.0
    """All waiting for a worker. It is many times longer than a restart of the broker, and ends before the next tick."""
    run_timeout_s: Seconds = 3.0
    """One attempt. A transform takes milliseconds. One that takes seconds hangs, and its worker should be replaced."""
    start_timeout_s: Seconds = 30.0
    stop_timeout_s: Seconds = 10.0
    health_timeout_s: Seconds = 1.0
    database: str | None = Field(None, repr=False)  # it may have a password
    """The path of a SQLite file, or postgresql://...; None keeps the last poll of each race in memory."""
