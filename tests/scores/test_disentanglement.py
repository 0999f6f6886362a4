"""Every disentanglement score on codes whose worth is known: perfect, mixed, doubled, dead, and unusable."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unmix.core.errors import UsageError
from unmix.core.factors import Factor
from unmix.scores import SCORES
from unmix.scores.base import Inputs
from unmix.scores.disentanglement.dci import dci
from unmix.scores.disentanglement.infomec import infomec
from unmix.scores.disentanglement.mutual import mig, modularity
from unmix.scores.disentanglement.sap import sap

NAMES = [name for name, where in SCORES.entries.items() if ".disentanglement." in where]
FACTORS = (
    Factor("x"),
    Factor("size", "ordinal", 6),
    Factor("shape", "categorical", 3),
    Factor("turn", "continuous"),
)
QUICK = {
    "factor_vae": {"train": 800, "test": 400},
    "beta_vae": {"train": 400, "test": 200},
    "dci_disentanglement": {"rounds": 25},
    "dci_completeness": {"rounds": 25},
    "dci_informativeness": {"rounds": 60},
}
PERFECT = {"explicitness": 0.88, "irs": 0.93, "infomec_infoe": 0.75, "dci_es": 0.55, "dci_informativeness": 0.95}
PARTIAL = {"explicitness", "infomec_infoe", "dci_es", "dci_informativeness"}  # indifferent to rotation


@pytest.fixture(scope="module")
def z() -> np.ndarray:
    rng = np.random.default_rng(0)
    n = 1500
    return np.stack([rng.random(n), rng.integers(0, 6, n), rng.integers(0, 3, n), rng.random(n)], 1)


def measured(name: str, codes: np.ndarray, z: np.ndarray, factors=FACTORS, **given):
    return SCORES[name](**QUICK.get(name, {})).measure(Inputs(codes=codes, z=z, factors=factors, **given), 1)


@pytest.mark.parametrize("name", NAMES)
def test_perfect_codes_in_any_order_sign_and_shape_score_the_same(name, z):
    whole = measured(name, z, z)
    assert whole.value >= PERFECT.get(name, 0.985)
    assert math.isfinite(whole.chance) and whole.value > whole.chance + 0.05
    permuted = measured(name, z[:, [2, 0, 3, 1]], z)
    assert permuted.value == pytest.approx(whole.value, abs=1e-9)
    flipped = measured(name, -3 * z + 2, z)
    assert flipped.value == pytest.approx(whole.value, abs=0.02 if name != "dci_es" else 0.06)
    warped = np.exp(1.2 * z / z.max(0))
    tolerance = {"typed_mcc": 0.03, "sap": 0.06, "dci_es": 0.25, "infomec_infoe": 0.06, "beta_vae": 0.02}
    assert measured(name, warped, z).value == pytest.approx(whole.value, abs=tolerance.get(name, 0.03))


@pytest.mark.parametrize("name", NAMES)
def test_a_rotation_lowers_what_should_fall_and_leaves_what_can_be_read_off(name):
    rng = np.random.default_rng(1)
    z = rng.random((1500, 4))
    turn = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2
    whole, mixed = measured(name, z, z, None), measured(name, z @ turn, z, None)
    if name in PARTIAL:
        assert mixed.value == pytest.approx(whole.value, abs=0.12)
    elif name in ("factor_vae", "beta_vae", "modularity"):
        assert mixed.value < whole.value + 1e-9  # they tolerate much
    else:
        assert mixed.value < whole.value - 0.1


@pytest.mark.parametrize("name", NAMES)
def test_dead_codes_change_nothing_and_all_dead_is_defined(name, z):
    whole = measured(name, z, z)
    dead = measured(name, np.concatenate([z, np.full((len(z), 3), 7.0)], 1), z)
    chances = {"typed_mcc"}  # its projections have as many codes
    assert dead.value == pytest.approx(whole.value, abs=0.02)
    assert dead.value >= PERFECT.get(name, 0.985) - 0.02
    if name not in chances:
        assert dead.chance == pytest.approx(whole.chance, abs=0.15)
    nothing = measured(name, np.ones((len(z), 2)), z)
    assert nothing.value == pytest.approx(
        {"beta_vae": 0.25, "explicitness": 0.5, "dci_es": -1}.get(name, 0), abs=1e-3
    )


@pytest.mark.parametrize("name", ["mig", "sap"])
def test_two_copies_of_every_code_leave_no_gap(name, z):
    assert measured(name, np.concatenate([z, z], 1), z).value == pytest.approx(0, abs=1e-9)


def test_two_copies_of_every_code_halve_completeness_and_leave_disentanglement(z):
    double = np.concatenate([z, z], 1)
    assert dci(double, z, "disentanglement", FACTORS, rounds=25).value > 0.98
    assert dci(double, z, "completeness", FACTORS, rounds=25).value == pytest.approx(
        1 - np.log(2) / np.log(8), abs=0.02
    )
    assert infomec(double, z, "compactness", FACTORS).value == pytest.approx((0.5 - 1 / 8) / (7 / 8), abs=0.03)
    assert infomec(double, z, "modularity", FACTORS).value > 0.95
    assert modularity(double, z, FACTORS).value > 0.99


@pytest.mark.parametrize("name", NAMES)
def test_fewer_and_more_codes_than_factors_one_code_and_one_factor(name, z):
    fewer, one = measured(name, z[:, :2], z), measured(name, z[:, :1], z)
    more = measured(name, np.concatenate([z, np.random.default_rng(5).standard_normal((len(z), 3))], 1), z)
    single = measured(name, z, z[:, :1], FACTORS[:1])
    for outcome in (fewer, one, more, single):
        assert math.isfinite(outcome.value) and outcome.value <= outcome.ceiling + 1e-9
    if name not in ("modularity", "infomec_infom", "irs", "dci_disentanglement"):
        assert fewer.value < measured(name, z, z).value - 0.05
    if name == "typed_mcc":
        assert fewer.value == pytest.approx(fewer.ceiling) == pytest.approx(0.5)
        assert fewer.detail["pairs"].tolist() == [0, 1, -1, -1]


@pytest.mark.parametrize("name", NAMES)
def test_a_factor_that_does_not_vary_is_left_out(name, z):
    still = z.copy()
    still[:, 3] = 2.0
    kept = measured(name, z[:, :3], z[:, :3], FACTORS[:3])
    found = measured(name, z[:, :3], still)
    assert found.value == pytest.approx(kept.value, abs=0.03)
    assert found.detail["left_out"] == ["turn"]
    with pytest.raises(UsageError, match="no factor varies"):
        measured(name, z, np.ones_like(z))


@pytest.mark.parametrize("name", NAMES)
def test_what_cannot_be_scored_is_refused_by_name(name, z):
    for field in ("codes", "z"):
        given = {"codes": z.copy(), "z": z.copy()}
        given[field][3, 1] = np.nan
        with pytest.raises(UsageError, match=f"{field}: row 3, column 1 is nan"):
            measured(name, **given)
    with pytest.raises(UsageError, match="2 factors for the 4 columns"):
        measured(name, z, z, FACTORS[:2])
    with pytest.raises(UsageError, match="1500 rows, z 9 rows"):
        measured(name, z, z[:9])
    with pytest.raises(UsageError, match="group: expected"):
        measured(name, z, z, group=np.zeros(3))


@pytest.mark.parametrize("name", ["dci_informativeness", "explicitness", "infomec_infoe"])
def test_a_sequence_lies_on_one_side_of_the_split(name):
    """Codes that only name the sequence predict its factor on its own rows, and on no others."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(60), 25)
    z = rng.random((60, 1))[group] + 0.01 * rng.random((1500, 1))
    codes = np.eye(60)[group] + 0.01 * rng.standard_normal((1500, 60))
    apart, leaked = measured(name, codes, z, None, group=group), measured(name, codes, z, None)
    assert apart.value < leaked.value - 0.1


