"""The directive `settings`: a table of all variables with default, rule and meaning, made from the settings classes."""

from pathlib import Path
from typing import Any, get_args

from docutils import nodes
from pydantic.fields import FieldInfo
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from racepool.protocol.endpoints import sockets_in
from racepool.protocol.settings import Settings, variable
from racepool.worker.settings import WorkerSettings

MADE = sockets_in(Path("DIR")) | {
    "dir": "$XDG_RUNTIME_DIR/racepool, else racepool-UID in $TMPDIR or /tmp",
    "name": "supervisord's process name, else worker-PID",
}
"""In words: the defaults that a function computes."""
SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


class SettingsTable(SphinxDirective):
    """The table of all settings of broker, workers and clients."""

    def run(self) -> list[nodes.Node]:
        """Makes the table."""
        rows = [_row(name, field) for name, field in WorkerSettings.model_fields.items()]
        head = ["| variable | default | rule | meaning |", "| --- | --- | --- | --- |"]
        return self.parse_text_to_nodes("\n".join(head + rows))


def _row(name: str, field: FieldInfo) -> str:
    default = MADE[name] if field.default_factory else field.default
    of_workers = "" if name in Settings.model_fields else "; workers only"
    shown = "none" if default is None else f"`{default}`"
    return f"| `{variable(name)}` | {shown} | {_rule(field)} | {field.description}{of_workers} |"


def _rule(field: FieldInfo) -> str:
    bounds = [
        f"{sign} {getattr(rule, bound)}"
        for rule in field.metadata
        for bound, sign in SIGNS.items()
        if hasattr(rule, bound)
    ]
    words = [f"`{word}`" for word in get_args(field.annotation) if isinstance(word, str)]
    return ", ".join(bounds + words)


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers the directive. Sphinx calls this."""
    app.add_directive("settings", SettingsTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
