"""Typed associations: what each kind sees, chance levels of projections, and ceilings under symmetries."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from unmix.core.errors import UsageError
from unmix.core.factors import Factor
from unmix.core.seeds import Stream
from unmix.scores.disentanglement.data import paired
from unmix.scores.disentanglement.typed import Associations, projections, symmetry_ceiling, typed_mcc

TURN = 2 * np.pi


def association(code, z, factor, correlation="pearson"):
    return Associations(paired(code[:, None], z[:, None], [factor]), correlation)()[0][0, 0]


def test_every_kind_has_its_association():
    rng = np.random.default_rng(0)
    z, code = rng.integers(0, 5, 800).astype(float), rng.standard_normal(800)
    code += 0.5 * z
    assert association(code, z, Factor("a")) == pytest.approx(abs(stats.pearsonr(code, z)[0]))
    spearman = abs(stats.spearmanr(code, z)[0])
    assert association(code, z, Factor("a"), "spearman") == pytest.approx(spearman)
    assert association(code, z, Factor("a", "ordinal")) == pytest.approx(spearman)
    means = np.array([code[z == v].mean() for v in range(5)])
    eta = np.sqrt(means[z.astype(int)].var() / code.var())
    assert association(code, z, Factor("a", "categorical")) == pytest.approx(eta)
    relabelled = np.array([3, 0, 4, 1, 2])[z.astype(int)]
    assert association(code, relabelled, Factor("a", "categorical")) == pytest.approx(eta)
    turned = Factor("a", "circular", low=0, high=5)
    c, s = np.cos(z * TURN / 5), np.sin(z * TURN / 5)
    xc, xs, cs = (np.corrcoef(*pair)[0, 1] for pair in ((code, c), (code, s), (c, s)))
    wanted = (xc**2 + xs**2 - 2 * xc * xs * cs) / (1 - cs**2)
    assert association(code, z, turned) == pytest.approx(np.sqrt(wanted))


def test_a_circular_factor_is_found_in_any_phase_and_a_symmetric_one_in_what_can_be_seen():
    angle = np.random.default_rng(0).uniform(0, TURN, 4000)
    for phase in (0.0, 1.0, 2.5):
        assert association(np.cos(angle + phase), angle, Factor("a", "circular", low=0, high=TURN)) > 0.999
    seen = np.cos(4 * angle)
    assert association(seen, angle, Factor("a", "circular", low=0, high=TURN)) < 0.1
    assert association(seen, angle, Factor("a", "circular", low=0, high=TURN, symmetry=4)) > 0.999
    assert abs(np.corrcoef(np.sin(angle), angle)[0, 1]) == pytest.approx(0.78, abs=0.01)


def test_signs_and_the_matching_are_told():
    z = np.random.default_rng(0).random((500, 3))
    found = typed_mcc(np.stack([-z[:, 2], z[:, 0] ** 3, np.cos(z[:, 1])], 1), z, correlation="spearman")
    assert found.value == pytest.approx(1) and found.interval == pytest.approx((1, 1))
    assert found.detail["pairs"].tolist() == [1, 2, 0] and found.detail["signs"].tolist() == [1, -1, -1]


def test_a_factor_without_a_related_code_counts_nothing_and_codes_may_be_left_over():
    z = np.random.default_rng(0).random((500, 2))
    found = typed_mcc(np.concatenate([z, -z], 1), z)
    assert found.value == pytest.approx(1) and len(found.detail["unmatched"]) == 2
    assert typed_mcc(z[:, :1], z).value == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("d", "m", "level"), [(2, 2, 0.90), (3, 3, 0.83), (5, 5, 0.73), (10, 10, 0.60), (3, 10, 0.91)]
)
def test_chance_is_the_level_of_random_projections(d, m, level):
    z = np.random.default_rng(0).random((1500, d))
    drawn = projections(paired(np.random.default_rng(1).standard_normal((1500, m)), z), Stream(0), draws=60)
    assert drawn.mean() == pytest.approx(level, abs=0.025)


def test_unrelated_codes_are_below_projections_and_at_the_level_of_shuffles():
    rng = np.random.default_rng(0)
    z, codes = rng.random((800, 4)), rng.standard_normal((800, 4))
    found = typed_mcc(codes, z, null="shuffle")
    assert found.at_chance and found.value < 0.1
    assert found.detail["projection"] > 0.6 and found.chance == pytest.approx(found.detail["shuffle"])
    rotated = typed_mcc(z @ np.linalg.qr(rng.standard_normal((4, 4)))[0], z)
    assert rotated.at_chance


@pytest.mark.parametrize("fold", [2, 3, 4])
def test_the_ceiling_of_a_symmetric_factor_is_one_over_its_symmetry(fold):
    angle = np.random.default_rng(0).uniform(0, TURN, 20000)
    assert symmetry_ceiling(angle, 0, TURN, fold) == pytest.approx(1 / fold, abs=0.01)
    factor = Factor("turn", "continuous", low=0, high=TURN, symmetry=fold)
    found = typed_mcc(np.mod(angle, TURN / fold)[:, None], angle[:, None], [factor], draws=2, resamples=0)
    assert found.value == pytest.approx(1 / fold, abs=0.02) and found.ceiling == pytest.approx(1 / fold, abs=0.01)


def test_ceilings_of_the_sprites():
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, TURN, 40000)
    shapes = rng.choice([4, 2, 1], 40000)  # square, ellipse, heart
    assert symmetry_ceiling(angle, 0, TURN, shapes) == pytest.approx(np.sqrt(21 / 48), abs=0.01)
    assert symmetry_ceiling(angle, 0, TURN, shapes, "spearman") == pytest.approx(0.636, abs=0.01)
    natural = rng.choice([4, 3, 4, 4], 40000)
    assert symmetry_ceiling(angle, 0, TURN, natural) == pytest.approx(0.27, abs=0.02)


def test_a_symmetry_needs_a_range():
    z = np.random.default_rng(0).random((50, 1))
    with pytest.raises(UsageError, match="needs low and high"):
        typed_mcc(z, z, [Factor("a", symmetry=2)])
