"""A worker that says each result again, as a program of the crash lab.

`python -P -m racepool.commands.chaos.stutterer --name NAME`

Once at once, as after a connection that hiccuped; and once more when the next task is in its hands, as a worker of
another make might that mixed its answers up. A broker that keeps to its leases takes neither for an answer. It ends
with whoever holds its standard input.
"""

import sys
from collections.abc import Iterable, Sequence

from racepool.commands.chaos.ending import end_with_the_lab
from racepool.protocol.messages import Result
from racepool.worker.__main__ import main
from racepool.worker.core import Action, Execute, Send
from racepool.worker.runner import Runner


class Stutterer(Runner):
    """A worker proper, but for what it says twice too often."""

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
