"""What the broker itself uses of memory and descriptors, and when that is told or ends it. Measures nothing."""

from racepool.broker.actions import Report
from racepool.broker.core import MAX_CLIENTS

GROWTH_BYTES = 16 * 2**20
CROWDED_AT = (0.5, 0.8)
CALM_AGAIN = 0.9
OWN_FILES = 64
FILES_PER_WORKER = 3  # data, heartbeats, and the pidfd


class MemoryLimitError(Exception):
    """The broker holds more than it may. What a peer piles up within libzmq goes away with the process only."""


class ResourceWatch:
    """Told now and then what is used; tells of each level of descriptors once, until the use was well below it again.

    Args:
        memory_limit: resident bytes, 0 = never.
        file_limit: how many descriptors this process may have. libzmq aborts it when there is none left for a peer.
        workers: how many are expected.
        resident_bytes: at the start.
    """

    def __init__(self, memory_limit: int, file_limit: int, workers: int, resident_bytes: int) -> None:
        self._memory_limit = memory_limit
        self._file_limit = file_limit
        self._enough_files = MAX_CLIENTS + FILES_PER_WORKER * workers + OWN_FILES
        self._least_bytes = resident_bytes
        self._level = 0

    def on_start(self) -> list[Report]:
        """Whether descriptors would be gone before the limit of clients is reached."""
        if self._file_limit >= self._enough_files:
            return []
        reason = "peers beyond it abort the broker; raise the hard limit of open files (ulimit -Hn, LimitNOFILE)"
        fields = {"file_limit": self._file_limit, "enough": self._enough_files, "reason": reason}
        return [Report("file_limit_low", fields)]

    def has_grown(self, resident_bytes: int) -> bool:
        """To be asked every few seconds: whether there may be much to trim, beyond the least that was ever used."""
        self._least_bytes = min(self._least_bytes, resident_bytes)
        return resident_bytes > self._least_bytes + GROWTH_BYTES

    def is_over(self, resident_bytes: int) -> bool:
        """To be asked at least once a second: whether that is more than the limit."""
        return 0 < self._memory_limit < resident_bytes

    def require_memory(self, resident_bytes: int) -> None:
        """As `is_over`, of what is left after a trim.

        Raises:
            MemoryLimitError: that is too much.
        """
        if self.is_over(resident_bytes):
            holds = f"{resident_bytes} bytes of memory, RACEPOOL_BROKER_MEMORY_LIMIT is {self._memory_limit}"
            raise MemoryLimitError(f"{holds}: some peer sends without end, or reads less than it is due")

    def on_files(self, open_files: int) -> list[Report]:
        """To be told every few seconds."""
        level = sum(open_files >= part * self._file_limit for part in CROWDED_AT)
        if level > self._level:
            self._level = level
            return [Report("file_limit_near", {"open_files": open_files, "file_limit": self._file_limit})]
        if open_files < CALM_AGAIN * CROWDED_AT[self._level - 1] * self._file_limit:
            self._level = level
        return []
