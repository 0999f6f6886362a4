"""Figures of the report as pictures of the gallery."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unmix.report.page import Figure

SHOWN: set[int] = set()


def scrape(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """Write every figure that a block of a gallery script has made, and give the lines that show it."""
    from sphinx_gallery.scrapers import figure_rst

    written = []
    for value in list(block_vars["example_globals"].values()):
        if not isinstance(value, Figure) or id(value) in SHOWN:
            continue
        SHOWN.add(id(value))
        for panel in value.panels:
            path = Path(next(block_vars["image_path_iterator"])).with_suffix(".svg")
            path.write_text(panel, encoding="utf-8")
            written.append(str(path))
    return figure_rst(written, gallery_conf["src_dir"]) if written else ""
