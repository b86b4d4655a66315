"""A worker that says each result again, as a program of the crash lab: `python -P -m worker.stutterer --name NAME`.

Once at once, as after a connection that hiccuped; and once more when the next task is in its hands, as a worker of
another make might that mixed its answers up. A broker that keeps to its leases takes neither for an answer. It ends
with whoever holds its standard input.
"""

import os
import sys
import threading
from collections.abc import Sequence

from protocol.messages import Result, Task
from worker.__main__ import main
from worker.core import Action, Send
from worker.runner import Runner

ABANDONED = 3


class Stutterer(Runner):
    """A worker proper, but for what it says twice too often."""

    _said: Sequence[Action] = ()

    def _execute(self, task: Task) -> list[Action]:
        self._perform(self._said)
        actions = super()._execute(task)
        self._said = [each for each in actions if isinstance(each, Send) and isinstance(each.message, Result)]
        return [*self._said, *actions]


def _end_with_the_lab() -> None:
    while os.read(sys.stdin.fileno(), 1):  # not through a buffer, whose lock would abort the interpreter at its end
        pass
    os._exit(ABANDONED)


if __name__ == "__main__":
    threading.Thread(target=_end_with_the_lab, daemon=True).start()
    sys.exit(main(Stutterer))
