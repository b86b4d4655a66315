"""Whatever file or folder of the repository a page links to has a page of its own: links work as on a forge.

Knows nothing of Markdown: it takes over the links that the parser found to lead to no document.
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

NOT_SHOWN = {"", ".pyc", ".md", ".png"}  # hidden files, and what is no source or has a page already
SHOWN = "source"
"""The folder of these pages in the site, and the type of references to them."""


class SourceLinks(SphinxTransform):
    """Turns links to files and folders into references to their pages."""

    default_priority = 500
    suffixes: ClassVar[dict[str, str]] = {".service": "ini", ".target": "ini", ".env": "bash", ".conf": "ini"}

    def apply(self, **_: object) -> None:
        """In one document, as it is read."""
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
    """The link itself, relative to the page that it is on."""
    if node["reftype"] != SHOWN:
        return None
    target = app.builder.get_relative_uri(node["refdoc"], f"{SHOWN}/{node['reftarget']}")
    return nodes.reference("", "", content, internal=True, refuri=target)


def pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """A page for each file and folder that is linked to, and for the files of such a folder."""
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
    """What Sphinx calls."""
    app.add_transform(SourceLinks)
    app.connect("missing-reference", resolve)
    app.connect("html-collect-pages", pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
