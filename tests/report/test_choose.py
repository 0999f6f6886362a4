"""The page of a choice: curves with the suggestion marked, for grids of every shape, and the learning curve."""

from __future__ import annotations

import pandas as pd
import pytest

from unmix.report.choose import bits_figure, choice_page, curve_figure
from unmix.study.choose import Choice, suggest_row
from unmix.study.learning_curve import Curve

from .test_figures import words


def table(widths=(16, 32), counts=(2.0, 4.0, 8.0), kinds=("TopKSAE", "SparseCoding")):
    rows = [
        {
            "recipe": f"{kind}(width={width}, k={count})",
            "width": width,
            "l0": count,
            "fvu": 0.5 / count,
            "bits": 40 - width / 8 + abs(count - 4) + number,
            "error": 0.2,
            "codes": 2 * count,
            "residual": 40 - width / 8 + abs(count - 4) + number - 2 * count,
            "dead": 0.0,
            "seeds": 1,
            "agreement": float("nan"),
            "chance": float("nan"),
            "shared": float("nan"),
        }
        for number, kind in enumerate(kinds)
        for width in widths
        for count in counts
    ]
    made = pd.DataFrame(rows)
    chosen = suggest_row(made)
    return made.assign(suggested=made.index == chosen)


def curve():
    rows = {"samples": [100, 400, 1600], "seeds": 1, "fvu": [0.3, 0.2, 0.1], "fvu_error": 0.01}
    truth = {"dictionary_mcc": [0.6, 0.8, 0.9], "dictionary_mcc_error": 0.02, "dictionary_mcc_chance": 0.4}
    return Curve("TopKSAE(width=32, k=4.0)", pd.DataFrame({**rows, **truth}))


def test_a_panel_for_every_finder_a_line_for_every_width_and_the_suggestion_marked_once():
    figure = bits_figure(table(), 55.0)
    assert len(figure.panels) == 3
    said = [words(svg) for svg in figure.panels]
    assert [sum("suggested" in text for text in panel) for panel in said] == [1, 0, 0]
    assert any(text.startswith("32 atoms 40.00") for text in said[0]) and any("codes" in text for text in said[2])
    assert "55.0 bits" in figure.caption and "dotted" not in figure.caption
    assert "dotted" in bits_figure(table(), 41.0).caption
    assert figure == bits_figure(table(), 55.0)


@pytest.mark.parametrize(("widths", "counts", "panels"), [((8, 64, 512), (4.0,), 2), ((16,), (4.0,), 1)])
def test_grids_over_width_alone_and_a_single_recipe_are_drawn(widths, counts, panels):
    made = table(widths, counts, ("TopKSAE",))
    figure = bits_figure(made, 100.0)
    assert len(figure.panels) == panels
    assert any("suggested" in text for text in words(figure.panels[0]))
    assert any("atoms" in text for text in words(figure.panels[0]))


def test_the_page_holds_sentence_table_curve_and_command(tmp_path):
    choice = Choice(table(), None, 55.0, 0.01, curve(), ("PCA(width=99) (at most 16)",))
    path = choice_page(choice, tmp_path / "choose.html", "unmix choose acts/ finder.k=2,4,8")
    page = path.read_text(encoding="utf-8")
    assert page.count("<svg") == 5 and "unmix choose acts/ finder.k=2,4,8" in page
    assert "Suggested: TopKSAE(width=32, k=4.0)" in page and "not the true number of features" in page
    assert "Left out: PCA(width=99)" in page and "more rows would help" in page
    assert page.index("TopKSAE(width=32, k=4.0)</td>") < page.index("TopKSAE(width=16, k=4.0)</td>"), (
        "fewest bits first"
    )


def test_the_learning_curve_shows_recovery_beside_its_chance_where_the_truth_is_known():
    both = curve_figure(curve())
    assert len(both.panels) == 2 and any("chance 0.40" in text for text in words(both.panels[0]))
    assert any(text == "0.1" for text in words(both.panels[1]))
    alone = Curve(
        "x", curve().table.drop(columns=["dictionary_mcc", "dictionary_mcc_error", "dictionary_mcc_chance"])
    )
    assert len(curve_figure(alone).panels) == 1
