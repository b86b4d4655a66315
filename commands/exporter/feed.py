"""The newest message for any number of readers. Nobody waits for a slow one: it misses what it had no time for."""

import asyncio


class Feed:
    """Of one event loop. `newest` is empty before the first message."""

    def __init__(self) -> None:
        self.newest = b""
        self.is_closed = False
        self._has_next = asyncio.Event()

    def publish(self, message: bytes) -> None:
        """For whoever waits."""
        self.newest = message
        self._wake()

    def close(self) -> None:
        """Tells all readers that there will be no more."""
        self.is_closed = True
        self._wake()

    async def next(self) -> bytes | None:
        """The next message; None if there will be none."""
        if not self.is_closed:
            await self._has_next.wait()
        return None if self.is_closed else self.newest

    def _wake(self) -> None:
        self._has_next.set()
        self._has_next = asyncio.Event()
