"""The file with which the lab makes the saboteur's module end its process at import; its text tells how."""

import os
from pathlib import Path
from typing import Final

ENDS_AT_IMPORT: Final = "ends-at-import"
ABORT: Final = "abort"
EXIT_CODE: Final = 3


def end_at_import(directory: Path) -> None:
    """Ends this process while the file is in the lab's run directory."""
    try:
        how = (directory / ENDS_AT_IMPORT).read_text(encoding="ascii")
    except OSError:
        return
    if how == ABORT:
        os.abort()
    os._exit(EXIT_CODE)
