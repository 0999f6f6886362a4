"""The classic finders encode as scikit-learn transforms, clusters fit, and odd rows are no trouble."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from sklearn import cluster, decomposition

from unmix.core.errors import Notice, UsageError
from unmix.core.seeds import Stream
from unmix.encoders.iterative import Fista
from unmix.finders.clusters import KMeans, SphericalKMeans
from unmix.finders.features import replace
from unmix.finders.linear import NMF, PCA, FastICA, MiniBatchDictionary, _numpy_untouched
from unmix.scores.matching import dictionary_mcc
from unmix.scores.sparsity import fvu
from unmix.worlds.sparse import SparseWorld
from unmix.worlds.superposition import SuperpositionWorld


@pytest.fixture(scope="module")
def rows():
    return SparseWorld(latents=12, width=8, active=2, noise=0.05).sample(500, 0).x + 0.3


def seed_of(recipe) -> int:
    return Stream(0).child(recipe.kind).child("start").number % 2**32


def test_pca_encodes_as_scikit_learn_transforms(rows):
    model = decomposition.PCA(5, svd_solver="full").fit(rows.double().numpy())
    features = PCA(width=5).fit(rows)
    np.testing.assert_allclose(features.encode(rows).dense(), model.transform(rows.double().numpy()), atol=1e-5)


def test_fast_ica_encodes_as_scikit_learn_transforms_up_to_the_length_of_atoms(rows):
    recipe = FastICA(width=5)
    model = decomposition.FastICA(5, whiten="unit-variance", max_iter=1000, tol=1e-4, random_state=seed_of(recipe))
    wanted = model.fit_transform(rows.double().numpy())
    features = recipe.fit(rows)
    lengths = np.linalg.norm(model.mixing_, axis=0)
    np.testing.assert_allclose(features.encode(rows).dense(), wanted * lengths, atol=1e-4)
    np.testing.assert_allclose(features.reconstruct(rows), model.inverse_transform(wanted), atol=1e-4)


def test_nmf_codes_are_the_least_squares_that_scikit_learn_approaches(rows):
    h = rows.abs()
    features = NMF(width=5).fit(h)
    found = features.encode(h).dense()
    atoms = features.atoms.double().numpy()
    wanted, _, _ = decomposition.non_negative_factorization(
        h.double().numpy(), H=atoms, n_components=5, init="custom", update_H=False, tol=1e-8, max_iter=5000
    )
    np.testing.assert_allclose(found, wanted, atol=2e-3)


def test_k_means_encodes_as_scikit_learn_predicts(rows):
    recipe = KMeans(width=6, starts=1)
    model = cluster.KMeans(6, n_init=1, random_state=seed_of(recipe)).fit(rows.double().numpy())
    features = recipe.fit(rows)
    assert (features.encode(rows).indices.squeeze(1).numpy() == model.predict(rows.double().numpy())).all()
    np.testing.assert_allclose(features.reconstruct(rows), model.cluster_centers_[model.labels_], atol=1e-5)


@pytest.mark.parametrize("positive", [True, False])
def test_online_dictionary_encodes_as_scikit_learn_transforms(rows, positive):
    features = MiniBatchDictionary(width=16, penalty=0.1, positive=positive, passes=3).fit(rows)
    precise = replace(features, encoder=Fista(penalty=0.1, positive=positive, tolerance=1e-7))
    x = (rows - features.bias).double().numpy()
    options = {"algorithm": "lasso_cd", "alpha": 0.1, "positive": positive, "max_iter": 20000}
    with _numpy_untouched():
        wanted = decomposition.sparse_encode(x, features.atoms.double().numpy(), **options)
    np.testing.assert_allclose(precise.encode(rows).dense(), wanted, atol=2e-3)
    assert (features.encode(rows).dense().min() < 0) == (not positive)


def test_online_dictionary_recovers_and_its_penalty_has_the_units_of_the_rows(rows):
    world = SparseWorld(latents=12, width=8, active=2, noise=0.05)
    features = MiniBatchDictionary(width=12, penalty=0.1, passes=30).fit(rows)
    assert dictionary_mcc(features.atoms, world.atoms).value > 0.85
    larger = MiniBatchDictionary(width=12, penalty=100.0, passes=30).fit(rows * 1000)
    torch.testing.assert_close(larger.atoms, features.atoms, atol=1e-3, rtol=0)


def test_spherical_k_means_finds_directions_whatever_the_lengths():
    draw = torch.Generator().manual_seed(0)
    centres = torch.nn.functional.normalize(torch.randn(6, 20, generator=draw))
    which = torch.arange(600) % 6
    lengths = torch.rand(600, 1, generator=draw) * 10 + 0.1
    x = lengths * (centres[which] + 0.05 * torch.randn(600, 20, generator=draw))
    x = torch.cat([x, -x])  # so that the mean is 0
    features = SphericalKMeans(width=12, starts=8).fit(x)
    cosine = (features.atoms @ torch.cat([centres, -centres]).T).max(0).values
    assert cosine.min() > 0.98
    assert (features.atoms.norm(dim=1) - 1).abs().max() < 1e-6
    codes = features.encode(x)
    assert (codes.l0() == 1).all()
    torch.testing.assert_close(codes.values[:, 0], (x @ features.atoms.T).max(1).values)
    assert features.about["cosine"] == pytest.approx(
        float((torch.nn.functional.normalize(x) @ features.atoms.T).max(1).values.mean()), abs=1e-4
    )


def test_spherical_k_means_about_0_leaves_out_rows_of_zeros_and_asks_for_angles_alone():
    world = SparseWorld(latents=12, width=8, active=2, noise=0.05)
    x, draw = world.sample(500, 0).x, torch.Generator().manual_seed(0)
    recipe = SphericalKMeans(width=12, centre=False)
    plain = recipe.fit(x)
    assert (plain.bias == 0).all()
    padded = recipe.fit(torch.cat([torch.zeros(40, 8), x, torch.zeros(60, 8)]))
    torch.testing.assert_close(padded.atoms, plain.atoms, atol=1e-5, rtol=0)
    lengths = 0.1 + 10 * torch.rand(500, 1, generator=draw)
    torch.testing.assert_close(recipe.fit(lengths * x).atoms, plain.atoms, atol=1e-5, rtol=0)
    assert not torch.allclose(SphericalKMeans(width=12).fit(lengths * x).atoms, plain.atoms, atol=0.1)
    torch.testing.assert_close(plain.encode(x).values[:, 0], (x @ plain.atoms.T).max(1).values.clamp_min(0))


def test_about_the_mean_an_atom_weighs_what_it_does_not_show():
    x = SuperpositionWorld(latents=16, width=16, dictionary="identity", noise=0).sample(2000, 0).h
    centred, plain = (SphericalKMeans(width=16, centre=centre).fit(x).atoms for centre in (True, False))
    assert centred.amin(1).median() < -0.02 and (plain >= 0).all()


def test_where_k_means_is_centred_came_later_and_leaves_stored_digests_alone():
    assert "centre" not in SphericalKMeans(width=4).as_dict()
    assert SphericalKMeans(width=4, centre=False).as_dict()["centre"] is False
    assert SphericalKMeans(width=4, centre=False).digest != SphericalKMeans(width=4).digest


def test_more_starts_do_not_fit_worse(rows):
    one, five = (SphericalKMeans(width=6, starts=starts).fit(rows).about["cosine"] for starts in (1, 5))
    assert five >= one


@pytest.mark.parametrize("kind", ["duplicated rows", "zero rows", "width 1", "constant column"])
@pytest.mark.parametrize(
    "recipe",
    [SphericalKMeans(width=4), KMeans(width=4), MiniBatchDictionary(width=4, passes=2), PCA(width=1)],
    ids=lambda recipe: recipe.kind,
)
def test_odd_rows_give_finite_features(kind, recipe):
    x = SparseWorld(latents=6, width=4, active=2).sample(40, 0).x
    x = {
        "duplicated rows": x[:3].repeat(10, 1),
        "zero rows": torch.cat([x[:8], torch.zeros(30, 4)]),
        "width 1": x[:, :1],
        "constant column": torch.cat([x, torch.full((40, 1), 2.0)], 1),
    }[kind]
    copies = isinstance(recipe, KMeans) and kind == "duplicated rows"
    with pytest.warns(Notice, match="only 3 of 4 clusters") if copies else contextlib.nullcontext():
        features = recipe.fit(x)
    assert torch.isfinite(features.atoms).all() and torch.isfinite(features.reconstruct(x)).all()
    assert (x - features.reconstruct(x)).square().sum() <= x.square().sum() * 1.01


def test_rows_without_anything_to_find_are_refused():
    for recipe in (SphericalKMeans(width=2), MiniBatchDictionary(width=2)):
        with pytest.raises(UsageError, match="nothing to find"):
            recipe.fit(torch.ones(10, 3))
    with pytest.raises(UsageError, match="at most the number of rows"):
        SphericalKMeans(width=20).fit(torch.eye(10))


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_fast_ica_of_average_referenced_rows_names_their_rank(kind):
    draw = np.random.default_rng(0)
    x = draw.laplace(size=(2000, 6)) @ draw.standard_normal((6, 6))
    referenced = (x - x.mean(1, keepdims=True)).astype(kind)
    with pytest.raises(UsageError, match=r"width=6: the rows have rank 5 .* give width=5 or less"):
        FastICA(width=6).fit(referenced)
    found = FastICA(width=5).fit(referenced)
    assert fvu(referenced, found.reconstruct(referenced)).value < 1e-6


@pytest.mark.parametrize("offset", [1e8, 1e9])
def test_rows_with_a_large_common_offset_lose_nothing(offset):
    draw = np.random.default_rng(0)
    rows = draw.laplace(size=(1000, 6)) @ draw.standard_normal((6, 6)) + offset
    found = PCA(width=6).fit(rows)
    assert found.bias.dtype == torch.float64
    assert fvu(rows, found.decode(found.encode(rows))).value < 1e-9
    moved = PCA(width=6).fit(rows - offset)
    assert torch.allclose(found.atoms, moved.atoms, atol=1e-4)


def test_rows_in_tiny_units_are_not_taken_for_equal_and_near_the_end_of_float32_are_refused():
    x = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)
    left = [fvu(h, SphericalKMeans(width=12).fit(h).reconstruct(h)).value for h in (x, x * np.float32(1e-13))]
    assert left[0] == pytest.approx(left[1], abs=0.01)
    with pytest.raises(UsageError, match=r"e\+38, where float32 ends; divide them by their scale, such as 1e38"):
        MiniBatchDictionary(width=8).fit(x[:40, :5] * np.float32(9e37))
