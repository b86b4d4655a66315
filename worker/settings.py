"""The settings of a worker, in addition to those of all programs."""

import os
from pathlib import Path

from pydantic import Field, field_validator

from racepool.protocol.messages import MAX_NAME_CHARS
from racepool.protocol.settings import Settings, variable

DEFAULT_TRANSFORM = "racepool.races.transform:transform_race"


def _default_name() -> str:
    return os.environ.get("SUPERVISOR_PROCESS_NAME") or f"worker-{os.getpid()}"


class WorkerSettings(Settings):
    """The settings of a worker process."""

    name: str = Field(
        default_factory=_default_name, description="this worker's name in logs and stats; unique among the workers"
    )
    transform: str = Field(
        DEFAULT_TRANSFORM,
        description="what to run, as package.module:function, called as transform_race is",
    )

    @field_validator("name")
    @classmethod
    def _fits_the_wire(cls, name: str) -> str:
        if not (0 < len(name) <= MAX_NAME_CHARS and name.isprintable()):
            raise ValueError(f"a name has 1 to {MAX_NAME_CHARS} printable characters")
        return name


def saboteurs_settings() -> tuple[str, Path]:
    """For the crash lab's saboteur alone: the transform to run after the harm, and the file that notes each harm."""
    return (
        os.environ.get(variable("chaos_transform"), DEFAULT_TRANSFORM),
        Path(os.environ.get(variable("chaos_harms"), os.devnull)),
    )
