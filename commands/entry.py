"""Where the command `racepool` begins: before the imports that take half a second."""

import signal


def main() -> None:
    """Runs the command. A Ctrl-C while its modules are imported ends it without a traceback."""
    is_heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else we are to ignore it
    if is_heard:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from racepool.commands import group  # noqa: PLC0415  # what takes the time

    if is_heard:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    group.main()
