"""The broker's stats for a loop that also reads a keyboard: it asks, and never waits."""

from racepool.client.monitoring import stats_in, stats_socket
from racepool.client.stats_socket import StatsSocket
from racepool.protocol.settings import Settings
from racepool.protocol.sockets import Socket
from racepool.protocol.stats import PoolStats


class Enquiry:
    """One question at a time. A question without an answer is asked again, on another connection.

    An answer that comes after that is lost with its connection: so no answer is older than the last question.
    """

    def __init__(self, settings: Settings) -> None:
        """Opens the first connection.

        Raises:
            SettingsError: the run directory or the keys cannot be used.
        """
        self._settings = settings
        self._stats = self._connected()
        self.is_out = False

    @property
    def socket(self) -> Socket:
        """For a poller, until the next question; it becomes readable when there is an answer."""
        return self._stats.socket

    def ask(self) -> None:
        """Asks, or asks again.

        Raises:
            SettingsError: the run directory or the keys were changed, and cannot be used any more.
        """
        if self.is_out:
            self._stats.close()
            self._stats = self._connected()
        self._stats.ask()
        self.is_out = True

    def answer(self) -> PoolStats | None:
        """The answer; None if none has come.

        Raises:
            PoolError: it is no PoolStats of this version.
        """
        answer = self._stats.answer()
        if answer is None:
            return None
        self.is_out = False
        return stats_in(answer, self._settings.stats_endpoint)

    def close(self) -> None:
        """Closes the connection."""
        self._stats.close()

    def _connected(self) -> StatsSocket:
        self._settings.guard(self._settings.stats_endpoint)
        return stats_socket(self._settings)
