"""Makes a page for each file and folder of the repository that a document links to, so that these links work.

Knows nothing of Markdown: it takes over the links for which the parser found no document.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from pygments.lexers import get_lexer_for_filename
from pygments.util import ClassNotFound
from sphinx.addnodes import download_reference, pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.highlighting import PygmentsBridge
from sphinx.transforms import SphinxTransform

NOT_SHOWN = {"", ".pyc", ".md", ".png"}  # hidden files, files that are not text, and files that have a page already
SHOWN = "source"
"""The folder of these pages on the site; also the type of the references to them."""


class SourceLinks(SphinxTransform):
    """Turns links to files and folders into references to their pages."""

    default_priority = 500
    suffixes: ClassVar[dict[str, str]] = {".service": "ini", ".target": "ini", ".env": "bash", ".conf": "ini"}

    def apply(self, **_: object) -> None:
        """Does it in one document, when Sphinx reads it."""
        shown = self.env.metadata[self.env.docname].setdefault(SHOWN, [])
        for node in [*self.document.findall(download_reference), *self.document.findall(pending_xref)]:
            path = self._path(node)
            if path is None:
                continue
            shown.append(path)
            link = pending_xref("", *node.children, reftype=SHOWN, refdomain="", reftarget=path, refexplicit=True)
            link["refdoc"] = self.env.docname
            node.replace_self(link)

    def _path(self, node: nodes.Element) -> str | None:
        if node.get("reftype") != "myst" or node.get("refdomain"):
            return None
        _, path = self.env.relfn2path(node["reftarget"], self.env.docname)
        root = Path(self.env.srcdir).resolve()
        target = Path(path).resolve()
        return str(target.relative_to(root)) if target.is_relative_to(root) and target.exists() else None


def resolve(app: Sphinx, _env: BuildEnvironment, node: pending_xref, content: nodes.Element) -> nodes.reference | None:
    """Makes the link, relative to the page that contains it."""
    if node["reftype"] != SHOWN:
        return None
    target = app.builder.get_relative_uri(node["refdoc"], f"{SHOWN}/{node['reftarget']}")
    return nodes.reference("", "", content, internal=True, refuri=target)


def pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Makes a page for each linked file and folder, and for each file in a linked folder."""
    root = Path(app.srcdir)
    linked = {root / path for metadata in app.env.metadata.values() for path in metadata.get(SHOWN, [])}
    linked |= {file for path in linked if path.is_dir() for file in _files(path)}
    for path in sorted(linked):
        name = path.relative_to(root)
        body = _listing(app, path, linked) if path.is_dir() else _text(path)
        yield f"{SHOWN}/{name}", {"title": str(name), "body": f"<h1>{name}</h1>{body}"}, "page.html"


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and path.suffix not in NOT_SHOWN)


def _listing(app: Sphinx, folder: Path, linked: set[Path]) -> str:
    root = Path(app.srcdir)
    here = f"{SHOWN}/{folder.relative_to(root)}"
    items = []
    for path in sorted(linked):
        if path.is_file() and path.is_relative_to(folder):
            target = app.builder.get_relative_uri(here, f"{SHOWN}/{path.relative_to(root)}")
            items.append(f'<li><a href="{target}">{path.relative_to(folder)}</a></li>')
    return f"<ul>{''.join(items)}</ul>"


def _text(path: Path) -> str:
    language = SourceLinks.suffixes.get(path.suffix)
    try:
        language = language or get_lexer_for_filename(path.name).aliases[0]
    except ClassNotFound:
        language = "text"
    return PygmentsBridge("html").highlight_block(path.read_text(encoding="utf-8"), language, force=True)


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers all of this. Sphinx calls it."""
    app.add_transform(SourceLinks)
    app.connect("missing-reference", resolve)
    app.connect("html-collect-pages", pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
