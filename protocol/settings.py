"""Every setting, once. Setting `name` is RACEPOOL_NAME in the environment, `--name` as a flag, `name` in the docs."""

import os
import re
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv6Address
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from racepool.protocol import own_directory
from racepool.protocol.endpoints import ANY_HOST, SOCKETS, default_dir, is_tcp, socket_path, sockets_in
from racepool.protocol.errors import START_ONE, SettingsError

PREFIX = "RACEPOOL_"
MAX_IPC_PATH_BYTES = 107  # sizeof(sockaddr_un.sun_path) - 1
WORKER_SETTINGS = ("name", "transform")  # only worker processes read these, see racepool.worker.settings
EXPORTER_SETTINGS = ("exporter_host", "exporter_port", "exporter_allow_host")  # only the exporter reads these
LOOPBACK_HOSTS = ("127.0.0.1", "localhost")
MAX_HOST_CHARS = 253
HOST_NAME = re.compile(r"[a-zA-Z0-9_]([a-zA-Z0-9_-]*[a-zA-Z0-9_])?(\.[a-zA-Z0-9_]([a-zA-Z0-9_-]*[a-zA-Z0-9_])?)*")


def _checked_endpoint(endpoint: str, *, has_keys: bool) -> str:
    scheme, _, address = endpoint.partition("://")
    if scheme == "ipc" and address.startswith("/"):  # not "@name": an abstract socket has no owner
        try:
            size_bytes = len(address.encode())
        except UnicodeEncodeError:
            raise ValueError("a socket's path must be UTF-8; choose another RACEPOOL_DIR") from None
        if size_bytes > MAX_IPC_PATH_BYTES:
            raise ValueError(
                f"a socket's path has at most {MAX_IPC_PATH_BYTES} bytes; choose a shorter RACEPOOL_DIR, or a shorter "
                "TMPDIR for a local pool"
            )
        return endpoint
    if scheme == "tcp":
        host, _, port = address.rpartition(":")
        if not (_is_host(host) and port.isascii() and port.isdecimal() and 0 < int(port) < 65_536):
            raise ValueError("a tcp endpoint is tcp://HOST:PORT, such as tcp://127.0.0.1:PORT, with an IPv6 HOST in []")
        if host not in LOOPBACK_HOSTS and not has_keys:
            raise ValueError(
                "without keys it would be open to anyone; make some with `racepool keygen` and set RACEPOOL_KEYS, "
                "or use tcp://127.0.0.1:PORT"
            )
        return endpoint
    raise ValueError("an endpoint is ipc:///absolute/path or tcp://HOST:PORT")


def _is_host(host: str) -> bool:
    if host.startswith("[") and host.endswith("]"):
        try:
            IPv6Address(host[1:-1])
        except ValueError:
            return False
        return True
    return host == ANY_HOST or (len(host) <= MAX_HOST_CHARS and HOST_NAME.fullmatch(host) is not None)


def _folder(path: Path) -> Path:
    """The absolute path. Refuses what a shell would have changed: the value came from a file that no shell reads."""
    text = str(path)
    if text[0] in "\"' ":
        raise ValueError("begins with a quote or a space; take it out (files of variables need no quotes)")
    if text[0] in "~$":
        raise ValueError("only a shell replaces ~ and $ at the beginning of a path; write the whole path")
    return path.absolute()


MAX_SECONDS = 86_400
Seconds = Annotated[float, Field(gt=0, le=MAX_SECONDS, allow_inf_nan=False)]


def _socket(setting: str) -> Callable[[dict[str, Any]], str]:
    return lambda validated: sockets_in(validated["dir"])[setting]


