"""Fields that nobody gave come from the rows, with their reason; what is visibly wrong with a fit is said."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unmix.core.errors import UsageError
from unmix.core.rows import as_rows
from unmix.finders.linear import PCA
from unmix.finders.topk_sae import TopKSAE
from unmix.scores.matching import dictionary_mcc
from unmix.study import verbs
from unmix.study.cautions import cautions
from unmix.study.sizing import Sizing
from unmix.worlds.sparse import SparseWorld


@pytest.fixture(scope="module")
def planted():
    world = SparseWorld(latents=48, width=16, active=2, noise=0.01)
    return world, world.sample(1200, 0).x


def test_width_active_codes_and_batch_come_from_the_rows_and_beat_chance(planted):
    world, x = planted
    sizing = Sizing(as_rows(x))
    fields = sizing.fields(TopKSAE, {"steps": 600})
    assert fields["width"] == 64 and fields["k"] in (2, 3) and fields["batch"] <= 1200 // 8
    assert [line.partition("=")[0] for line in sizing.told] == ["TopKSAE.width", "TopKSAE.k", "TopKSAE.batch"]
    found = dictionary_mcc(TopKSAE(steps=600, **fields).fit(x).atoms, world.atoms)
    assert found.value > found.chance + 0.5 * (1 - found.chance)


def test_given_fields_stay_and_every_fit_that_follows_is_possible():
    few = np.random.default_rng(0).normal(size=(30, 12)).astype(np.float32)
    fields = Sizing(as_rows(few)).fields(TopKSAE, {"k": 3, "batch": 8})
    assert fields == {"width": 7}
    assert Sizing(as_rows(few)).fields(PCA, {}) == {"width": 12}
    assert 1 <= Sizing(as_rows(few[:4])).fields(TopKSAE, {})["k"] <= 1


def test_a_start_gives_the_width(planted):
    _, x = planted
    start = TopKSAE(width=20, k=2, steps=2).fit(x)
    assert Sizing(as_rows(x), start).fields(TopKSAE, {"k": 2})["width"] == 20


def test_what_was_tried_is_kept_in_the_run_and_asked_for_again(planted, tmp_path, monkeypatch):
    _, x = planted
    np.save(tmp_path / "h.npy", x[:400].numpy())
    from unmix.activations.data import Data

    world = Data(path=str(tmp_path / "h.npy"))
    first = verbs.sizing(world, folder=tmp_path / "run").fields(TopKSAE, {})
    monkeypatch.setattr(TopKSAE, "fit", lambda *_: pytest.fail("tried twice"))
    assert verbs.sizing(world, folder=tmp_path / "run").fields(TopKSAE, {}) == first
    with pytest.raises(UsageError, match="samples must be given"):
        verbs.sizing(SparseWorld())


def test_gaussian_rows_and_impossible_sizes_are_cautioned_of_and_good_fits_are_not(planted, tmp_path):
    from unmix.activations.data import Data

    _, x = planted
    draw = torch.randn(1200, 16, generator=torch.Generator().manual_seed(0))
    np.save(tmp_path / "nothing.npy", draw.numpy())
    np.save(tmp_path / "planted.npy", x.numpy())
    nothing, planted_rows = (Data(path=str(tmp_path / f"{name}.npy")) for name in ("nothing", "planted"))
    good = TopKSAE(width=48, k=2, steps=400, batch=128)
    run = verbs.fit(nothing, [good], tmp_path / "a")
    assert "at chance" in cautions(run, [good], nothing)[0]
    run = verbs.fit(planted_rows, [good], tmp_path / "b")
    assert cautions(run, [good], planted_rows) == []
    wrong = TopKSAE(width=2000, k=20, steps=5)
    told = cautions(verbs.fit(planted_rows, [wrong], tmp_path / "b"), [wrong], planted_rows)[0]
    assert "20 active codes in rows of 16 columns" in told and "2,000 atoms for 1,080 rows" in told


def test_scores_at_chance_are_told_where_the_truth_is_known(tmp_path):
    world = SparseWorld(latents=64, width=16, active=2)
    poor = TopKSAE(width=8, k=8, steps=1, batch=16)
    told = cautions(verbs.fit(world, [poor], tmp_path, samples=(64,), test=64), [poor], world)
    assert len(told) == 1 and "at chance by" in told[0]


@pytest.mark.parametrize("wrong", [{"width": "abc"}, {"width": -3}, {"batch": "x"}, {"steps": 0}, {"width": None}])
def test_what_is_given_wrongly_is_left_to_the_recipe_to_refuse(planted, wrong):
    assert Sizing(as_rows(planted[1])).fields(TopKSAE, wrong) == {}
    with pytest.raises(UsageError, match=next(iter(wrong))):
        TopKSAE(**wrong)
