"""Judges how much memory and how many descriptors the broker itself uses. Measures nothing."""

from racepool.broker.actions import Report
from racepool.broker.clients import MAX_CLIENTS

GROWTH_BYTES = 16 * 2**20
CROWDED_AT = (0.5, 0.8)
CALM_AGAIN = 0.9
OWN_FILES = 64
FILES_PER_WORKER = 3  # data, heartbeats, and the pidfd


class MemoryLimitError(Exception):
    """The broker holds more memory than it may. What a peer piled up in libzmq is freed at the end of the process."""


class ResourceWatch:
    """Is told from time to time what is used, and answers what to report.

    It reports each level of open descriptors once, and again only after the use was well below that level.

    Args:
        memory_limit: in resident bytes; 0 = no limit.
        file_limit: how many descriptors this process may have. libzmq aborts the process when it has none for a peer.
        workers: how many are expected.
        resident_bytes: the use at the start.
    """

    def __init__(self, memory_limit: int, file_limit: int, workers: int, resident_bytes: int) -> None:
        self._memory_limit = memory_limit
        self._file_limit = file_limit
        self._enough_files = MAX_CLIENTS + FILES_PER_WORKER * workers + OWN_FILES
        self._least_bytes = resident_bytes
        self._level = 0

    def on_start(self) -> list[Report]:
        """Reports a limit of descriptors that is too low for all clients that may come."""
        if self._file_limit >= self._enough_files:
            return []
        reason = "peers beyond it abort the broker; raise the hard limit of open files (ulimit -Hn, LimitNOFILE)"
        fields = {"file_limit": self._file_limit, "enough": self._enough_files, "reason": reason}
        return [Report("file_limit_low", fields)]

    def has_grown(self, resident_bytes: int) -> bool:
        """Whether the use is far above the least that it ever was, so that a trim may pay. Ask every few seconds."""
        self._least_bytes = min(self._least_bytes, resident_bytes)
        return resident_bytes > self._least_bytes + GROWTH_BYTES

    def is_over(self, resident_bytes: int) -> bool:
        """Whether this use is above the memory limit. Ask at least once a second."""
        return 0 < self._memory_limit < resident_bytes

    def require_memory(self, resident_bytes: int) -> None:
        """Ends the broker if a trim did not help.

        Raises:
            MemoryLimitError: it is still more than the limit.
        """
        if self.is_over(resident_bytes):
            holds = f"{resident_bytes} bytes of memory, RACEPOOL_BROKER_MEMORY_LIMIT is {self._memory_limit}"
            raise MemoryLimitError(f"{holds}: some peer sends without end, or reads less than it is due")

    def on_files(self, open_files: int) -> list[Report]:
        """Reports a level that is newly reached. Call it every few seconds."""
        level = sum(open_files >= part * self._file_limit for part in CROWDED_AT)
        if level > self._level:
            self._level = level
            return [Report("file_limit_near", {"open_files": open_files, "file_limit": self._file_limit})]
        if open_files < CALM_AGAIN * CROWDED_AT[self._level - 1] * self._file_limit:
            self._level = level
        return []
