"""The study's plan, and its claims and page from a run that is much too short to be right."""

from __future__ import annotations

import json

from unmix.papers.amortisation_gap import AmortisationGap
from unmix.report.study import study_page


def test_the_plan_is_possible_and_the_penalty_is_the_papers(tmp_path):
    paper = AmortisationGap(seeds=(0, 1))
    study = paper.study(small=True)
    assert study.check() == []
    assert paper.plan(small=True) == "12 cells, 6 fits"
    assert study.finders[0].penalty == 0.01 * 8 / (2 * 16)


def test_claims_stand_beside_what_was_measured(tmp_path):
    paper = AmortisationGap(seeds=(0, 1))
    study = paper.study(small=True)
    short = tuple(f.but(steps=20) if f.kind == "SAE" else f.but(passes=3) for f in study.finders)
    results = study.but(finders=short).run(tmp_path / "run")
    claims = paper.claims(results)
    assert len(claims) == 7
    assert {claim["verdict"] for claim in claims} <= {"replicates", "differs", "not comparable"}
    by_name = {claim["claim"]: claim for claim in claims}
    sae = by_name["code MCC of the SAE"]
    own = results.table().query("own and encoder == 'Linear'")["mcc"].mean()
    assert sae["published"] == 0.566 and sae["measured"] == round(own, 3) and sae["seeds"] == 2
    results.write_claims(claims)
    page = study_page(results, paper, claims, small=True).read_text()
    assert "0.566" in page and str(sae["measured"]) in page and "unmix study amortisation-gap --small" in page
    assert json.loads((tmp_path / "run" / "claims.json").read_text()) == claims
