"""The figures: deterministic, escaped, and drawn from degenerate tables too."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest

from unmix.core.errors import UsageError
from unmix.report import labels, page
from unmix.report.figures import agreement, costs, firing_rates, gaps, pareto, recovery, spectrum
from unmix.report.style import COLOURS, FINDERS, Look, drawing, panel, short

from . import made_up

HOSTILE = '<script>alert(1)</script> $\\frac{ "x" 日本 &'
DRAWN = {
    "pareto": lambda: pareto(made_up.scores()),
    "costs": lambda: costs(made_up.scores()),
    "agreement": lambda: agreement(made_up.pairs()),
    "recovery": lambda: recovery(made_up.recovered()),
    "spectrum": lambda: spectrum(made_up.eigenvalues(), made_up.eigenvalues(1.1)),
    "firing_rates": lambda: firing_rates(made_up.rates(1), made_up.rates(2)),
}


def words(svg: str) -> list[str]:
    """The texts of a figure; raises where it is not well-formed."""
    root = ElementTree.fromstring(svg)
    return ["".join(node.itertext()) for node in root.iter() if node.tag.endswith("text")]


@pytest.mark.parametrize("name", DRAWN)
def test_the_same_table_gives_the_same_bytes_and_text_stays_text(name):
    one, two = DRAWN[name](), DRAWN[name]()
    assert one == two
    for svg in one.panels:
        assert words(svg)
        assert 'role="img" aria-label="' in svg
        assert not re.search(r"<metadata|<\?xml|<!DOCTYPE|dc:date|px 'DejaVu", svg)


def test_a_matplotlibrc_changes_no_figure():
    before = DRAWN["costs"]()
    with matplotlib.rc_context({"text.usetex": True, "axes.grid": False, "svg.fonttype": "path"}):
        assert DRAWN["costs"]() == before and matplotlib.rcParams["text.usetex"]


@pytest.mark.parametrize("name", DRAWN)
def test_every_colour_follows_the_page(name):
    for svg in DRAWN[name]().panels:
        fixed = re.sub(r"var\(--[a-z0-9]+, #[0-9a-f]{6}\)", "", svg)
        assert not re.search(r"(?:fill|stroke): #[0-9a-f]{6}", fixed)


def test_the_page_names_every_colour_that_figures_use():
    css = (Path(page.__file__).parent / "static" / "page.css").read_text(encoding="utf-8")
    for number, colour in enumerate(COLOURS):
        assert f"--c{number}: {colour};" in css
        assert css.count(f"--c{number}: #") == 2, "one for light, one for dark"


def test_drawing_leaves_matplotlib_as_it_was_and_needs_no_pyplot():
    code = (
        "import sys, matplotlib; before = matplotlib.rcParams.copy()\n"
        "from unmix.report.figures import spectrum; spectrum([2.0, 1.0], [2.0, 1.0])\n"
        "assert matplotlib.rcParams.copy() == before\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_gaps_are_taken_seed_by_seed_at_the_same_sparsity():
    rows = []
    for seed, (fast, slow) in enumerate([(0.30, 0.20), (0.40, 0.28)]):
        shared = {"world": "data", "samples": 100, "finder": "TopKSAE", "seed": seed}
        rows.append({**shared, "encoder": "TopK", "own": True, "target_l0": None, "l0": 8.0, "fvu": fast})
        rows.append({**shared, "encoder": "Fista", "own": False, "target_l0": 8.0, "l0": 8.1, "fvu": slow})
        rows.append({**shared, "encoder": "Omp", "own": False, "target_l0": 16.0, "l0": 16.0, "fvu": 0.01})
    frame = pd.DataFrame(rows).assign(encode_flops=[1e3, 5e4, 1e4] * 2, amortised=[True, False, False] * 2)
    found = gaps(frame)
    assert len(found) == 1, "a better score at twice the sparsity is no gap"
    row = found.iloc[0]
    assert (row["amortised"], row["iterative"], row["seeds"]) == ("TopK", "Fista", 2)
    assert row["gap"] == pytest.approx(0.11) and row["cost"] == pytest.approx(50)
    assert row["gap_half"] == pytest.approx(12.7062 * 0.01, rel=1e-4)
    figure = pareto(frame)
    assert "gap 0.110" in words(figure.panels[0])
    assert "Amortisation gap of TopKSAE: 0.110 ± 0.127 FVU (TopK to Fista at L0 8 for 50 times" in figure.caption


def test_an_amortised_encoder_that_wins_is_told_as_a_negative_gap():
    frame = made_up.scores(("TopKSAE",), 1)
    frame.loc[frame["encoder"] == "TopK", "fvu"] = 0.01
    assert gaps(frame)["gap"].item() < 0
    assert any(word.startswith(("gap -0.1", "gap \u22120.1")) for word in words(pareto(frame).panels[0]))


def test_only_the_largest_sample_of_the_world_asked_for_is_drawn():
    frame = made_up.scores(("TopKSAE",), 1, ("data", "matched"))
    small = frame.assign(samples=10, fvu=0.99)
    both = pd.concat([small, frame])
    assert pareto(both) == pareto(frame)
    assert "(matched, 12,288 rows, 1 seed)" in pareto(both, "matched").caption
    assert pareto(both, "nowhere").caption == "FVU against L0 and FLOPs."


def test_controls_have_no_panel_of_their_own_beside_dictionaries():
    titles = [words(svg) for svg in pareto(made_up.scores()).panels]
    assert len(titles) == 3 and "RandomAtoms" in titles[2]
    assert len(pareto(made_up.scores(("RandomAtoms",))).panels) == 2


def degenerate(frame: pd.DataFrame, numbers: list[str]) -> dict[str, pd.DataFrame]:
    half = frame.copy()
    half.loc[half.index % 2 == 0, numbers] = np.nan
    return {
        "no row": frame[:0],
        "one row": frame[:1],
        "one seed": frame[frame.get("seed", pd.Series(0, frame.index)) == 0],
        "zero": frame.assign(**dict.fromkeys(numbers, 0.0)),
        "the same": frame.assign(**dict.fromkeys(numbers, 0.5)),
        "half absent": half,
        "all absent": frame.assign(**dict.fromkeys(numbers, np.nan)),
        "infinite": frame.assign(**{numbers[0]: np.inf}),
        "hostile": frame.assign(finder=HOSTILE),
        "many": pd.concat([frame.assign(finder=f"Finder{i}") for i in range(12)], ignore_index=True),
    }


@pytest.mark.parametrize("case", degenerate(made_up.scores(), ["fvu"]))
def test_degenerate_tables_are_drawn(case):
    tables = {
        pareto: (made_up.scores(), ["fvu", "l0", "encode_flops"]),
        costs: (made_up.scores(), ["fit_seconds", "fit_flops", "encode_flops"]),
        agreement: (made_up.pairs(), ["agreement", "chance"]),
        recovery: (made_up.recovered(), ["dictionary_mcc", "dictionary_mcc_chance", "found"]),
    }
    for draw, (frame, numbers) in tables.items():
        figure = draw(degenerate(frame, numbers)[case])
        assert figure.caption
        for svg in figure.panels:
            assert words(svg) and "<script" not in svg
            assert "nan" not in " ".join(words(svg))
    if case == "no row":
        assert words(pareto(made_up.scores()[:0]).panels[0]) == ["No row has both an L0 and an FVU."]


def test_degenerate_arrays_are_drawn():
    for one, two in [([], []), ([0.5], [0.5]), ([0.0], [0.0]), ([np.nan, 1.0], []), ([1.0] * 5, [1.0] * 5)]:
        for draw in (spectrum, firing_rates):
            assert words(draw(one, two).panels[0])


def test_sparsity_sweeps_label_their_ends_and_say_what_found_no_room():
    frame = pd.concat([made_up.scores(("TopKSAE",)).assign(own=False, target_l0=t, l0=t) for t in (8.0, 16.0, 32.0)])
    told = words(pareto(frame).panels[0])
    assert sum(word.endswith("L0 16") for word in told) == 0
    assert "L0 8" in told


def test_missing_columns_and_words_for_numbers_are_refused():
    with pytest.raises(UsageError, match="scores: columns encode_flops are missing; got"):
        pareto(made_up.scores().drop(columns="encode_flops"))
    with pytest.raises(UsageError, match="costs: column fit_flops must hold numbers, got 'much'"):
        costs(made_up.scores().assign(fit_flops="much"))
    with pytest.raises(UsageError, match="agreement: column cosines is missing"):
        agreement(made_up.pairs().drop(columns="cosines"))
    with pytest.raises(UsageError, match="recovery: columns found are missing"):
        recovery(made_up.recovered().drop(columns="found"))


def test_inputs_are_never_modified():
    for draw, frame in ((pareto, made_up.scores()), (costs, made_up.scores()), (agreement, made_up.pairs())):
        before = frame.copy(deep=True)
        draw(frame)
        pd.testing.assert_frame_equal(frame, before)


def test_agreement_tells_the_share_above_nine_tenths_and_draws_chance():
    frame = pd.DataFrame({"finder": ["A"], "pair": ["0, 1"], "agreement": [0.7], "chance": [0.3]})
    frame["cosines"] = [np.array([0.95, 0.91, 0.9, 0.2])]
    figure = agreement(frame)
    assert "50% above 0.9" in words(figure.panels[0])
    assert "the dotted line is chance" in figure.caption and "1 pair of" in figure.caption
    frame["chance_cosines"] = [np.array([0.3, 0.31])]
    assert "grey is chance" in agreement(frame).caption


def test_recovery_marks_the_size_of_the_data_and_its_chance():
    told = words(recovery(made_up.recovered()).panels[0])
    assert "the data: 12.3k" in told and "chance 0.31" in told
    assert not any("the data" in word for word in words(recovery(made_up.recovered().drop(columns="at")).panels[0]))


def test_a_finder_keeps_its_colour_and_an_encoder_its_marker():
    look = Look(
        ["MyFinder", *FINDERS[:2], "Other"], {"Mine": True, "TopK": True, "Fista": False, "Fista(k=2)": False}
    )
    assert look.colour("TopKSAE") == Look().colour("TopKSAE") == COLOURS[0]
    assert len({look.colour(name) for name in ("MyFinder", "Other", *FINDERS[:2])}) == 4
    assert look.marker("TopK", True) == "o" and look.marker("Mine", True) not in "o^v><"
    assert look.marker("Fista", False) == "^" and look.marker("Fista(k=2)", False) in "v><"


def test_no_label_covers_another_or_a_point():
    rng = np.random.default_rng(0)
    points = rng.uniform(0.1, 0.9, (14, 2)).tolist()
    with drawing():
        canvas, axes = panel()
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        left_out = labels.place(
            axes, [labels.Label(x, y, f"label {i}", "#000000") for i, (x, y) in enumerate(points)], points
        )
        renderer = canvas.canvas.get_renderer()
        boxes = [text.get_window_extent(renderer) for text in axes.texts if text.get_text()]
        marks = axes.transData.transform(points)
    assert len(boxes) + len(left_out) == 14 and len(boxes) >= 10
    for i, one in enumerate(boxes):
        assert not any(one.overlaps(two) for two in boxes[:i])
        assert not any(one.contains(*mark) for mark in marks)


def test_a_crowd_of_labels_is_thinned_and_not_piled_up():
    with drawing():
        _, axes = panel()
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        crowd = [labels.Label(0.5, 0.5, f"a rather long label {i}", "#000000") for i in range(60)]
        assert 0 < len(labels.place(axes, crowd, [(0.5, 0.5)])) < 60


def test_spread_keeps_its_distance_and_its_bounds():
    placed = labels.spread([0.5, 0.5, 0.51, 0.99, 1.0], 0.1, 0.0, 1.0)
    assert np.diff(sorted(placed)).min() >= 0.1 - 1e-9
    assert min(placed) >= 0 and max(placed) <= 1
    assert labels.spread([0.2, 0.8], 0.1, 0, 1) == [0.2, 0.8]


def test_a_long_name_is_cut_where_it_tells_least():
    assert short("TopKSAE(k=16)", 18) == "TopKSAE(k=16)"
    assert short("SparseCoding(active=16)", 18) == "Sparse…(active=16)"
    assert short("SparseCoding(active=16, width=2048)", 18) == "SparseCoding(acti…"
    assert short("a name without any  fields", 12) == "a name with…"
