"""supervisord as `racepool up` and local pools run it: it reacts at once, and a full disk does not end it."""

import io
import os
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path
from socket import socketpair
from types import FrameType
from typing import IO, Any, NoReturn

from supervisor import events, loggers, process, supervisord
from supervisor.medusa import asyncore_25 as asyncore
from supervisor.states import SupervisorStates

from racepool.protocol import clock
from racepool.protocol.errors import SettingsError
from racepool.protocol.exits import Exit
from racepool.protocol.own_directory import opened
from racepool.protocol.processes import die_with_parent
from racepool.supervision.configuration import PREFIX, taken_caller
from racepool.supervision.endings import Told
from racepool.supervision.orphans import Orphanage
from racepool.supervision.prompt_process import ProgramEnded, PromptProcess

DEVICES = ("/dev/stdout", "/dev/stderr", os.devnull)
WORKER = "worker"  # the group of supervisord.conf
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGCHLD)


class LossyStream(io.TextIOBase):
    """A text stream that writes to a descriptor and ignores errors.

    supervisord reports on its standard error that it cannot write a log line, and dies if that fails as well.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, text: str) -> int:
        """Writes the text, or loses it."""
        with suppress(OSError):
            os.write(self._descriptor, text.encode(errors="backslashreplace"))
        return len(text)

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether the descriptor is a terminal."""
        return os.isatty(self._descriptor)


class LoopWaker:
    """Wakes supervisord's loop, which otherwise looks only once a second whether to start or stop a process.

    It stands in asyncore's map of sockets, so the loop waits for it, too. The loop calls the other methods.
    """

    def __init__(self) -> None:
        self._read_end, self._write_end = socketpair()
        for end in (self._read_end, self._write_end):
            end.setblocking(False)
        asyncore.socket_map[self._read_end.fileno()] = self

    def wake(self) -> None:
        """Makes the loop look at once. A signal handler may call this."""
        with suppress(BlockingIOError):  # the buffer is full, so the loop wakes anyway
            self._write_end.send(b"!")

    def readable(self) -> bool:
        """The loop always waits for it."""
        return True

    def writable(self) -> bool:
        """It never writes."""
        return False

    def handle_read_event(self) -> None:
        """Empties the buffer. Nothing else is to do: the loop is awake."""
        self._read_end.recv(4_096)

    def handle_error(self) -> None:
        """Ignores an error: without it supervisord only reacts later."""

    def close(self) -> None:
        """To be called at the end of the loop; a reload of supervisord begins another loop."""
        del asyncore.socket_map[self._read_end.fileno()]
        self._read_end.close()
        self._write_end.close()


class PromptSupervisor(supervisord.Supervisor):  # type: ignore[misc]  # supervisor has no types
    """supervisord that starts its programs, and ends, without waiting for the next second.

    It does not restart an ended program sooner: the watchdog hurries restarts. It tells the reason when a program ends
    soon after its start. If a worker ends with the code for bad settings at its first start, the set-up cannot work:
    then it ends, with the same code.
    """

    ignores_hangup = False

    def __init__(self, options: supervisord.ServerOptions) -> None:
        super().__init__(options)
        self._told = Told()
        self._refusal: str | None = None

    def runforever(self) -> None:
        """Runs supervisord's loop.

        Raises:
            SystemExit: the set-up cannot work.
        """
        self.options.fork = fork
        events.subscribe(events.ProcessStateStartingEvent, _make_log_folders)
        events.subscribe(ProgramEnded, self._on_ended)
        waker = LoopWaker()
        self._orphanage = Orphanage()

        def receive(number: int, frame: FrameType | None) -> None:
            if number == signal.SIGHUP:  # the terminal was closed; supervisord would begin again, without one
                number = signal.SIGTERM
            self.options.signal_receiver.receive(number, frame)
            if number != signal.SIGCHLD or self.options.mood < SupervisorStates.RUNNING:
                waker.wake()

        for number in SIGNALS:
            signal.signal(number, receive)
        if self.ignores_hangup:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # `racepool up` blocks SIGINT until here
        waker.wake()
        try:
            super().runforever()
        except asyncore.ExitNow:
            if self._refusal is not None:
                sys.exit(Exit.BAD_SETTINGS)
            raise
        finally:
            self._orphanage.end()
            self.options.setsignals()
            waker.close()

    def reap(self, once: bool = False, recursionguard: int = 0) -> None:  # noqa: FBT001, FBT002  # supervisor's
        """Reaps the programs that have ended, and kills what they have left running."""
        super().reap(once, recursionguard)
        if not recursionguard:
            self._orphanage.kill(self.options.pidhistory)

    def _on_ended(self, event: ProgramEnded) -> None:
        ending = event.ending
        if event.is_first and ending.group == WORKER and ending.exit_code == Exit.BAD_SETTINGS:
            if self._refusal is None:
                self._refusal = ending.words or f"{ending.name} refuses its settings; its output says why"
                self._tell(self._refusal)
                self.options.mood = SupervisorStates.SHUTDOWN
        elif self.options.mood >= SupervisorStates.RUNNING and self._told.is_new(ending, clock.now()):
            self._tell(str(ending))  # an end by our own stop tells nothing, and would hide the refusal

    def _tell(self, line: str) -> None:
        self.options.logger.warn(line)  # noqa: G010  # supervisor's logger has no `warning`
        if self.options.silent:  # else the logger also writes to standard error
            sys.stderr.write(f"{PREFIX}{line}\n")


