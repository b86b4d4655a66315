"""The exit codes of every program."""

from enum import IntEnum


class Exit(IntEnum):
    """The codes of sysexits(3), where one fits."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    NO_BROKER = 69
    LOCK_TAKEN = 75
    BAD_SETTINGS = 78
    INTERRUPTED = 130  # as shells report an end by Ctrl-C
