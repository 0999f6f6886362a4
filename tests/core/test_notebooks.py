"""What a notebook shows of recipes, scores, tables and figures."""

from __future__ import annotations

import pandas as pd

from unmix.finders.topk_sae import TopKSAE
from unmix.report.page import DataTable, Figure
from unmix.scores.base import Outcome


def test_a_recipe_shows_its_fields_with_changes_in_bold() -> None:
    shown = TopKSAE(width=48)._repr_html_()
    assert "<caption>TopKSAE</caption>" in shown
    assert "<td>width</td><td><b>48</b></td>" in shown
    assert "<td>k</td><td><b>" not in shown


def test_a_score_shows_its_chance_and_no_arrays() -> None:
    shown = repr(Outcome(0.5, 0.1, 1.0, detail={"pairs": list(range(1000))}))
    assert shown == "Outcome(0.5 (chance 0.1, corrected 0.4444))"


def test_figures_and_tables_show_themselves_and_escape_text() -> None:
    figure = Figure("<svg></svg>", "a < b")._repr_html_()
    assert "<svg></svg>" in figure and "a &lt; b" in figure
    table = DataTable(pd.DataFrame({"a": ["<i>"]}), labels={"a": "heading"})._repr_html_()
    assert "heading" in table and "&lt;i&gt;" in table