def open_log(path: str, mode: str) -> IO[Any]:
    """Opens a log for supervisord, as `open` does. Follows no link, and needs a directory that is still ours.

    supervisord opens the logs of a program at each start of it, long after the run directory was checked.
    """
    if path in DEVICES:
        return Path(path).open(mode)
    try:
        place = opened(path, Path(path).parent)
    except SettingsError as error:
        raise PermissionError(str(error)) from None
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_APPEND if "a" in mode else os.O_TRUNC)
    try:
        return os.fdopen(os.open(Path(path).name, flags, 0o600, dir_fd=place), mode)
    finally:
        os.close(place)


def _make_log_folders(event: events.ProcessStateStartingEvent) -> None:
    """Makes the folders of a program's logs, without which it cannot start: the run directory may have been emptied."""
    for log in (event.process.config.stdout_logfile, event.process.config.stderr_logfile):
        if log:
            with suppress(OSError):
                Path(log).parent.mkdir(mode=0o700, parents=True, exist_ok=True)


def fork() -> int:
    """A fork whose child takes signals, alone and as a group, and ends with its parent, from its first moment on.

    After a plain fork, the child has supervisord's signal handlers until it becomes the program, so a signal does not
    end it. Its process group does not exist yet: supervisord cannot signal the group, takes the program for ended, and
    waits until it is time to kill it. And if supervisord dies meanwhile, the program notices only where the parent of
    orphans is process 1; elsewhere it would run for ever.
    """
    mask, parent = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS), os.getpid()
    try:
        pid = os.fork()
        if pid == 0:
            try:
                for number in SIGNALS:
                    signal.signal(number, signal.SIG_DFL)
                die_with_parent(parent)
            except BaseException:  # noqa: BLE001  # after any error the child ends, or it would go on as a second supervisord
                os._exit(1)
        else:
            with suppress(OSError):  # the child is the program already and has made the group; or it has ended
                os.setpgid(pid, pid)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return pid


class PromptOptions(supervisord.ServerOptions):  # type: ignore[misc]  # supervisor has no types
    """supervisord's options, whose errors are one line."""

    def usage(self, msg: object) -> NoReturn:
        """Writes the error, and ends.

        The exit code is not 2, for wrong usage: the user did not write this file, and the failure may mend itself.
        """
        sys.stderr.write(f"{PREFIX}supervisord: {msg}\n")
        sys.exit(Exit.FAILURE)


def main() -> None:
    """Runs supervisord with the arguments of this process."""
    caller = taken_caller()
    supervisord.Supervisor = PromptSupervisor
    loggers.open = open_log  # supervisord opens all its logs by this name
    supervisord.ServerOptions = PromptOptions
    process.Subprocess = PromptProcess
    PromptSupervisor.ignores_hangup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # as `nohup` asks for
    sys.stdout = sys.stderr = LossyStream(sys.stderr.fileno())  # standard output may be the programs' log
    try:
        supervisord.main()
    except OSError as error:
        sys.stderr.write(f"{PREFIX}supervisord: {error}\n")
        sys.exit(Exit.FAILURE)
    finally:
        if caller is not None and os.getppid() != caller.pid:  # it was killed, and cannot remove its folder
            shutil.rmtree(caller.directory, ignore_errors=True)


if __name__ == "__main__":
    main()
