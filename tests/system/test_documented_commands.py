"""Every command and every piece of code in these documents does what the document says."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.running import ROOT
from tests.system.documented import DocumentError, Reader, Step, matches, steps

DOCUMENTS = ("README.md", "docs/service.md", "docs/tutorial.md", "docs/transforms.md")
STEPS = {name: steps(name, (ROOT / name).read_text(encoding="utf-8")) for name in DOCUMENTS}
PYTHON = "```python\nprint(1)\n```\n"


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Reader]]:
    """The reader of this document, in a folder of its own. The reader of the document before is closed first."""
    current: dict[str, Reader] = {}

    def turn_to(document: str) -> Reader:
        if document not in current:
            leave()
            run_dir = Path(tempfile.mkdtemp(prefix="rp-", dir="/tmp"))  # ipc paths must be short
            current[document] = Reader(tmp_path_factory.mktemp("clone"), run_dir)
        return current[document]

    def leave() -> None:
        for one in current.values():
            one.leave()
            shutil.rmtree(one.run_dir)
        current.clear()

    yield turn_to
    leave()


@pytest.mark.system
@pytest.mark.parametrize("step", [step for name in DOCUMENTS for step in STEPS[name]], ids=str)
def test_it_does_what_the_document_says(step: Step, reader: Callable[[str], Reader]) -> None:
    one = reader(step.block.document)
    earlier = STEPS[step.block.document]
    for each in earlier[
        len(one.done) : earlier.index(step) + 1
    ]:  # also the blocks before it, if only this one is selected
        one.done.append(each)
        one.follow(each)


def test_documents_are_run_whole() -> None:
    assert [len(found) >= least for found, least in zip(STEPS.values(), (4, 2, 11, 4), strict=True)] == [True] * 4


@pytest.mark.parametrize(
    "text",
    [
        "```\nls\n```\n",
        "```ruby\nputs 1\n```\n",
        f"<!-- not run: -->\n{PYTHON}",
        f"<!-- not run -->\n{PYTHON}",
        f"<!-- nut run: it is boring -->\n{PYTHON}",
        f"<!-- service -->\nSome words.\n\n{PYTHON}",
        "<!-- output -->\n```text\n1\n```\n",
        f"<!-- not run: it is boring -->\n{PYTHON}\n<!-- output -->\n```text\n1\n```\n",
    ],
)
def test_block_that_is_not_run_without_a_reason_is_no_document(text: str) -> None:
    with pytest.raises(DocumentError):
        steps("it.md", text)


def test_output_is_what_stands_below_its_command() -> None:
    (step,) = steps("it.md", f"{PYTHON}\n<!-- output within 3 s -->\n```text\n1\n```\n")

    assert (step.block.line, step.output, step.within_s) == (1, "1", 3)


@pytest.mark.parametrize("printed", ["1 of 3\n2 of 3", "1 of 3  \n2 of 3\n"])
def test_output_is_recognised(printed: str) -> None:
    assert matches("1 of \u2026\n2 of 3", printed)


@pytest.mark.parametrize("printed", ["", "1 of 3", "1 of 3\n3 of 3", "1 of 3\n2 of 3\n3 of 3", "a\n1 of 3\n2 of 3"])
def test_other_output_is_not_recognised(printed: str) -> None:
    assert not matches("1 of \u2026\n2 of 3", printed)
