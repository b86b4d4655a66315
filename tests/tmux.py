"""A terminal as a person sits before it: tmux with a server of the test's own."""

import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from tests.programs import required


class Tmux:
    """One window. `text` is what is to be seen in it; `keys` are typed into it."""

    def __init__(self, env: dict[str, str], width: int, height: int) -> None:
        self._program = required("tmux")
        self._socket = f"racepool-{uuid.uuid4().hex[:8]}"
        self._env = env | {"LC_ALL": "C.UTF-8", "TERM": "xterm-256color", "PS1": "ready$ "}
        for unwanted in ("TMUX", "COLUMNS", "LINES"):
            self._env.pop(unwanted, None)
        self._run("-f", os.devnull, "new-session", "-d", "-x", str(width), "-y", str(height), "bash --norc --noprofile")

    def text(self) -> str:
        return self._run("capture-pane", "-p")

    def lines(self) -> list[str]:
        return self.text().splitlines()

    def keys(self, *keys: str) -> None:
        """Text, or tmux's names of keys such as Enter and C-c."""
        self._run("send-keys", *keys)

    def resize(self, width: int, height: int) -> None:
        self._run("resize-window", "-x", str(width), "-y", str(height))

    def is_in_alternate_screen(self) -> bool:
        return self._run("display-message", "-p", "#{alternate_on}").strip() == "1"

    def close(self) -> None:
        self._run("kill-server")

    def _run(self, *arguments: str) -> str:
        command = [self._program, "-u", "-L", self._socket, *arguments]
        return subprocess.run(command, env=self._env, check=True, capture_output=True, text=True, timeout=20).stdout


@contextmanager
def terminal(env: dict[str, str], width: int = 80, height: int = 24) -> Iterator[Tmux]:
    tmux = Tmux(env, width, height)
    try:
        yield tmux
    finally:
        tmux.close()
