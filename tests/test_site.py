"""The documentation site: built strictly, whole, and at home without a network."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import racepool
from racepool.commands.group import main
from racepool.protocol.settings import variable
from racepool.worker.settings import WorkerSettings
from tests.running import ROOT

pytestmark = pytest.mark.system
LOADS = {("link", "href"), ("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("object", "data")}
STYLE_LOADS = re.compile(r"(?:@import|url\()\s*[\"']?((?:https?:)?//[^\"')\s]+)")


class Page(HTMLParser):
    """What a page loads, where its links lead, and the anchors that others may link to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if (tag, name) in LOADS and value not in {None, "#"}:  # the front page is its own index
                self.loads.append(str(value))
            elif (tag, name) == ("a", "href") and value:
                self.links.append(value)
            elif name == "id" and value:
                self.anchors.add(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the front page says; warnings are errors."""
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-c", "docs/site", ".", str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html")}


def test_every_document_is_a_page_that_the_front_page_leads_to(site: Path, pages: dict[Path, Page]) -> None:
    documents = {path.relative_to(ROOT) for path in [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")]}
    front = site / "docs" / "index.html"
    led_to = {(front.parent / urlsplit(link).path).resolve() for link in pages[front].links if not is_foreign(link)}

    assert {site / document.with_suffix(".html") for document in documents} - led_to == {front}


def test_every_link_leads_to_a_page_and_every_anchor_is_on_it(pages: dict[Path, Page]) -> None:
    broken = [
        (str(path), link)
        for path, page in pages.items()
        for link in page.links
        if not is_foreign(link) and not leads_somewhere(path, link, pages)
    ]

    assert sum(len(page.links) for page in pages.values()) > 1000
    assert broken == []


def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    loads = [(path, load) for path, page in pages.items() for load in page.loads]
    styles = [match for path in site.rglob("*.css") for match in STYLE_LOADS.findall(path.read_text(encoding="utf-8"))]

    assert [load for _, load in loads if is_foreign(load)] == []
    assert [load for path, load in loads if not (path.parent / urlsplit(load).path).is_file()] == []
    assert len(loads) > 100
    assert styles == []


def test_the_reference_is_whole(pages: dict[Path, Page], site: Path) -> None:
    anchors = {path.stem: page.anchors for path, page in pages.items() if path.parent == site / "docs" / "reference"}
    public = {
        name for anchor in anchors["api"] if (name := anchor.removeprefix("racepool.")) != anchor and "." not in name
    }
    settings = (site / "docs" / "reference" / "settings.html").read_text(encoding="utf-8")

    assert public == set(racepool.__all__)
    assert {f"racepool-{name}" for name in main.commands} <= anchors["cli"]
    assert [name for name in map(variable, WorkerSettings.model_fields) if f">{name}<" not in settings] == []


def is_foreign(link: str) -> bool:
    return bool(urlsplit(link).netloc)


def leads_somewhere(path: Path, link: str, pages: dict[Path, Page]) -> bool:
    parts = urlsplit(link)
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not parts.fragment or target.suffix != ".html":
        return target.is_file()
    return target in pages and unquote(parts.fragment) in pages[target].anchors
