"""Classes from outside unmix: named by path, imported only where they are trusted, found again in stored runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from unmix.core.errors import UsageError
from unmix.core.options import parse, recipes
from unmix.finders import FINDERS
from unmix.study.study import Results, Study
from unmix.worlds.sparse import SparseWorld

DOCS = Path(__file__).parents[2] / "docs" / "extending.md"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The module of docs/extending.md, importable."""
    code = re.search(r"```python\n(# my_methods\.py\n.*?)```", DOCS.read_text(encoding="utf-8"), re.S)
    assert code is not None
    (tmp_path / "my_methods.py").write_text(code.group(1), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "my_methods:Farthest"


def test_is_not_imported_unless_trusted(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNMIX_TRUST", raising=False)
    with pytest.raises(UsageError, match="UNMIX_TRUST=my_methods"):
        FINDERS[own]
    monkeypatch.setenv("UNMIX_TRUST", "another")
    with pytest.raises(UsageError, match="trusted by name"):
        FINDERS.make({"kind": own})


def test_a_study_stores_it_and_finds_it_again(own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMIX_TRUST", "my_methods")
    made = recipes(FINDERS, "finder", parse([f"finder={own}", "finder.width=24", "Farthest.k=2"]), [])[0]
    assert (made.kind, made.width, made.k) == (own, 24, 2)
    world = SparseWorld(latents=24, width=12, active=2)
    Study(worlds=[world], finders=[made], samples=[600], test=200, scores=("fvu", "mcc")).run(tmp_path / "run")
    row = Results(tmp_path / "run").table().iloc[0]
    assert row["finder"] == own
    assert row["fvu"] < 0.5 and row["mcc"] > row["mcc_chance"] + 0.2
    monkeypatch.delenv("UNMIX_TRUST")
    with pytest.raises(UsageError, match="UNMIX_TRUST"):
        Results(tmp_path / "run").table()


def test_what_is_no_recipe_is_refused(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMIX_TRUST", "my_methods,json")
    with pytest.raises(UsageError, match="no class of recipes"):
        FINDERS["json:dumps"]
    with pytest.raises(UsageError, match="no such finder"):
        FINDERS["Farthest"]
