"""The broker's figures for a loop that also has a keyboard to read: asked for, never waited for."""

import zmq

from racepool.client.monitoring import figures_in
from racepool.protocol.keys import Role, peer_keys
from racepool.protocol.settings import Settings
from racepool.protocol.sockets import Context, Socket, dealer, receive, say
from racepool.protocol.stats import PoolStats


class Enquiry:
    """One question at a time is out. What nobody answered is asked anew from another socket.

    An answer that comes after that is lost with its socket: so no answer is ever older than the last question.
    """

    def __init__(self, settings: Settings) -> None:
        """Opens the first socket.

        Raises:
            SettingsError: the run directory or the keys cannot be used.
        """
        self._settings = settings
        self._context: Context = zmq.Context()
        self.is_out = False
        self.socket = self._connected()

    def ask(self) -> None:
        """Asks, or asks anew.

        Raises:
            SettingsError: as above; somebody has changed them since.
        """
        if self.is_out:
            self.socket.close(linger=0)
            self.socket = self._connected()
        say(self.socket, [b"stats"])
        self.is_out = True

    def answer(self) -> PoolStats | None:
        """What has come, None if nothing has.

        Raises:
            PoolError: it is no PoolStats of this version.
        """
        frames = receive(self.socket)
        if frames is None:
            return None
        self.is_out = False
        return figures_in(frames[-1], self._settings.stats_endpoint)

    def close(self) -> None:
        """Ends it."""
        self._context.destroy(linger=0)

    def _connected(self) -> Socket:
        endpoint = self._settings.stats_endpoint
        self._settings.guard(endpoint)
        return dealer(self._context, endpoint, peer_keys(self._settings, Role.CLIENT, endpoint))
