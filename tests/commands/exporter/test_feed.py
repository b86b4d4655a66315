"""The feed of the status page: each reader waits for the next message, and a closed feed has none."""

import asyncio

from racepool.commands.exporter.feed import Feed

PATIENCE_S = 10.0


def test_each_reader_waits_for_the_next_message_and_gets_it_once() -> None:
    async def read() -> list[bytes | None]:
        feed = Feed()
        feed.publish(b"before anybody reads")
        readers = [asyncio.create_task(feed.next()) for _ in range(2)]
        await asyncio.sleep(0)
        feed.publish(b"first")
        found = await asyncio.wait_for(asyncio.gather(*readers), PATIENCE_S)
        late = asyncio.create_task(feed.next())
        for _ in range(3):
            await asyncio.sleep(0)
        assert not late.done(), "the old message came again"
        feed.publish(b"second")
        return [*found, await asyncio.wait_for(late, PATIENCE_S)]

    assert asyncio.run(read()) == [b"first", b"first", b"second"]


def test_close_wakes_every_reader_and_ends_the_feed() -> None:
    async def read() -> list[bytes | None]:
        feed = Feed()
        readers = [asyncio.create_task(feed.next()) for _ in range(2)]
        await asyncio.sleep(0)
        feed.close()
        found = await asyncio.wait_for(asyncio.gather(*readers), PATIENCE_S)
        return [*found, await asyncio.wait_for(feed.next(), PATIENCE_S)]

    assert asyncio.run(read()) == [None, None, None]
