"""The newest message for any number of readers. A slow reader misses messages, and delays no other reader."""

import asyncio


class Feed:
    """For one event loop. `newest` is empty before the first message."""

    def __init__(self) -> None:
        self.newest = b""
        self.is_closed = False
        self._has_next = asyncio.Event()

    def publish(self, message: bytes) -> None:
        """Gives the message to all readers that wait."""
        self.newest = message
        self._wake()

    def close(self) -> None:
        """Tells all readers that no message will follow."""
        self.is_closed = True
        self._wake()

    async def next(self) -> bytes | None:
        """Waits for the next message; None if no message will follow."""
        if not self.is_closed:
            await self._has_next.wait()
        return None if self.is_closed else self.newest

    def _wake(self) -> None:
        self._has_next.set()
        self._has_next = asyncio.Event()
