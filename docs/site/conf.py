"""The documentation site: `sphinx-build -W -c docs/site . build/site`, then open build/site/index.html.

The source folder of the site is the repository itself. So a link between README, docs and source works in the same way
in the repository and on the site.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for settings_table and source_pages, below

from racepool.protocol import VERSION

project = "racepool"
author = "The racepool authors"
copyright = f"{author}, MIT licence"  # noqa: A001  # the name is given by Sphinx
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
include_patterns = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/**.md", "benchmarks/report/report.md"]
exclude_patterns = [".*", "build", "dist"]  # a walk through an environment takes longer than the site
default_role = "code"  # docstrings mark code with single backticks, as Markdown does

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
html_copy_source = False  # the pages that show files have no source page
