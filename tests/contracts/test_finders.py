"""Every finder: shapes, determinism, refusals, save and load, and inputs left alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unmix.core.errors import UsageError
from unmix.core.rows import ArrayRows, Subset
from unmix.finders import FINDERS
from unmix.finders.features import Features

QUICK = {
    "TopKSAE": {"width": 20, "k": 2, "steps": 60, "batch": 128},
    "BatchTopKSAE": {"width": 20, "k": 2, "steps": 60, "batch": 128},
    "JumpReLUSAE": {"width": 20, "active": 2.0, "steps": 60, "batch": 128},
    "SAE": {"width": 20, "active": 2.0, "steps": 60, "batch": 128},
    "SparseCoding": {"width": 20, "active": 2.0, "passes": 2, "batch": 128},
    "PCA": {"width": 5},
    "FastICA": {"width": 5, "max_iterations": 3000, "tolerance": 1e-3},
    "NMF": {"width": 5},
    "MiniBatchDictionary": {"width": 20, "passes": 2},
    "JointCoding": {"width": 20, "steps": 60, "read_steps": 200},
    "KMeans": {"width": 5, "starts": 1},
    "SphericalKMeans": {"width": 5, "starts": 1},
    "Archetypes": {"width": 20, "k": 2, "steps": 60, "batch": 128},
    "RandomAtoms": {"width": 20, "k": 2},
    "DataAtoms": {"width": 20, "k": 2},
    "UntrainedSAE": {"width": 20, "k": 2},
    "FrozenDecoder": {"width": 20, "k": 2, "steps": 60, "batch": 128},
}


def quick(name: str):
    return FINDERS[name](**QUICK[name])


def rows_for(name: str, sample) -> torch.Tensor:
    return sample.x.abs() if FINDERS[name].nonnegative else sample.x


def test_every_finder_is_covered():
    assert set(QUICK) == set(FINDERS)


@pytest.mark.parametrize("name", list(FINDERS))
def test_fit_gives_features_and_leaves_its_input_alone(name, sample):
    h = rows_for(name, sample)
    before = h.clone()
    features = quick(name).fit(h, rng=1)
    assert torch.equal(h, before)
    m, d = features.shape
    assert (m, d) == (QUICK[name]["width"], 12)
    assert features.bias.shape == (12,)
    codes = features.encode(h, cost=True)
    assert codes.shape == (len(h), m)
    assert codes.cost is not None and (codes.cost > 0).all()
    assert torch.isfinite(codes.dense()).all()
    assert features.decode(codes).shape == h.shape
    assert features.about["finder"] == quick(name).as_dict()
    assert quick(name).estimate(ArrayRows(h))["flops"] > 0


@pytest.mark.parametrize("name", list(FINDERS))
def test_same_seed_same_features_other_seed_other_features(name, sample):
    h = rows_for(name, sample)
    one, two, other = (quick(name).fit(h, rng=seed) for seed in (3, 3, 4))
    assert one.digest == two.digest
    if FINDERS[name].seeded and name not in ("NMF", "KMeans", "FastICA"):  # these may reach the same optimum
        assert one.digest != other.digest


@pytest.mark.parametrize("name", list(FINDERS))
def test_rows_from_a_subset_equal_the_same_array(name, sample):
    h = rows_for(name, sample)
    index = np.arange(100, 400)
    assert quick(name).fit(Subset(ArrayRows(h), index)).digest == quick(name).fit(h[100:400]).digest


@pytest.mark.parametrize("name", list(FINDERS))
def test_going_on_from_features_or_a_refusal(name, sample):
    h = rows_for(name, sample)
    start = quick(name).fit(h)
    kept = start.digest
    if not FINDERS[name].continues:
        with pytest.raises(UsageError, match="cannot go on"):
            quick(name).fit(h, start=start)
        return
    features = quick(name).fit(h, rng=1, start=start)
    assert features.about["start"] == kept == start.digest
    assert features.shape == start.shape
    assert features.digest != quick(name).fit(h, rng=1).digest
    with pytest.raises(UsageError, match="width 12, the rows have 11"):
        quick(name).fit(h[:, :11], start=start)
    with pytest.raises(UsageError, match="start has 20 atoms"):
        quick(name).but(width=21).fit(h, start=start)
    with pytest.raises(UsageError, match="must be Features"):
        quick(name).fit(h, start=start.atoms)


@pytest.mark.parametrize("name", list(FINDERS))
def test_bad_rows_are_refused_with_a_sentence(name, sample):
    h = rows_for(name, sample).clone()
    with pytest.raises(UsageError, match="matrix"):
        quick(name).fit(h[0])
    with pytest.raises(UsageError, match="no rows"):
        quick(name).fit(h[:0])
    h[7, 3] = float("nan")
    with pytest.raises(UsageError, match="row 7, column 3"):
        quick(name).fit(h)


@pytest.mark.parametrize("name", list(FINDERS))
def test_constant_columns_are_no_trouble(name, sample):
    h = rows_for(name, sample).clone()
    h[:, 2] = 1.5
    features = quick(name).fit(h)
    assert torch.isfinite(features.atoms).all()
    assert torch.isfinite(features.reconstruct(h)).all()


@pytest.mark.parametrize("name", list(FINDERS))
def test_save_and_load_give_the_same_codes(name, sample, tmp_path):
    h = rows_for(name, sample)
    features = quick(name).fit(h)
    again = Features.load(features.save(tmp_path / "features"))
    assert torch.equal(again.atoms, features.atoms)
    # The same numbers at another place in memory may differ in their last bit; solvers stop at their tolerance, 1e-4.
    assert torch.allclose(again.encode(h).dense(), features.encode(h).dense(), atol=1e-4)
    assert dict(again.about)["seed"] == 0
    assert again.digest == features.digest


def test_trained_finders_beat_the_controls(world, sample):
    from unmix.scores.sparsity import fvu

    test = world.sample(400, 99).x
    controls = {n: fvu(test, quick(n).fit(sample.x).reconstruct(test)).value for n in ("RandomAtoms", "DataAtoms")}
    coding = FINDERS["SparseCoding"](width=24, active=2.0, passes=20, batch=300).fit(sample.x)
    assert fvu(test, coding.reconstruct(test)).value < 0.5 * min(controls.values())
