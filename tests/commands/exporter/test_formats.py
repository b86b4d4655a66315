"""How the status page writes numbers, run by Node."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from racepool.commands.exporter.server import STATIC
from tests.programs import required

SPANS = {
    0: "0 ms", 0.0004: "0 ms", 0.2504: "250 ms", 0.9994: "999 ms", 0.9996: "1 s", 1: "1.0 s", 9.94: "9.9 s",
    10.4: "10 s", 119.4: "119 s", 119.6: "2 min 0 s", 3599.7: "60 min 0 s", 7199.4: "119 min 59 s",
    7199.6: "2 h 0 min", 86_399.0: "24 h 0 min", 172_769: "47 h 59 min", 172_790: "2 days", 950_400: "11 days",
}  # fmt: skip
MILLISECONDS = {
    0: "0 ms", 0.004: "0 ms", 0.006: "0.01 ms", 0.997: "1.00 ms", 1.04: "1 ms", 9.96: "10 ms", 99.4: "99 ms",
    99.7: "100 ms", 123.4: "123 ms", 999.4: "999 ms", 999.6: "1 s", 1234: "1.23 s", 59_960: "60 s",
}  # fmt: skip
NUMBERS = {
    0: "0", 7: "7", 7.46: "7.5", 12.6: "13", 999.4: "999", 999.6: "1k", 1234: "1.23k", 99_949: "99.9k",
    999_400: "999k", 999_600: "1M", 2_000_000: "2M", 1_234_567: "1.23M",
}  # fmt: skip


def written(function: str, values: list[float], folder: Path) -> list[str]:
    module = Path(shutil.copy(STATIC / "formats.js", folder / "formats.mjs"))  # Node needs the suffix to see a module
    script = f"import {{ {function} }} from {json.dumps(module.as_uri())};"
    script += f"console.log(JSON.stringify({json.dumps(values)}.map({function})))"
    command = [required("node"), "--input-type=module", "--eval", script]
    texts: list[str] = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    return texts


@pytest.mark.parametrize(
    ("function", "expected"), [("span", SPANS), ("milliseconds", MILLISECONDS), ("compact", NUMBERS)]
)
def test_each_figure_is_rounded_before_its_unit_is_chosen(
    tmp_path: Path, function: str, expected: dict[float, str]
) -> None:
    assert dict(zip(expected, written(function, list(expected), tmp_path), strict=True)) == expected
