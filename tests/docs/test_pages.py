"""The pages of docs/: every link leads somewhere, every page is on the site, every command of theirs exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from unmix.cli import VERBS
from unmix.shelf import SHELF

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks" / "README.md"])
MADE = ("_gallery/", "_reference/")  # written when the site is built
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    broken = [
        link
        for link in LINK.findall(text)
        if "://" not in link and not link.startswith(MADE) and not (page.parent / link).exists()
    ]
    assert not broken


def test_every_page_is_on_the_site() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^([a-z_-]+(?:/index)?)$", index, re.M))
    assert {page.stem for page in (ROOT / "docs").glob("*.md")} - {"README", "index"} <= listed
    absent = {name for name in listed if not name.startswith("_") and not (ROOT / "docs" / f"{name}.md").is_file()}
    assert not absent


def test_commands_name_verbs_and_recipes_that_exist() -> None:
    verbs = {verb.__name__.strip("_").replace("_", "-") for verb in VERBS}
    names = {name for table in SHELF.values() for name in table}
    for page in PAGES:
        code = "\n".join(re.findall(r"```\n(.*?)```", page.read_text(encoding="utf-8"), re.S))
        for verb in re.findall(r"^unmix ([a-z-]+)", code, re.M):
            assert verb in verbs, f"{page.name}: unmix {verb}"
        for given in re.findall(r"\b(?:finder|encoder|learner)=([\w,:]+)", code):
            for name in given.split(","):
                assert ":" in name or name in names or name == "own", f"{page.name}: {name}"
