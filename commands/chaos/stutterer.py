"""A worker that sends each result three times, as a program of the crash lab.

`python -P -m racepool.commands.chaos.stutterer --name NAME`

It sends the second one at once, as after a fault of the connection. It sends the third one when it begins the next
task, as a faulty worker might that confuses its results. A broker that checks leases accepts neither. The program ends
with the lab.
"""

import sys
from collections.abc import Iterable, Sequence

from racepool.commands.chaos.ending import end_with_the_lab
from racepool.protocol.messages import Result
from racepool.worker.__main__ import main
from racepool.worker.core import Action, Execute, Send
from racepool.worker.runner import Runner


class Stutterer(Runner):
    """A real worker, except that it repeats its results."""

    _said: Sequence[Action] = ()

    def _perform(self, actions: Iterable[Action]) -> None:
        for action in actions:
            if isinstance(action, Execute):
                super()._perform(self._said)
            is_result = isinstance(action, Send) and isinstance(action.message, Result)
            if is_result:
                self._said = [action]
            super()._perform([action, action] if is_result else [action])


if __name__ == "__main__":
    end_with_the_lab()
    sys.exit(main(Stutterer))