def test_few_rows_do_not_add_information():
    rng = np.random.default_rng(0)
    z, noise = rng.integers(0, 32, (600, 4)).astype(float), rng.standard_normal((600, 1))
    plain = mig(noise, z, compat="disentanglement_lib", resamples=0).value
    own = mig(noise, z, resamples=0)
    assert plain > 0.08  # all of it bias
    assert own.value < 0.03 and own.chance < 0.03


def test_a_noisy_code_of_a_factor_with_many_values_and_an_outlier_is_still_perfect():
    rng = np.random.default_rng(0)
    z = rng.integers(0, 40, (3000, 3)).astype(float)
    codes = z + 0.1 * rng.random(z.shape)
    codes[0] = 1e4
    assert mig(codes, z, resamples=0).value > 0.97
    assert mig(codes, z, compat="disentanglement_lib", resamples=0).value < 0.05


def test_pictures_are_in_the_order_given(z):
    codes = z[:, [2, 0, 3, 1]]
    where = [1, 3, 0, 2]  # the code of each factor
    for found in (mig(codes, z, FACTORS, resamples=0), sap(codes, z, FACTORS)):
        assert found.detail["best"].tolist() == where
        assert found.detail["matrix"].argmax(0).tolist() == where
    assert dci(codes, z, factors=FACTORS, rounds=10).detail["matrix"].argmax(0).tolist() == where
    votes = measured("factor_vae", codes, z).detail
    assert votes["guess"].tolist() == [2, 0, 3, 1] and votes["votes"].argmax(0).tolist() == [2, 0, 3, 1]
    assert measured("irs", codes, z).detail["best"].tolist() == [2, 0, 3, 1]
    matched = measured("typed_mcc", np.concatenate([codes, z[:, :1] ** 3, np.ones((len(z), 1))], 1), z).detail
    assert matched["pairs"].tolist() == where and matched["unmatched"] == [4] and matched["dead"] == [5]


@pytest.mark.parametrize("name", NAMES)
def test_a_factor_constant_up_to_rounding_is_constant(name):
    """A computed angle, a mean over a group: 3.3 give or take a few units in the last place."""
    draw = np.random.default_rng(0)
    z = draw.uniform(size=(300, 3))
    codes = z + 0.1 * draw.standard_normal(z.shape)
    constant, nearly = np.full(300, 3.3), 3.3 + 4.4e-16 * draw.integers(-2, 3, 300)
    one, two = (
        measured(name, codes, np.column_stack([z, column]), (*map(Factor, "abc"), Factor("d")))
        for column in (constant, nearly)
    )
    assert one.value == two.value and two.detail["left_out"] == ["d"]
    dead = np.column_stack([codes, nearly.astype(np.float32)])
    assert measured(name, dead, z, tuple(map(Factor, "abc"))).value == pytest.approx(one.value, abs=0.1)