class Settings(BaseModel):
    """The settings of all programs. Durations are in seconds, sizes in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, defer_build=True)

    dir: Annotated[Path, AfterValidator(_folder)] = Field(
        default_factory=default_dir, description="run directory: sockets, lock; 0700 and ours"
    )
    keys: Annotated[Path | None, AfterValidator(lambda path: path and _folder(path))] = Field(
        None, description="key directory of tcp endpoints, 0700 and ours; default: none, and tcp on loopback only"
    )
    endpoint: str = Field(default_factory=_socket("endpoint"), description="where clients meet the broker")
    backend: str = Field(default_factory=_socket("backend"), description="where workers meet the broker")
    heartbeat_endpoint: str = Field(
        default_factory=_socket("heartbeat_endpoint"), description="where workers' heartbeats meet the broker"
    )
    stats_endpoint: str = Field(
        default_factory=_socket("stats_endpoint"), description="where monitoring asks the broker"
    )
    workers: int = Field(3, ge=1, le=4096, description="how many workers the broker expects, and `up` starts")
    heartbeat_interval: Seconds = Field(0.25, description="seconds between heartbeats, both ways")
    liveness: Seconds = Field(2.0, description="seconds of silence after which a peer is judged")
    max_attempts: int = Field(3, ge=1, le=1000, description="worker deaths after which a task is given up")
    queue_timeout: Seconds = Field(60.0, description="a client's default for the total time of waiting")
    run_timeout: Seconds = Field(30.0, description="a client's default for the time of one attempt")
    connect_timeout: Seconds = Field(30.0, description="how long a client tries to reach its first broker")
    max_in_flight: int = Field(10_000, ge=1, description="unresolved tasks that a client holds at most")
    backlog_limit: int = Field(100_000, ge=1, description="tasks that the broker's backlog holds at most")
    backlog_bytes: int = Field(2**30, ge=1, description="payload bytes that the broker's backlog holds at most")
    broker_memory_limit: int = Field(
        2**32, ge=0, description="resident bytes above which the broker ends and is restarted, 0 = never"
    )
    payload_limit: int = Field(16 * 2**20, ge=1024, le=2**30, description="bytes of one payload at most")
    max_tasks_per_worker: int = Field(0, ge=0, description="tasks after which a worker is recycled, 0 = never")
    worker_memory_limit: int = Field(0, ge=0, description="resident bytes above which a worker is recycled, 0 = never")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is logged")
    log_format: Literal["console", "json"] | None = Field(None, description="default: console on a terminal, else json")

    @field_validator(*SOCKETS)
    @classmethod
    def _can_be_reached_by_ours_alone(cls, endpoint: str, info: ValidationInfo) -> str:
        return _checked_endpoint(endpoint, has_keys=info.data.get("keys") is not None)

    @model_validator(mode="after")
    def _silence_outlasts_heartbeats(self) -> Self:
        if self.liveness < 2 * self.heartbeat_interval:
            raise ValueError(f"LIVENESS ({self.liveness:g}) must be at least twice HEARTBEAT_INTERVAL")
        return self

    @model_validator(mode="after")
    def _broker_outlives_its_backlog(self) -> Self:
        if 0 < self.broker_memory_limit < 2 * self.backlog_bytes:
            raise ValueError(
                f"BROKER_MEMORY_LIMIT ({self.broker_memory_limit}) must be 0 or at least twice BACKLOG_BYTES"
                f" ({self.backlog_bytes}): what is submitted again may fill the backlog twice over"
            )
        return self

    @classmethod
    def load(cls, **values: Any) -> Self:  # noqa: ANN401  # any setting's value
        """The settings: `values` (flags) first, then the environment, then the defaults. An empty variable is none.

        Raises:
            SettingsError: names the variable, the value and the rule.
        """
        environment = {name: value for name in cls.model_fields if (value := os.environ.get(variable(name)))}
        try:
            return cls(**environment | values)
        except ValidationError as error:
            own = [details for details in error.errors() if details["type"] != "default_factory_not_called"]
            raise SettingsError("; ".join(_broken_rule(details) for details in own)) from None

    def origin(self, name: str) -> str:
        """Where the value of setting `name` comes from: "flag", "environment" or "default"."""
        if name not in self.model_fields_set:
            return "default"
        rule: TypeAdapter[Any] = TypeAdapter(type(self).model_fields[name].rebuild_annotation())
        try:
            given = rule.validate_python(os.environ.get(variable(name)))
        except ValidationError:  # the variable is not set, or is broken and a flag hides it
            return "flag"
        return "environment" if given == getattr(self, name) else "flag"

    @staticmethod
    def unknown_variables() -> list[str]:
        """Variables that have our prefix but that no program reads: most likely misspelt."""
        known = {variable(name) for name in (*Settings.model_fields, *WORKER_SETTINGS, *EXPORTER_SETTINGS)}
        return sorted(name for name in os.environ if name.upper().startswith(PREFIX) and name not in known)

    def private_dir(self) -> Path:
        """The run directory, which is created if it does not exist.

        Raises:
            SettingsError: it cannot be created, is not ours, others may enter it, or another user could replace it.
        """
        return made_private("dir", self.dir)

    def endpoints(self) -> list[str]:
        """The four endpoints that the broker binds."""
        return [self.endpoint, self.backend, self.heartbeat_endpoint, self.stats_endpoint]

    def guard(self, endpoint: str) -> None:
        """To be called before a connection: makes sure that no other user can put a socket at the endpoint.

        If the run directory does not exist, it is created, so that no other user can create it. The directory of an
        endpoint outside of it is not created.

        Raises:
            SettingsError: as for `private_dir`; or another user can replace the directory of the endpoint, or write to
                it.
        """
        for directory in self.ipc_directories(endpoint):
            if directory == self.dir:
                self.private_dir()
            else:
                with suppress(OSError):  # it may be made later; each connection looks again
                    os.close(own_directory.opened(endpoint, directory))

    @staticmethod
    def ipc_directories(*endpoints: str) -> set[Path]:
        """The directories in which these endpoints have their sockets; tcp endpoints have none."""
        return {path.parent for path in map(socket_path, endpoints) if path is not None}

    def remedy(self, endpoint: str) -> str:
        """What a user should check when nobody answers at this endpoint."""
        if not is_tcp(endpoint):
            return START_ONE
        if self.keys is None:
            return "is `racepool up` running, with the same endpoints and RACEPOOL_KEYS?"
        return (
            "is `racepool up` running there, is our key in its list (`racepool keys list`, `racepool keys allow`), "
            f"and is {self.keys}/broker.key the broker's?"
        )


def made_private(name: str, directory: Path) -> Path:
    """The directory of setting `name`, which is created if it does not exist.

    Raises:
        SettingsError: it cannot be created, is not ours, others may enter it, or another user could replace it.
    """
    own_directory.make(f"{variable(name)}={directory}", directory)
    return directory


def refuse_foreign_directory(name: str, directory: Path, *, must_exist: bool = True) -> None:
    """Refuses a directory that is not private: all that is in it would not be private either.

    Raises:
        SettingsError: the directory of setting `name` is not ours, others may enter it, or another user could replace
            it.
    """
    refuse = own_directory.refuse_open if must_exist else own_directory.refuse_replaceable
    refuse(f"{variable(name)}={directory}", directory)


def is_supervised() -> bool:
    """Whether supervisord started this process."""
    return "SUPERVISOR_ENABLED" in os.environ


def variable(name: str) -> str:
    """The environment variable of setting `name`."""
    return PREFIX + name.upper()


def _broken_rule(details: Any) -> str:  # noqa: ANN401  # pydantic's ErrorDetails
    message = str(details["msg"]).removeprefix("Value error, ")
    if not details["loc"]:
        return f"{PREFIX}{message}"
    return f"{variable(str(details['loc'][0]))}={details['input']}: {message}"
