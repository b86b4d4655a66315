"""Asks a broker's stats socket, and never waits. Knows no settings; hands out the answer's bytes."""

from types import TracebackType
from typing import Self

import zmq

from racepool.protocol.sockets import Context, PeerKeys, Socket, dealer, destroy, receive, say

QUESTION = b"stats"  # the broker answers any message of one frame


class StatsSocket:
    """One connection to a stats socket, for a loop that waits for other things, too. Not thread-safe.

    It does not open again by itself: the owner closes it and opens another one.

    Args:
        endpoint: the broker's stats endpoint.
        keys: what tcp needs; None over ipc.

    Attributes:
        socket: for a poller; it becomes readable when there is an answer.
    """

    def __init__(self, endpoint: str, keys: PeerKeys | None) -> None:
        self._context: Context = zmq.Context()
        try:
            self.socket = dealer(self._context, endpoint, keys)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def refusals(self) -> Socket:
        """A socket for a poller; it becomes readable when the broker refuses our key. To be called once.

        libzmq gives a refused connection up for good: no later question reaches the broker.
        """
        monitor: Socket = self.socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
        return monitor

    def ask(self) -> None:
        """Sends a question, or loses it if the broker has refused our key."""
        say(self.socket, [QUESTION])

    def answer(self) -> bytes | None:
        """The next answer; None if none has come."""
        frames = receive(self.socket)
        return None if frames is None else frames[-1]

    def close(self) -> None:
        """Closes the connection at once; an answer that is on its way is lost. May be called again."""
        destroy(self._context, 0)
