"""The messages of errors, as docs/errors.md shows them."""

import re

from tests.running import ROOT

ERRORS = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")


def is_documented(error: BaseException | None) -> bool:
    """Whether docs/errors.md shows this message below the name of its class; an ellipsis stands for any text."""
    section = ERRORS.partition(f"\n## {type(error).__name__}\n")[2].partition("\n## ")[0]
    shown = section.partition("```text\n")[2].partition("\n```")[0].splitlines()
    patterns = [".+".join(map(re.escape, line.split("\u2026"))) for line in shown]
    return any(re.fullmatch(pattern, str(error)) for pattern in patterns)
