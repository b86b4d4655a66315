"""What the core asks of its shell. The shell performs the actions in order; none returns a result."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from racepool.broker.tasks import Death, Peer
from racepool.protocol.messages import Assign, Id, Payload, ToClient, ToHeartbeat, ToWorker


@dataclass(frozen=True, slots=True)
class SendToClient:
    """Sends through the frontend. A send that fails comes back as `on_client_unreachable`."""

    peer: Peer
    message: ToClient


@dataclass(frozen=True, slots=True)
class SendStats:
    """Answers an AskStats with the stats of this moment."""

    peer: Peer


@dataclass(frozen=True, slots=True)
class SendToWorker:
    """Sends through the backend. A send that fails comes back as `on_worker_unreachable`."""

    peer: Peer
    message: ToWorker


@dataclass(frozen=True, slots=True)
class SendByValue:
    """Like SendToWorker, for a worker that cannot read the client's shared memory: sends the payload, not a reference.

    If the payload cannot be read here either, it comes back as `on_unreadable`.
    """

    peer: Peer
    assignment: Assign


@dataclass(frozen=True, slots=True)
class SendToHeartbeat:
    """Sends through the heartbeat socket. A send that fails is ignored: the next heartbeat will be answered."""

    peer: Peer
    message: ToHeartbeat


@dataclass(frozen=True, slots=True)
class WatchProcess:
    """Watches the process behind this session; its end comes back as `on_process_exit`, or as `on_process_gone`."""

    session_id: Id
    pid: int


@dataclass(frozen=True, slots=True)
class UnwatchProcess:
    """Ends the watch of the process behind this session."""

    session_id: Id


@dataclass(frozen=True, slots=True)
class KillProcess:
    """Kills the process behind this session with SIGKILL, and ends the watch."""

    session_id: Id


@dataclass(frozen=True, slots=True)
class ProbeProcess:
    """Looks whether the silent process used CPU since the last look; the answer comes back as `on_probe`."""

    session_id: Id


@dataclass(frozen=True, slots=True)
class KeepDeadTask:
    """Writes the record of a dead task to disk; if that fails, the record is lost, and nothing else happens.

    If it `is_shared`, its payload must be read before its client gets the answer: then the client frees the memory.
    """

    task_id: Id
    run_timeout_ms: int
    deaths: tuple[Death, ...]
    is_shared: bool
    payload: Payload


@dataclass(frozen=True, slots=True)
class Report:
    """What an operator must know: one log line, counted and remembered by the statistics."""

    event: str
    fields: Mapping[str, object] = field(default_factory=dict)


Effect: TypeAlias = (
    SendToClient
    | SendStats
    | SendToWorker
    | SendByValue
    | SendToHeartbeat
    | WatchProcess
    | UnwatchProcess
    | KillProcess
    | ProbeProcess
    | KeepDeadTask
)
Action: TypeAlias = Effect | Report
