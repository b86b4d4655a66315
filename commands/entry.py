"""Where the command `racepool` starts, before the imports that take most of its start-up."""

import signal


def main() -> None:
    """Runs the command. Ctrl-C during the imports ends it without a traceback."""
    takes_interrupts = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # False: its parent ignores them
    if takes_interrupts:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from racepool.commands import group, output  # noqa: PLC0415  # after the signal was set

    if takes_interrupts:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with output.standard_streams():
        group.main(prog_name="racepool")
