"""supervisord as `racepool up` runs it: prompt, and what it cannot say, on a full disk say, does not end it."""

import io
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from socket import socketpair
from types import FrameType

from supervisor import events, supervisord
from supervisor.medusa import asyncore_25 as asyncore
from supervisor.states import SupervisorStates

from racepool.protocol.exits import Exit
from racepool.protocol.processes import die_with_parent

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGCHLD)


class Lossy(io.TextIOBase):
    """A text stream at a descriptor; what that does not take is lost.

    supervisord reports a log line that it cannot write on its standard error, and dies where that fails as well.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, text: str) -> int:
        """Tries to write all of it."""
        with suppress(OSError):
            os.write(self._descriptor, text.encode(errors="backslashreplace"))
        return len(text)

    def fileno(self) -> int:
        """Where it writes to."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether that is a terminal."""
        return os.isatty(self._descriptor)


class Bell:
    """Wakes supervisord's loop, which else looks once a second whether it is to start or end anything."""

    def __init__(self) -> None:
        self._ear, self._clapper = socketpair()
        for end in (self._ear, self._clapper):
            end.setblocking(False)
        asyncore.socket_map[self._ear.fileno()] = self  # which supervisord's loop reads along with its sockets

    def ring(self) -> None:
        """Has the loop look at once. Also for signal handlers."""
        with suppress(BlockingIOError):  # it rings already
            self._clapper.send(b"!")

    def readable(self) -> bool:
        """It is listened to at all times."""
        return True

    def writable(self) -> bool:
        """It has nothing to say."""
        return False

    def handle_read_event(self) -> None:
        """It has rung, and the loop is awake: that is all."""
        self._ear.recv(4_096)

    def handle_error(self) -> None:
        """Without it supervisord is slow, and nothing worse."""

    def close(self) -> None:
        """To be called at the end of the loop: a reload begins another one."""
        del asyncore.socket_map[self._ear.fileno()]
        self._ear.close()
        self._clapper.close()


class Prompt(supervisord.Supervisor):  # type: ignore[misc]  # supervisor has no types
    """supervisord that starts its programs, and ends, without waiting for the next second.

    What ended by itself is the watchdog's to hurry: here a program that ends at once would spin.
    """

    def runforever(self) -> None:
        """Its loop."""
        self.options.fork = fork
        events.subscribe(events.ProcessStateStartingEvent, _make_log_folders)
        bell = Bell()

        def receive(number: int, frame: FrameType | None) -> None:
            self.options.signal_receiver.receive(number, frame)
            if number != signal.SIGCHLD or self.options.mood < SupervisorStates.RUNNING:
                bell.ring()

        for number in SIGNALS:
            signal.signal(number, receive)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # `racepool up` had one wait for this
        bell.ring()
        try:
            super().runforever()
        finally:
            self.options.setsignals()
            bell.close()


def _make_log_folders(event: events.ProcessStateStartingEvent) -> None:
    """Where somebody cleaned the run directory, no program could be started anew without its log."""
    for log in (event.process.config.stdout_logfile, event.process.config.stderr_logfile):
        if log:
            with suppress(OSError):
                Path(log).parent.mkdir(mode=0o700, parents=True, exist_ok=True)


def fork() -> int:
    """A fork whose child can be signalled, alone and as a group, and ends with its parent, from its first moment on.

    Until it is the program, it would else take a signal as supervisord does, and go on; and supervisord would find no
    such group, take the program for ended, and wait for it until it is time to kill it. An orphan would wait for ever
    wherever orphans have another parent than process 1.
    """
    mask, parent = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS), os.getpid()
    try:
        pid = os.fork()
        if pid == 0:
            try:
                for number in SIGNALS:
                    signal.signal(number, signal.SIG_DFL)
                die_with_parent(parent)
            except BaseException:  # noqa: BLE001  # the parent is gone, or whatever: no second supervisord may go on here
                os._exit(1)
        else:
            with suppress(OSError):  # it has been quicker, as a program already; or it has ended
                os.setpgid(pid, pid)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return pid


def main() -> None:
    """Runs supervisord with the arguments of this process."""
    supervisord.Supervisor = Prompt
    sys.stdout = sys.stderr = Lossy(sys.stderr.fileno())  # standard output may be the programs' log, and that alone
    try:
        supervisord.main()
    except SystemExit as error:
        sys.exit(Exit.FAILURE if error.code == Exit.USAGE else error.code)  # its file is ours: no mistake of the user's


if __name__ == "__main__":
    main()
