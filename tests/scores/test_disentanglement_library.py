"""disentanglement_lib's protocol: its numbers, its quirks, and the same formulas written another way."""

from __future__ import annotations

import numpy as np
import pytest

from unmix.core.errors import UsageError
from unmix.core.factors import Factor
from unmix.core.seeds import Stream, untouched
from unmix.scores.disentanglement.data import paired, split
from unmix.scores.disentanglement.dci import dci
from unmix.scores.disentanglement.explicitness import explicitness
from unmix.scores.disentanglement.infomec import infomec
from unmix.scores.disentanglement.interventions import beta_vae, factor_vae
from unmix.scores.disentanglement.irs import irs
from unmix.scores.disentanglement.mutual import mig, modularity
from unmix.scores.disentanglement.sap import sap

LIBRARY = "disentanglement_lib"
SPRITES = (3, 6, 40, 32, 32)


def sprites(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(0, size, n) for size in SPRITES], 1).astype(np.float32)


def mixed(z: np.ndarray, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    turn = np.eye(z.shape[1]) + 0.3 * rng.standard_normal((z.shape[1],) * 2)
    return ((z - z.mean(0)) / z.std(0) @ turn + 0.1 * rng.standard_normal(z.shape)).astype(np.float32)


def test_the_identity_on_sprites_scores_below_one_there_and_one_here():
    z = sprites(10000)
    found = mig(z, z, compat=LIBRARY, resamples=0)
    assert found.value == pytest.approx(0.896, abs=0.003)
    assert found.detail["gaps"] == pytest.approx([1, 1, 0.80, 0.84, 0.84], abs=0.01)
    assert mig(z, z, resamples=0).value > 0.999


@pytest.mark.parametrize(("extra", "wanted"), [("dead", 0.50), ("noise", 0.83)])
def test_five_perfect_codes_with_five_others(extra, wanted):
    z = sprites(10000)
    more = np.zeros((len(z), 5)) if extra == "dead" else np.random.default_rng(1).standard_normal((len(z), 5))
    codes = np.concatenate([z, more.astype(np.float32)], 1)
    assert modularity(codes, z, compat=LIBRARY, resamples=0).value == pytest.approx(wanted, abs=0.015)
    assert modularity(codes, z, resamples=0).value > 0.999


def test_mig_and_modularity_are_the_formulas_on_scikit_learns_counts():
    with untouched():
        from sklearn.metrics import mutual_info_score
    z = sprites(2000)[:, :3]
    h = mixed(z)
    cut = [np.digitize(c, np.histogram(c, 20)[1][:-1]) for c in h.T]
    nats = np.array([[mutual_info_score(z[:, j], c) for j in range(3)] for c in cut])
    entropy = np.array([mutual_info_score(z[:, j], z[:, j]) for j in range(3)])
    ordered = np.sort(nats, axis=0)[::-1]
    assert mig(h, z, compat=LIBRARY).value == pytest.approx(np.mean((ordered[0] - ordered[1]) / entropy), abs=1e-12)
    square = nats**2
    wanted = np.mean(1 - (square.sum(1) - square.max(1)) / (square.max(1) * 2))
    assert modularity(h, z, compat=LIBRARY).value == pytest.approx(wanted, abs=1e-12)


def parts_of(h: np.ndarray, z: np.ndarray):
    """The rows in the scores' own order and split, so that other estimators see the same."""
    pair = paired(h, z)
    train, test = split(pair, Stream(0))
    return pair, train, test


def test_sap_is_that_of_scikit_learns_machines():
    with untouched():
        from sklearn.svm import LinearSVC
    z = sprites(1500)[:, :2]
    h = mixed(z)
    pair, train, test = parts_of(h, z)
    matrix = np.zeros((2, 2))
    for i in range(2):
        for j in range(2):
            model = LinearSVC(C=0.01, class_weight="balanced", random_state=0)
            model.fit(pair.codes[train, i : i + 1], pair.z[train, j])
            matrix[i, j] = (model.predict(pair.codes[test, i : i + 1]) == pair.z[test, j]).mean()
    ordered = np.sort(matrix, axis=0)
    assert sap(h, z, compat=LIBRARY).value == pytest.approx((ordered[-1] - ordered[-2]).mean(), abs=1e-3)
    squares = np.sort(np.corrcoef(h.T, z.T)[:2, 2:] ** 2, axis=0)
    found = sap(h, z, compat=LIBRARY, discrete=False).value
    assert found == pytest.approx((squares[-1] - squares[-2]).mean(), abs=1e-6)


def test_dci_of_histogram_trees_is_near_that_of_scikit_learns():
    z = sprites(900)[:, :2]
    h = mixed(z)
    for part in ("disentanglement", "completeness", "informativeness"):
        quick, exact = (dci(h, z, part, compat=LIBRARY, exact=exact, rounds=30) for exact in (False, True))
        assert quick.detail["matrix"] == pytest.approx(exact.detail["matrix"], abs=0.02)
        assert quick.value == pytest.approx(exact.value, abs=0.03)
    numbers = [dci(h, z, "completeness", exact=exact, rounds=30) for exact in (False, True)]
    assert numbers[0].detail["matrix"] == pytest.approx(numbers[1].detail["matrix"], abs=0.02)


def test_a_dead_code_takes_all_votes_there_and_none_here():
    z = sprites(3000)
    codes = np.concatenate([z, np.zeros((len(z), 1), np.float32)], 1)
    there = factor_vae(codes, z, compat=LIBRARY, train=500, test=500)
    assert there.detail["votes"][:, 5].sum() == 500 and there.value < 0.3
    here = factor_vae(codes, z, train=500, test=500)
    assert here.value == 1 and here.detail["votes"][:, 5].sum() == 0


def test_beta_vae_depends_on_the_scale_of_codes_there_only():
    z = sprites(3000)[:, 2:]
    codes = z * np.array([1e-4, 1e-4, 1.0], np.float32)
    assert beta_vae(codes, z, train=500, test=300).value == 1
    assert beta_vae(codes, z, compat=LIBRARY, train=500, test=300).value < 1


def test_irs_of_the_library_is_moved_by_one_outlier():
    rng = np.random.default_rng(0)
    z = sprites(4000)[:, :2]
    codes = rng.standard_normal((4000, 2))
    codes[7] = 1000
    assert irs(codes, z, compat=LIBRARY).value > 0.9
    assert irs(codes, z).value < 0.1
    assert irs(z, z, compat=LIBRARY).value == irs(z, z).value == 1


def test_explicitness_of_the_library_needs_all_values_on_both_sides():
    z = sprites(2000)[:, :2]
    assert explicitness(mixed(z), z, compat=LIBRARY).value > 0.8
    rare = z.copy()
    rare[0] = 9
    with pytest.raises(UsageError, match="one side of the split only"):
        explicitness(mixed(z), rare, compat=LIBRARY)


@pytest.mark.parametrize("score", [mig, modularity, sap, factor_vae, beta_vae, dci])
def test_a_continuum_is_refused_by_the_librarys_protocol(score):
    z = np.random.default_rng(0).random((400, 2))
    with pytest.raises(UsageError, match="for discrete factors"):
        score(z, z, compat=LIBRARY)


def test_a_factor_of_one_value_is_refused_where_the_library_fails():
    z = sprites(500)[:, :2]
    z[:, 1] = 4
    for score in (mig, dci):
        with pytest.raises(UsageError, match="z1 has one value"):
            score(mixed(sprites(500)[:, :2]), z, compat=LIBRARY)


@pytest.mark.parametrize("rho", [0.0, 0.6, 0.9])
def test_both_estimators_of_information_are_near_that_of_a_gaussian_pair(rho):
    rng = np.random.default_rng(0)
    z = rng.standard_normal((5000, 1))
    h = rho * z + np.sqrt(1 - rho**2) * rng.standard_normal((5000, 1))
    for estimator in ("neighbours", "bins"):
        share = infomec(h, z, "modularity", estimator=estimator).detail["matrix"][0, 0]
        # Cut in 20 bins, the factor keeps .80 of .83 nats at rho = .9.
        assert np.log(20) * share == pytest.approx(-0.5 * np.log(1 - rho**2), abs=0.05)


def test_both_estimators_of_infomec_agree_where_values_have_few_rows():
    z = sprites(900)[:, :3]
    h = mixed(z)
    both = [infomec(h, z, "modularity", estimator=estimator).value for estimator in ("neighbours", "bins")]
    assert both[0] == pytest.approx(both[1], abs=0.03)
    for estimator in ("neighbours", "bins"):
        for part in ("modularity", "compactness"):
            clean, blurred = (infomec(codes, z, part, estimator=estimator).value for codes in (z, h))
            assert clean > 0.9 and 0.5 < blurred < clean - 0.05
    kinds = [Factor(f"k{j}", "categorical", size) for j, size in enumerate(SPRITES[:3])]
    assert infomec(z, z, "explicitness", kinds).value > 0.6
