"""`racepool exporter` as a process, and its answers."""

import json
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tests.running import RACEPOOL

PATIENCE_S = 10


@contextmanager
def exporting(env: dict[str, str], *options: object) -> Iterator[str]:
    """Runs an exporter at a free loopback port; yields its URL, which ends with a slash."""
    with started(env, *options) as (_, url):
        yield url


@contextmanager
def started(
    env: dict[str, str], *options: object, prefix: Sequence[str] = ()
) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """As `exporting`, but also yields the process; `prefix` is a command that runs it."""
    command = [*prefix, str(RACEPOOL), "exporter", "--port", "0", *map(str, options)]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert "exporter_started" in line, line + process.stdout.read()
            yield process, json.loads(line)["page"]
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE_S)


def fetch(url: str, **headers: str) -> str:
    """Fetches a page as text."""
    request = urllib.request.Request(url, headers={name.replace("_", "-"): value for name, value in headers.items()})  # noqa: S310  # loopback
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:  # noqa: S310
        text: str = answer.read().decode()
        return text


def fetch_json(url: str) -> Any:  # noqa: ANN401  # any JSON value
    """Fetches and parses JSON."""
    return json.loads(fetch(url))
