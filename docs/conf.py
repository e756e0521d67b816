"""The site: `make docs` builds it into build/docs, without network.

The order of the pages stands in _toc.yml. The pages themselves are plain Markdown, so that they read as well in the
repository as on the site; what only the site needs is in _extensions/repository.py.
"""

import sys
from pathlib import Path

import fastrnn

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS / "_extensions"))

project = "fastrnn"
author = "the fastrnn developers"
copyright = author
version = release = fastrnn.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "repository",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_copybutton",
    "sphinx_external_toc",
]
source_suffix = {".md": "markdown", ".markdown": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_*"]
templates_path = ["_templates"]
nitpicky = True
# autosummary makes toctrees of its own.
suppress_warnings = ["etoc.toctree"]

# Markdown: links to headings as on the repository's web view.
myst_heading_anchors = 4

# Docstrings. Types and defaults stand there, so the signatures show names and defaults as they are written.
default_role = "literal"
autodoc_typehints = "none"
autodoc_preserve_defaults = True
# Of the adapters, whose packages a build does without.
autodoc_mock_imports = ["autograd", "jax", "mpi4py", "thinc", "torch"]
autosummary_generate = True
numpydoc_show_class_members = False
copybutton_prompt_text = ">>> "

html_theme = "pydata_sphinx_theme"
html_title = "fastrnn"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_context = {"default_mode": "auto"}
html_theme_options = {
    "navigation_with_keys": False,
    "show_prev_next": True,
    "header_links_before_dropdown": 7,
    "navbar_persistent": ["search-button"],
    "navbar_end": ["theme-switcher"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
