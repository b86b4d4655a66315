"""The tasks that wait for a worker, in arrival order. Order is data: a requeue cannot reorder."""

from heapq import heapify, heappop, heappush

from racepool.broker.tasks import Task


class Backlog:
    """A FIFO by sequence number. `depth` and `payload_bytes` count the tasks that wait.

    A discarded task stays in the heap, without its payload, until it comes up, or until more than half of the heap are
    such leftovers.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, Task]] = []
        self.depth = 0
        self.payload_bytes = 0

    def add(self, task: Task, now: float) -> None:
        """Puts a task at the place of its sequence number."""
        task.queued_since = now
        heappush(self._heap, (task.seq, task))
        self.depth += 1
        self.payload_bytes += len(task.payload)

    def pop(self, now: float) -> Task | None:
        """Takes the oldest task."""
        self._drop_leftovers()
        if not self._heap:
            return None
        task = heappop(self._heap)[1]
        self._leave(task, now)
        return task

    def discard(self, task: Task, now: float) -> None:
        """Takes this task, from its place."""
        self._leave(task, now)
        task.payload = b""
        if len(self._heap) > 2 * self.depth + 64:
            self._heap = [entry for entry in self._heap if entry[1].is_queued]
            heapify(self._heap)

    def oldest(self) -> Task | None:
        """The task that comes up next."""
        self._drop_leftovers()
        return self._heap[0][1] if self._heap else None

    def _leave(self, task: Task, now: float) -> None:
        task.waited_s, task.queued_since = task.waited(now), None
        self.depth -= 1
        self.payload_bytes -= len(task.payload)

    def _drop_leftovers(self) -> None:
        while self._heap and not self._heap[0][1].is_queued:
            heappop(self._heap)
