"""Sphinx's settings. ``sphinx-build -W --keep-going -b html docs build/site`` makes the site."""

import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "_ext")]

project = "srflow_plugin"
release = version = runpy.run_path(str(ROOT / "srflow_plugin" / "_version.py"))["__version__"]
copyright = "the authors of srflow_plugin, Apache-2.0"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "pages",
]
exclude_patterns = ["_ext", "_static"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4  # as on GitHub, so that a link works in both places
smartquotes_action = "D"  # dashes only; "--scale" stands in backticks
copybutton_exclude = ".linenos, .gp, .go"

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
nitpicky = True
nitpick_ignore_regex = [("py:.*", ".*")]  # Torch's and NumPy's pages are not at hand offline, inner modules have none

linkcheck_anchors = False

html_theme = "furo"
html_title = f"srflow_plugin {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
