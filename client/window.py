"""Which of the client's tasks the broker has now, and which ones the client holds back."""

from collections import deque

from racepool.client.task import ClientTask
from racepool.protocol.messages import Id

WINDOW_UNITS = 256
"""4 MiB; a task counts at least one unit. More tasks at the broker would keep no worker busier."""

REFILL_UNITS = 192
"""A full window is filled again when it has come down to this, so that one wake-up submits many tasks."""


class Window:
    """All unresolved tasks of one client, in the order of submission: those that are sent, and those that are held.

    Invariant: `sent` and `units` count the tasks in `tasks` that have `is_sent`. All others are in `held`, in order;
    `held` may also name tasks that have ended.

    Args:
        least: how many tasks are sent however large they are, so that no worker is idle.
    """

    def __init__(self, *, least: int = 1) -> None:
        self.tasks: dict[Id, ClientTask] = {}
        self.sent = 0
        self.units = 0
        self.held: deque[Id] = deque()
        self._is_full = False
        self._least = least

    def add(self, task: ClientTask) -> None:
        """Holds a new task, as the last one."""
        self.tasks[task.id] = task
        self.held.append(task.id)

    def take(self, task_id: Id) -> ClientTask | None:
        """Ends a task. None if it has ended already: an answer that comes later changes nothing."""
        task = self.tasks.pop(task_id, None)
        if task is not None and task.is_sent:
            self.sent -= 1
            self.units -= task.units
        return task

    def fill(self, limit_bytes: int) -> list[ClientTask]:
        """Sends held tasks in their order, as far as they fit.

        Returns:
            The tasks to submit. One above `limit_bytes` is among them, but not `is_sent`: the caller must end it.
        """
        filled: list[ClientTask] = []
        if self._is_full and self.units > REFILL_UNITS and self.sent >= self._least:
            return filled
        self._is_full = False
        tasks, held = self.tasks, self.held
        while held:
            task = tasks.get(held[0])
            if task is None:
                held.popleft()
                continue
            units = task.units
            if self.sent >= self._least and self.units + units > WINDOW_UNITS:
                self._is_full = True
                break
            held.popleft()
            filled.append(task)
            if task.parcel.size_bytes <= limit_bytes:
                task.is_sent = True
                self.sent += 1
                self.units += units
        return filled

    def hold_all(self) -> None:
        """Holds all tasks again: no session has them."""
        self.held = deque(self.tasks)
        self.sent = self.units = 0
        for task in self.tasks.values():
            task.is_sent = False

    def audit(self) -> list[str]:
        """The invariants that do not hold; empty unless there is a bug. For tests: it looks at every task."""
        broken = []
        sent = [task for task in self.tasks.values() if task.is_sent]
        if (len(sent), sum(task.units for task in sent)) != (self.sent, self.units):
            broken.append("the window counts other tasks than those that are sent")
        held = [task_id for task_id in self.held if task_id in self.tasks]
        if held != [task.id for task in self.tasks.values() if not task.is_sent]:
            broken.append("what is held is not what is not sent, in its order")
        return broken
