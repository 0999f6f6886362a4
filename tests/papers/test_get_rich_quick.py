"""The study's plan, its pieces, and its claims and page from a run that is much too short."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from unmix.core.errors import UsageError
from unmix.papers.get_rich_quick import claims, exact, runs
from unmix.papers.get_rich_quick.study import SECTIONS, GetRichQuick
from unmix.study.engines import Serial


@pytest.fixture(scope="module")
def short():
    return GetRichQuick(
        seeds=(0,), slow_seeds=(0,), cases=8, scales=(0.1, 1.0), balances=(-1.0, 1.0), steps=3, parity_steps=20,
        hierarchy_alphas=(10.0, 1.0), rows=(400,), epochs=1, modulus=5, tokens=8, grokking_alphas=(10.0, 1.0),
        taus=(1.0, 0.5), budget=20, filter_alphas=(10.0, 0.1), filter_steps=2,
    )  # fmt: skip


def test_the_short_study_gives_claims_and_a_page(short, tmp_path):
    page = short.run(tmp_path, small=True, engine=Serial())
    found = json.loads((tmp_path / "claims.json").read_text())
    exact_ones = [c for c in found if "solution is the flow" in c["claim"]]
    assert len(exact_ones) == 2 and all(c["verdict"] == "replicates" for c in exact_ones)
    grokked = [c for c in found if "grokking" in c["claim"]]
    assert len(grokked) == 2 and all("censored" in claim["why"] for claim in grokked)
    assert all(claim["verdict"] == "differs" for claim in grokked), "no run was fast: all ratios are 1"
    text = page.read_text()
    for word in ("Exact solutions", "Two-layer ReLU", "Parity", "hierarchy", "Grokking", "Filters", "&gt; 20"):
        assert word in text
    made = sorted(file.stat().st_mtime_ns for file in (tmp_path / "parts").iterdir())
    short.run(tmp_path, small=True, engine=Serial())
    assert sorted(file.stat().st_mtime_ns for file in (tmp_path / "parts").iterdir()) == made


def test_plans_and_refusals():
    study = GetRichQuick()
    for small in (True, False):
        parts = study.parts(small)
        assert len({str(part) for part in parts}) == len(parts)
    assert "18 x grokking" in study.plan(True) and "105 x grokking" in study.plan(False)
    assert "hierarchy" not in GetRichQuick(sections=("exact",)).plan(True) and len(SECTIONS) == 6
    with pytest.raises(UsageError, match="sections"):
        GetRichQuick(sections=("lazy",))


def test_a_grokking_run_fits_its_training_pairs_and_is_censored_at_its_budget():
    run = runs.grokking(10.0, modulus=5, tokens=32, budget=400)
    assert run["fitted"] is not None and run["curve"][0][1] < 0.7
    assert [line[0] for line in run["curve"][:3]] == [0, 10, 20]
    assert run["steps"] is None or (run["curve"][-1][0] == run["steps"] and run["curve"][-1][2] >= 0.99)
    late = runs.grokking(1.0, modulus=7, tokens=16, budget=10)
    assert late["steps"] is None and late["budget"] == 10


def test_the_network_of_the_hierarchy_learns():
    assert runs.hierarchy(1.0, 3000, epochs=20, rate=1.0, test=2000)["error"] < 0.6 < 1 - 1 / 8


def test_the_delay_grows_with_the_balance():
    lines = exact.delay([-40.0, -80.0])
    assert all(abs(line["ratio"] / 2.674 - 1) < 0.01 for line in lines)


def test_verdicts_of_numbers_and_censored_ratios():
    assert claims.compared("c", "s", 1.0, [1.1, 1.1, 1.1])["verdict"] == "replicates"
    assert claims.compared("c", "s", 1.0, [2.0, 2.01, 1.99])["verdict"] == "differs"
    assert claims.compared("c", "s", 1.0, [0.2, 2.8])["verdict"] == "not comparable"
    assert "one seed" in claims.compared("c", "s", 1.0, [2.0])["why"]
    table = pd.DataFrame(
        {
            "alpha": [100.0, 1.0],
            "tau": 1.0,
            "seed": 0,
            "steps": [400.0, np.nan],
            "fitted": 100.0,
            "budget": [4000, 4000],
        }
    )
    (claim,) = claims.grokking_claims(table)
    assert claim["measured"].startswith("0.10 times") and "1 censored" in claim["why"]
    table["steps"] = [4000.0, 400.0]
    assert claims.grokking_claims(table)[0]["verdict"] == "differs"
    table["steps"], table["alpha"], table["tau"] = [100.0, 400.0], 1.0, [0.5, 1.0]
    (claim,) = claims.grokking_claims(table)
    assert claim["verdict"] == "replicates" and "logits times 0.5 shorten" in claim["claim"]
    table["tau"] = [1.5, 1.0]
    assert claims.grokking_claims(table)[0]["verdict"] == "differs"
