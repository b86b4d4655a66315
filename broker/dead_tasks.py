"""Writes dead tasks to disk, each to a file of its own, for `racepool dead`. Knows no socket, opens no payload.

A thread writes, so that a disk that is slow, full or gone costs the records, and nothing else. It does not call fsync:
an unfinished file has another name, and the checksum tells whether a power cut has damaged a finished one.
"""

import os
import re
import zlib
from collections import deque
from pathlib import Path
from threading import Condition, Thread
from typing import NamedTuple

from racepool.broker.actions import KeepDeadTask
from racepool.protocol import clock
from racepool.protocol.logs import Log
from racepool.protocol.own_directory import opened
from racepool.protocol.quarantine import LostAttempt, Record, directory_in, file_of, is_record_name, pack_head

MAX_TASKS = 100
MAX_BYTES = 256 * 2**20
QUEUE_BYTES = 64 * 2**20
CLOSE_S = 2.0

_UNFINISHED = re.compile(r"[0-9a-f]{32}\.unfinished")


class _Waiting(NamedTuple):
    """A dead task that waits to be written."""

    task: KeepDeadTask
    wall_offset_s: float  # turns its instants into seconds since 1970


class DeadTaskWriter:
    """One thread that writes dead tasks, in order. It starts with the first task.

    At most `MAX_TASKS` tasks with `QUEUE_BYTES` wait for it, or one task of any size; more are dropped, and logged. The
    directory holds at most `MAX_TASKS` records with `MAX_BYTES` together: when a new one is written, the oldest make
    room. No other program writes there, since one broker holds the lock of the run directory; any program may
    remove files.
    """

    def __init__(self, run_dir: Path, log: Log) -> None:
        self._run_dir = run_dir
        # the same directory, even if another user makes one with its name; open until the process ends
        self._place = Path(f"/proc/self/fd/{opened(str(run_dir), run_dir)}")
        self._log = log
        self._waiting: deque[_Waiting] = deque()  # a task leaves it when it is written
        self._waiting_bytes = 0
        self._is_closing = False
        self._changed = Condition()
        self._thread: Thread | None = None

    def keep(self, task: KeepDeadTask, wall_offset_s: float) -> None:
        """Has the thread write this task; returns at once.

        Args:
            task: the dead task, with its payload.
            wall_offset_s: add it to an instant of the task to get seconds since 1970.
        """
        refusal = self._add(_Waiting(task, wall_offset_s))
        if refusal:
            self._log.error("quarantine_failed", task_id=task.task_id.hex(), reason=refusal)

    def close(self, timeout_s: float) -> None:
        """Waits for this long at most until all is written; drops and logs the rest."""
        if self._thread is None:
            return
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            with self._changed:
                left = [each.task.task_id.hex() for each in self._waiting]
            reason = f"not written within {timeout_s:g} s of the broker's end"
            self._log.error("quarantine_failed", task_ids=left, reason=reason)

    def _add(self, waiting: _Waiting) -> str | None:
        """Adds a task for the thread; returns why not, or None."""
        size = len(waiting.task.payload)
        if size > MAX_BYTES:
            return _too_large(size)
        with self._changed:
            if len(self._waiting) >= MAX_TASKS or (self._waiting_bytes and self._waiting_bytes + size > QUEUE_BYTES):
                return f"{len(self._waiting)} tasks with {self._waiting_bytes} bytes wait to be written already"
            self._waiting.append(waiting)
            self._waiting_bytes += size
            self._changed.notify()
        return self._start() if self._thread is None else None

    def _start(self) -> str | None:
        thread = Thread(target=self._run, name="racepool-dead-tasks", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            self._waiting.clear()
            self._waiting_bytes = 0
            return f"no thread to write it: {error}"
        self._thread = thread
        return None

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        self._remove_unfinished()
        while self._is_wanted():
            self._keep_first()

    def _is_wanted(self) -> bool:
        """Waits for a task; false if none will come any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closing)
            return bool(self._waiting)

    def _keep_first(self) -> None:
        first = self._waiting[0]
        task_id, size = first.task.task_id.hex(), len(first.task.payload)
        started_at = clock.now()
        try:
            path = self._write(first)
        except Exception as error:  # noqa: BLE001  # after any error, the next task can still be kept
            self._log.error("quarantine_failed", task_id=task_id, reason=str(error) or repr(error))
        else:
            duration_ms = round((clock.now() - started_at) * 1000, 3)
            self._log.info("task_quarantined", task_id=task_id, path=str(path), size=size, duration_ms=duration_ms)
        with self._changed:
            self._waiting.popleft()
            self._waiting_bytes -= size

    def _write(self, waiting: _Waiting) -> Path:
        head = pack_head(_record_of(waiting))
        size = len(head) + len(waiting.task.payload)
        if size > MAX_BYTES:
            raise ValueError(_too_large(size))
        path = file_of(self._place, waiting.task.task_id)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        try:
            with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(head)
                file.write(waiting.task.payload)
            self._make_room(path, size)
            unfinished.rename(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        return file_of(self._run_dir, waiting.task.task_id)

    def _make_room(self, path: Path, size: int) -> None:
        """Removes the oldest records. A record of the same task does not count: it is about to be replaced."""
        records = sorted(_records_beside(path))
        held_bytes = sum(bytes_ for _, bytes_, _ in records)
        while records and (len(records) >= MAX_TASKS or held_bytes + size > MAX_BYTES):
            _, bytes_, oldest = records.pop(0)
            held_bytes -= bytes_
            oldest.unlink(missing_ok=True)
            self._log.warning("quarantine_dropped", task_id=oldest.stem, reason=f"makes room for {path.stem}")

    def _remove_unfinished(self) -> None:
        """Removes what a broker that was killed has left."""
        try:
            for path in directory_in(self._place).iterdir():
                if _UNFINISHED.fullmatch(path.name):
                    path.unlink(missing_ok=True)
        except OSError:
            return  # if something is wrong with the directory, the first write will tell


def _too_large(size: int) -> str:
    return f"its {size} bytes are more than all records together may have ({MAX_BYTES})"


def _records_beside(path: Path) -> list[tuple[int, int, Path]]:
    """All other records: when each was written, its size, and its path."""
    found = []
    for other in path.parent.iterdir():
        if is_record_name(other.name) and other != path:
            try:
                status = other.lstat()
            except FileNotFoundError:
                continue  # it was removed just now
            found.append((status.st_mtime_ns, status.st_size, other))
    return found


def _record_of(waiting: _Waiting) -> Record:
    task, offset_s = waiting

    def wall_ms(instant: float) -> int:
        return max(0, round((instant + offset_s) * 1000))

    attempts = tuple(
        LostAttempt(each.worker, each.reason, each.signal, wall_ms(each.assigned_at), wall_ms(each.lost_at))
        for each in task.deaths
    )
    checksum, size = zlib.crc32(task.payload), len(task.payload)
    return Record(task.task_id, attempts[-1].lost_at_ms, task.run_timeout_ms, attempts, checksum, size)
