"""Tells the broker that this worker cannot start, so that clients learn why no worker is ready."""

from contextlib import suppress

import zmq

from racepool.protocol import sockets
from racepool.protocol.errors import SettingsError
from racepool.protocol.frames import encode
from racepool.protocol.messages import CannotStart, Name, text
from racepool.protocol.sockets import Context, PeerKeys
from racepool.worker.settings import WorkerSettings

LINGER_MS = 500  # how long a broker may take to take the message; a worker that cannot start is in no hurry


def tell_broker(settings: WorkerSettings, reason: str, keys: PeerKeys | None) -> None:
    """Sends the reason to the broker. Without a broker it is lost: the next start will tell it again."""
    context: Context = zmq.Context()
    with suppress(OSError, SettingsError, zmq.ZMQError):  # the worker ends for another reason, which is logged
        socket = sockets.dealer(context, settings.backend, keys)
        sockets.say(socket, encode(CannotStart(Name(settings.name), text(reason))))
    sockets.destroy(context, LINGER_MS)
