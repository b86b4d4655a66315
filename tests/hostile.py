"""Text as a race, a file or a peer could send it: each kind of character that steers a terminal or forges a line."""

HOSTILE = {
    "escape": "\x1b]0;owned\x07\x1b[31m",
    "newline": "r1\nracepool: all is well",
    "carriage return": "r1\rracepool: all is well",
    "tab": "r1\tr2",
    "delete": "r1\x7f",
    "C1 control": "r1\x9b31m",
    "bidi override": "r1\u202egnp.exe",
    "bidi isolate": "r1\u2066x\u2069",
    "zero width": "r\u200b1\ufeff",
    "line separator": "r1\u2028racepool: all is well\u2029",
    "tag": "r1\U000e0041",
    "lone surrogate": "r1\udcff",
    "NUL": "r1\x00",
}
ALL = "".join(HOSTILE.values())


def is_harmless(text: str) -> bool:
    """Whether nothing in the text steers a terminal, and none of its lines looks like one of racepool's own."""
    lines = text.removesuffix("\n").split("\n")
    return all(line.isprintable() for line in lines) and not any(line.startswith("racepool: all") for line in lines)
