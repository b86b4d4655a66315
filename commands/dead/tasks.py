"""The dead tasks in a run directory, read from their files. Knows no broker, prints nothing."""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from racepool.client.answers import race_id, race_name
from racepool.protocol.errors import PoolError
from racepool.protocol.parcel import Parcel
from racepool.protocol.quarantine import HEAD_BYTES, BadRecordError, Record, directory_in, is_record_name, unpack_head

OPEN_FLAGS = (
    os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
)  # does not follow a link, and does not block on a pipe
UNFINISHED = ".unfinished"  # the suffix of a file that the broker is writing


@dataclass(frozen=True, slots=True)
class DeadTask:
    """One record. The race's id and name are None if they are not in the beginning of the payload."""

    path: Path
    record: Record
    race_id: str | None
    race_name: str | None

    @property
    def task_id(self) -> str:
        """The task's id as in messages and logs."""
        return self.record.task_id.hex()

    def payload(self) -> bytes:
        """What was submitted.

        Raises:
            PoolError: the file is gone, or it is damaged.
        """
        try:
            content = _read(self.path)
            record, offset = unpack_head(content)
        except (OSError, BadRecordError) as error:
            raise PoolError(f"{self.path}: {_reason(error)}") from None
        payload = content[offset:]
        if not record.is_of(payload):
            raise PoolError(f"{self.path}: is damaged: its payload is not what was submitted; remove it")
        return payload

    def remove(self) -> None:
        """Removes the record.

        Raises:
            PoolError: this user may not remove it.
        """
        _remove(self.path)

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Locks the record while it is submitted: the broker takes a task from one client only.

        Raises:
            PoolError: another process has locked it, or it is gone.
        """
        try:
            file = os.open(self.path, OPEN_FLAGS)
        except OSError as error:
            raise PoolError(f"{self.path}: {_reason(error)}") from None
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise PoolError(f"task {self.task_id} is being retried by another process; wait for that") from None
            yield
        finally:
            os.close(file)


@dataclass(frozen=True, slots=True)
class Unread:
    """A file among the records that is no record, and why."""

    path: Path
    reason: str

    def remove(self) -> None:
        """As `DeadTask.remove`."""
        _remove(self.path)


class DeadTasks:
    """The files of a run directory's dead tasks.

    Attributes:
        tasks: those that can be read, the latest first.
        unread: all other files.
    """

    def __init__(self, run_dir: Path) -> None:
        self._directory = directory_in(run_dir)
        found = [_found(path) for path in self._files()]
        tasks = [each for each in found if isinstance(each, DeadTask)]
        self.tasks = sorted(tasks, key=lambda task: (-task.record.given_up_at_ms, task.task_id))
        self.unread = [each for each in found if isinstance(each, Unread)]

    def named(self, name: str) -> DeadTask:
        """The only task whose id begins with `name`.

        Raises:
            PoolError: there is no such task, there are several, or it cannot be read.
        """
        found = self.record_named(name)
        if isinstance(found, Unread):
            raise PoolError(f"{found.path}: {found.reason}; remove it")
        return found

    def record_named(self, name: str) -> DeadTask | Unread:
        """As `named`, but a record that cannot be read is found as well."""
        found = [each for each in self.records if each.path.stem.startswith(name.lower())]
        if not name or not found:
            raise PoolError(
                f"no dead task {name!r} in {self._directory}; `racepool dead list` shows those that are there"
            )
        if len(found) > 1:
            several = ", ".join(each.path.stem for each in found[:5])
            raise PoolError(f"{len(found)} dead tasks begin with {name!r} ({several}); give more of the id")
        return found[0]

    @property
    def records(self) -> list[DeadTask | Unread]:
        """All tasks, and the damaged files that have the name of a record."""
        return [*self.tasks, *(each for each in self.unread if is_record_name(each.path.name))]

    def short_id(self, task: DeadTask) -> str:
        """The shortest beginning of the task's id that no other task has, but at least eight digits."""
        others = [other.task_id for other in self.tasks if other is not task]
        lengths = range(8, len(task.task_id))
        is_unique = (n for n in lengths if not any(other.startswith(task.task_id[:n]) for other in others))
        return task.task_id[: next(is_unique, len(task.task_id))]

    def _files(self) -> list[Path]:
        try:
            return sorted(path for path in self._directory.iterdir() if path.suffix != UNFINISHED)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise PoolError(f"{self._directory}: {_reason(error)}") from None


def record_count(run_dir: Path) -> int | None:
    """How many records there are, without opening them; None if this user may not look."""
    try:
        return sum(is_record_name(path.name) for path in directory_in(run_dir).iterdir())
    except FileNotFoundError:
        return 0
    except OSError:
        return None


def _found(path: Path) -> DeadTask | Unread:
    try:
        start = _read(path, HEAD_BYTES)
        record, offset = unpack_head(start)
        size = offset + record.payload_bytes
        if path.name != f"{record.task_id.hex()}.dead" or path.stat().st_size != size:
            raise BadRecordError("is damaged: its name or its size is another task's")  # noqa: TRY301  # caught below
    except (OSError, BadRecordError) as error:
        return Unread(path, _reason(error))
    parcel = Parcel.of(start[offset:])
    return DeadTask(path, record, race_id(parcel), race_name(parcel))


def _read(path: Path, size: int = -1) -> bytes:
    with os.fdopen(os.open(path, OPEN_FLAGS), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise BadRecordError("is no file")
        return file.read(size)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise PoolError(f"{path}: cannot be removed ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
