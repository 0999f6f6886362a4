"""Losses: written out by hand on small tensors, known values, refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import linalg

from unmix.core.errors import UsageError
from unmix.core.seeds import Stream
from unmix.learners.losses import (
    anisotropic_info_nce,
    cross_entropy_head,
    gcl,
    info_nce,
    logistic,
    pcl,
    similarities,
    smoothing_floor,
    spectral_contrastive,
    tcl,
)
from unmix.learners.temporal import Components


def draw(*shape: int, name: str = "x") -> torch.Tensor:
    return torch.randn(*shape, generator=Stream(0).child(name).torch())


def test_cross_entropy_written_out():
    h, weights, bias = draw(6, 3), draw(4, 3, name="w"), draw(4, name="b")
    y = torch.tensor([0, 1, 2, 3, 0, 2])
    logits = (1.7 * h @ weights.T + bias).double()
    expected = -torch.stack([logits[i].log_softmax(0)[y[i]] for i in range(6)]).mean()
    assert cross_entropy_head(h, weights, 1.7, bias, y).item() == pytest.approx(expected.item(), abs=1e-6)
    target = 0.7 * torch.nn.functional.one_hot(y, 4) + 0.3 / 4
    smoothed = -(target * logits.log_softmax(1)).sum(1).mean()
    assert cross_entropy_head(h, weights, 1.7, bias, y, 0.3).item() == pytest.approx(smoothed.item(), abs=1e-6)
    with pytest.raises(UsageError, match="0 to 3, the head has 3 classes"):
        cross_entropy_head(h, weights[:3], 1.0, None, y)


def test_uniform_logits_cost_the_logarithm_and_smoothing_has_its_floor_and_identity():
    n = 50_000
    h, weights, y = draw(5, 4), torch.zeros(n, 4), torch.arange(5)
    for smoothing in (0.0, 0.8):
        assert cross_entropy_head(h, weights, 1.0, None, y, smoothing).item() == pytest.approx(math.log(n), rel=1e-6)
    assert smoothing_floor(n, 0.8) == pytest.approx(9.156, abs=1e-3)
    assert smoothing_floor(1_281_167, 0.8) == pytest.approx(11.751, abs=1e-3)
    assert smoothing_floor(10, 0.0) == 0.0
    target = torch.full((10,), 0.03)
    target[0] += 0.7
    assert smoothing_floor(10, 0.3) == pytest.approx(-(target * target.log()).sum().item(), rel=1e-5)
    h, weights, y = draw(7, 3).double(), draw(11, 3, name="w").double(), torch.arange(7)
    plain = cross_entropy_head(h, weights, 1.0, None, y)
    shift = 0.4 * ((h * weights[y]).sum(1) - h @ weights.mean(0)).mean()
    assert cross_entropy_head(h, weights, 1.0, None, y, 0.4).item() == pytest.approx(
        (plain + shift).item(), abs=1e-12
    )


@pytest.mark.parametrize("similarity", ["vmf", "normal", "laplace"])
@pytest.mark.parametrize("scaled", [False, True])
def test_similarities_and_info_nce_written_out(similarity, scaled):
    a, b = draw(5, 3).double(), draw(5, 3, name="b").double()
    scale = draw(3, name="s").double().exp() if scaled else torch.ones(3).double()
    parts = {
        "vmf": (a[:, None] * b[None] * scale).sum(2),
        "normal": -((a[:, None] - b[None]).square() * scale).sum(2),
        "laplace": -((a[:, None] - b[None]).abs() * scale).sum(2),
    }[similarity]
    assert torch.allclose(similarities(a, b, similarity, scale if scaled else None), parts)
    one = -(2.5 * parts).log_softmax(1).diagonal().mean()
    other = -(2.5 * parts).log_softmax(0).diagonal().mean()
    given = scale if scaled else None
    assert info_nce(a, b, similarity, 2.5, False, given).item() == pytest.approx(one.item())
    assert info_nce(a, b, similarity, 2.5, True, given).item() == pytest.approx((one + other).item() / 2)
    if similarity == "normal" and scaled:
        assert anisotropic_info_nce(a, b, 2.5 * scale, False).item() == pytest.approx(one.item())


def test_info_nce_at_chance_and_refusals():
    same = torch.ones(8, 3)
    assert info_nce(same, same).item() == pytest.approx(math.log(8))
    with pytest.raises(UsageError, match="n of at least 2"):
        info_nce(same[:1], same[:1])
    with pytest.raises(UsageError, match="same shape"):
        spectral_contrastive(same, same[:4])
    with pytest.raises(UsageError, match="vmf, normal or laplace"):
        info_nce(same, same, "cosine")


def test_the_linear_spectral_loss_has_the_minimum_of_the_eigenvalue_problem():
    d, k = 6, 3
    root, inner = draw(d, d).double(), draw(d, d, name="i").double()
    between = inner @ inner.T / d
    total = between + root @ root.T / d
    values, vectors = linalg.eigh(between.numpy(), total.numpy())
    top = torch.from_numpy((vectors[:, -k:] * np.sqrt(values[-k:])).T)

    def expected(a):
        product = a @ total @ a.T
        return -2 * (a @ between @ a.T).trace() + (product @ product).trace()

    assert expected(top).item() == pytest.approx(-np.square(values[-k:]).sum())
    nudged = top + 0.05 * draw(k, d, name="n").double()
    assert expected(nudged) > expected(top)
    # On data with these moments the loss is the expectation, up to the draw.
    n = 40_000
    shared = torch.linalg.cholesky(between) @ draw(d, n, name="s").double()
    first, second = (shared + root @ draw(d, n, name=p).double() / d**0.5 for p in "ab")
    sums = [spectral_contrastive((top @ first[:, i::20]).T, (top @ second[:, i::20]).T) for i in range(20)]
    assert torch.stack(sums).mean().item() == pytest.approx(expected(top).item(), abs=0.02)


def test_regression_functions_are_sums_over_components():
    h, u = draw(9, 4), draw(9, 2, name="u")
    components = Components(4, 2, 8, Stream(1))
    values = components(h, u)
    assert values.shape == (9, 4)
    changed = h.clone()
    changed[:, 2] += 1
    moved = (components(changed, u) - values).abs().amax(0)
    assert moved[2] > 0.01 and moved[[0, 1, 3]].max() == 0
    order = torch.arange(9).roll(1)
    true, broken = values.sum(1), components(h, u[order]).sum(1)
    expected = ((1 + (-true).exp()).log().mean() + (1 + broken.exp()).log().mean()) / 2
    assert gcl(h, u, order, components).item() == pytest.approx(expected.item(), rel=1e-5)
    assert logistic(torch.zeros(3), torch.zeros(4)).item() == pytest.approx(math.log(2))
    pair = Components(4, 1, 8, Stream(2))
    before = draw(9, 4, name="before")
    true, broken = (pair(h, b.unsqueeze(2)).sum(1) for b in (before, before[order]))
    assert pcl(h, before, order, pair).item() == pytest.approx(logistic(true, broken).item())


def test_time_contrastive_loss_is_the_cross_entropy_of_the_segment():
    h, weights, bias, segment = draw(6, 3), draw(4, 3, name="w"), draw(4, name="b"), torch.tensor([0, 1, 2, 3, 3, 0])
    assert tcl(h, weights, bias, segment) == torch.nn.functional.cross_entropy(h @ weights.T + bias, segment)
