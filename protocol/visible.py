"""How text of races, peers, files and other programs is shown: it cannot steer a terminal, and it forges no line.

Knows no stream. What is not printable is shown as an escape: control characters, also those above U+007F; marks that
have no width or turn the direction of text; line separators; lone surrogates.
"""

import re

_PERHAPS = re.compile(r"[^\n -~]")


def visible(text: str) -> str:
    r"""The text, with an escape such as `\x1b`, `\n` or `\u202e` for each character that is not printable.

    For people, not for programs: a text with a backslash of its own may look the same.
    """
    return text if text.isprintable() else "".join(map(_escaped, text))


def visible_lines(text: str) -> str:
    """As `visible`, but line breaks stay: the lines after the first are indented, and look like no other message."""
    return text if text.isprintable() else "\n  ".join(map(visible, text.rstrip("\n").split("\n")))


def visible_json(text: str) -> str:
    """JSON with the same value, in which each character that is not printable is escaped, as JSON escapes it."""
    return text if text.isprintable() else _PERHAPS.sub(_escaped_if_unprintable, text)


def json_escapes(text: str) -> str:
    r"""Each character as JSON escapes it, such as `\u202e`; one above U+FFFF as two surrogates."""
    units = text.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[place : place + 4]}" for place in range(0, len(units), 4))


def _escaped(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def _escaped_if_unprintable(found: re.Match[str]) -> str:
    return found[0] if found[0].isprintable() else json_escapes(found[0])
