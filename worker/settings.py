"""The worker's own settings, beside those of all programs."""

import os

from pydantic import Field, field_validator

from protocol.messages import MAX_NAME_CHARS
from protocol.settings import Settings


def _default_name() -> str:
    return os.environ.get("SUPERVISOR_PROCESS_NAME") or f"worker-{os.getpid()}"


class WorkerSettings(Settings):
    """The settings of a worker process."""

    name: str = Field(
        default_factory=_default_name, description="this worker's name in logs and stats; unique among the workers"
    )
    transform: str = Field(
        "worker.transform:transform_race",
        description="what to run, as package.module:function, called as transform_race is",
    )

    @field_validator("name")
    @classmethod
    def _fits_the_wire(cls, name: str) -> str:
        if not (0 < len(name) <= MAX_NAME_CHARS and name.isprintable()):
            raise ValueError(f"a name has 1 to {MAX_NAME_CHARS} printable characters")
        return name
