"""A client in a process that gevent or eventlet has patched: uses the pool in all ways, while another greenlet works.

Arguments: the library; when it patches the process (`before` the import of racepool, `after` it, or `late`, when the
pool is connected already); and the socket. With `no-threads` instead of `before`, threads stay real.
"""

import sys
from concurrent import futures
from importlib import import_module
from pathlib import Path

BODY = (Path(__file__).parents[2] / "samples" / "harness.json").read_bytes()
PATIENCE_S = 20


def patch(library: str, **but: bool) -> None:
    module = import_module("gevent.monkey" if library == "gevent" else "eventlet")
    (module.patch_all if library == "gevent" else module.monkey_patch)(**but)


def main(library: str, when: str, socket_path: str) -> None:
    if when == "before":
        patch(library)
    if when == "no-threads":
        patch(library, thread=False)
    import threading  # noqa: PLC0415  # patched by now
    import time  # noqa: PLC0415

    from racepool import InvalidRaceError, ZmqPool  # noqa: PLC0415

    if when == "after":
        patch(library)
    pool = ZmqPool(f"ipc://{socket_path}")
    if when == "late":
        pool.wait_for_workers()
        patch(library)

    ticks = [0]

    def tick() -> None:
        while True:
            ticks[0] += 1
            time.sleep(0.001)

    threading.Thread(target=tick, daemon=True).start()
    ids = {pool.exec(BODY).result(PATIENCE_S).race_id for _ in range(10)}
    assert len(ids) == 1
    assert ticks[0] > 2, "no other greenlet ran meanwhile"

    several = [pool.exec(BODY) for _ in range(10)]
    assert len(futures.wait(several, PATIENCE_S).done) == 10
    assert len(list(futures.as_completed(several, PATIENCE_S))) == 10
    called: list[object] = []
    pool.exec(BODY).add_done_callback(called.append)
    assert len(list(pool.map([BODY] * 10, timeout=PATIENCE_S))) == 10
    assert sum(future.exception() is None for _, future in pool.as_completed([BODY] * 10)) == 10
    assert len(called) == 1
    assert isinstance(pool.exec(b'{"id": 1}').exception(PATIENCE_S), InvalidRaceError)
    assert pool.exec(BODY).cancel()
    assert pool.stats().total_workers == 1

    results: list[str] = []
    threads = [threading.Thread(target=lambda: results.append(pool.exec(BODY).result().race_id)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 5
    pool.shutdown()
    print("all is well", flush=True)  # noqa: T201  # the test reads it


if __name__ == "__main__":
    main(*sys.argv[1:4])
