"""Make the pictures of the README from the folders that `unmix demo` and `unmix demo --data digits` wrote.

python docs/figures.py [TEXT_DEMO_FOLDER] [DIGITS_DEMO_FOLDER]; the atlases are pictured where Chromium is found.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from unmix.report import figures
from unmix.report.run import match_figures
from unmix.report.style import Look
from unmix.study.agreement import agreement
from unmix.study.study import Results

OUT = Path(__file__).parent / "figures"


def main(text: Path, digits: Path) -> None:
    """Write docs/figures/*.svg and, with a browser, *.png."""
    OUT.mkdir(exist_ok=True)
    results = Results(text / "run")
    table = results.table()
    look = Look.of(table)
    matched = table[(table["world"] == "matched") & table["own"]].copy()
    matched["at"] = matched["samples"] == matched["samples"].max()
    drawn = {
        "pareto": figures.pareto(table, "data", look),
        "agreement": figures.agreement(agreement(results), look),
        "recovery": figures.recovery(matched, look),
        "match": match_figures(results),
    }
    for name, figure in drawn.items():
        (OUT / f"{name}.svg").write_text(_on_white(figure.panels[0]), encoding="utf-8")
    for name, folder, place in (("atlas-text", text, "#f=7"), ("atlas-digits", digits, "#f=12")):
        _picture((folder / "atlas" / "index.html").resolve().as_uri() + place, OUT / f"{name}.png")


def _on_white(svg: str) -> str:
    """The panel with a white ground, so that it can be read on a dark page."""
    start = svg.index(">", svg.index("<svg")) + 1
    return svg[:start] + '<rect width="100%" height="100%" fill="#ffffff"/>' + svg[start:]


def _picture(address: str, path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        print(f"{path.name}: no Chromium here, left as it is")
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        page = play.chromium.launch(executable_path=browser, args=["--no-sandbox"]).new_page(
            viewport={"width": 1200, "height": 760}
        )
        page.goto(address)
        page.wait_for_timeout(800)
        page.screenshot(path=path)


if __name__ == "__main__":
    given = [Path(word) for word in sys.argv[1:]] + [None, None]
    main(given[0] or Path("unmix-demo-text"), given[1] or Path("unmix-demo-digits"))
