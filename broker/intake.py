"""Receives from one of the broker's sockets, within quotas: no flood may starve the others. Opens no message."""

from collections.abc import Callable

import zmq

from racepool.broker.tasks import Peer
from racepool.protocol.messages import Payload
from racepool.protocol.sockets import MAX_FRAMES, Socket, receive_from, skip

MESSAGES_PER_TURN = 64
FRAMES_PER_TURN = 4_096
MAX_FRAMES_SKIPPED = 4_194_304

Handler = Callable[[Peer, list[Payload], zmq.Frame | None], None]


class OverlongMultipartError(Exception):
    """A message has so many frames that skipping the rest would block the other peers of its socket for too long."""


class Intake:
    """One ROUTER, and the handler of each message that comes in there.

    No valid message has MAX_FRAMES frames or more. If one has, its first frames are handed on, and the rest is
    skipped, some frames in each turn. Until its end (`is_stuck`), libzmq delivers no other message of this socket.
    """

    def __init__(self, socket: Socket, handle: Handler) -> None:
        self.socket = socket
        self.is_stuck = False
        self._handle = handle
        self._skipped = 0

    def drain(self) -> bool:
        """Handles what is there, within the quota of a turn; true if nothing is left.

        Raises:
            OverlongMultipartError: only a new broker gets rid of that message.
        """
        if self.is_stuck and not self._skip():
            return False
        for _ in range(MESSAGES_PER_TURN):
            received = receive_from(self.socket)
            if received is None:
                return True
            self._handle(*received)
            if len(received[1]) == MAX_FRAMES and not self._skip():
                return False
        return False

    def _skip(self) -> bool:
        self.is_stuck = not skip(self.socket, FRAMES_PER_TURN)
        self._skipped = self._skipped + FRAMES_PER_TURN if self.is_stuck else 0
        if self._skipped >= MAX_FRAMES_SKIPPED:
            raise OverlongMultipartError(f"a peer sent a message of more than {MAX_FRAMES_SKIPPED} frames")
        return not self.is_stuck
