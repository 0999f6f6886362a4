"""The matching as a picture: what is drawn, what the caption says, and what is refused."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from unmix.core.errors import UsageError
from unmix.report.association import association


def words(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return ["".join(node.itertext()) for node in root.iter() if node.tag.endswith("text")]


def detail(m: int, f: int, pairs: list[int], signs: list[int]) -> dict:
    return {"matrix": np.random.default_rng(0).uniform(0.2, 0.9, (m, f)), "pairs": pairs, "signs": signs}


def test_codes_stand_in_the_order_of_their_factors_and_a_minus_marks_a_flip():
    given = detail(4, 2, [3, 1], [1, -1])
    given["matrix"][0] = 0.01, 0.02
    figure = association(given, ["x", "<shape>"], "Mean .8.")
    found = words(figure.panels[0])
    assert [word for word in found if re.fullmatch(r"\d", word)] == ["3", "1", "2", "0"]
    assert f"\u2212{given['matrix'][1, 1]:.2f}".replace("0.", ".") in found and "<shape>" in found
    assert ".01" not in found and "Mean .8." in figure.caption
    assert figure == association(given, ["x", "<shape>"], "Mean .8.")


def test_a_factor_without_a_code_is_named_and_a_wide_map_is_cut():
    assert "Without a code: z1." in association(detail(1, 2, [0, -1], [1, 0])).caption
    wide = association(detail(100, 3, [5, 6, 7], [1, -1, 0]))
    assert "Drawn are 40 of 100 codes and 3 of 3 factors." in wide.caption
    assert "\u2212" in words(wide.panels[0]) and "No code" in words(association(detail(0, 0, [], [])).panels[0])[0]


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match="do not fit"):
        association(detail(3, 2, [0], [1, 1]))
    with pytest.raises(UsageError, match="1 names for 2 factors"):
        association(detail(3, 2, [0, 1], [1, 1]), ["x"])
