"""The documentation site: `sphinx-build -W -c docs/site . build/site`, then open build/site/index.html.

Its source is the repository itself, so that links between README, docs and source are the same on the forge and here.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # the two extensions of our own

from racepool.protocol import VERSION

project = "racepool"
author = "The racepool authors"
copyright = f"{author}, MIT licence"  # noqa: A001  # Sphinx calls it so
version = release = VERSION

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "settings_table",
    "source_pages",
]
root_doc = "docs/index"
include_patterns = ["README.md", "CHANGELOG.md", "docs/**.md", "benchmarks/report/report.md"]
exclude_patterns = [".*", "build", "dist"]  # a walk through an environment takes longer than the site
default_role = "code"  # docstrings mark code as Markdown does

myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"racepool {VERSION}"
html_static_path = ["static"]
html_css_files = ["wide.css"]
html_extra_path = ["index.html"]
html_copy_source = False  # pages about files have no source of their own
