"""The site: `make docs` builds docs/_build/html from these pages, the recipes' docstrings and docs/gallery."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import reference  # noqa: E402

from unmix import __version__  # noqa: E402

project = "unmix"
author = "the authors of unmix"
release = __version__
extensions = ["myst_parser", "sphinx_gallery.gen_gallery", "sphinx.ext.mathjax", "sphinx_copybutton"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "README.md", "gallery/*.md", "gallery/*.rst"]
html_theme = "furo"
html_title = "unmix"
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "_gallery",
    "filename_pattern": "/",
    "image_scrapers": ("picture.scrape",),
    "capture_repr": ("__str__",),
    "show_memory": False,
    "download_all_examples": False,
    "remove_config_comments": True,
    "write_computation_times": False,
}
suppress_warnings = ["myst.xref_missing"]  # links that leave the site, to the sources beside it


def setup(app: object) -> None:
    """Write the reference pages before they are read."""
    reference.write(HERE / "_reference")
