"""Muon: what orthogonalising does to a matrix, and which parameters move by it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unmix.learners.muon import Muon, orthogonalised


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(12, 12), (30, 7), (7, 30), (1, 5), (5, 1)])
def test_singular_vectors_stay_and_singular_values_come_close_to_one(shape):
    matrix = draw(*shape)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    turned = orthogonalised(matrix)
    inside = left.T @ turned @ right.T
    values = inside.diagonal()
    assert values.min() > 0.6 and values.max() < 1.3
    assert torch.allclose(inside, torch.diag(values), atol=1e-4)
    assert torch.allclose(orthogonalised(matrix.T), turned.T, atol=1e-5)
    assert torch.allclose(orthogonalised(100 * matrix), turned, atol=1e-4)


def test_directions_without_gradient_stay_without():
    thin = draw(8, 2) @ draw(2, 6, seed=1)
    values = torch.linalg.svdvals(orthogonalised(thin))
    assert values[1] > 0.6 and values[2] < 1e-4
    assert torch.equal(orthogonalised(torch.zeros(3, 4)), torch.zeros(3, 4))


def test_half_precision_is_turned_in_float32():
    matrix = draw(6, 9).bfloat16()
    turned = orthogonalised(matrix)
    assert turned.dtype == torch.bfloat16
    assert torch.equal(turned, orthogonalised(matrix.float()).bfloat16())


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_all_else_moves_as_under_adamw(decay):
    ours, theirs = (nn.Parameter(draw(5, 4)) for _ in range(2))
    muon = Muon([{"params": [ours], "lr": 0.01, "weight_decay": decay, "matrices": False}], 0.01)
    adam = torch.optim.AdamW([theirs], lr=0.01, weight_decay=decay)
    for step in range(10):
        ours.grad = theirs.grad = draw(5, 4, seed=step)
        muon.step()
        adam.step()
    assert torch.allclose(ours, theirs, atol=1e-6) and not torch.equal(ours, draw(5, 4))


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon to compare with")
def test_matrices_move_as_under_the_muon_of_torch():
    ours, theirs = (nn.Parameter(draw(16, 6)) for _ in range(2))
    muon = Muon([{"params": [ours], "lr": 0.01, "weight_decay": 0.1, "matrices": True}], 0.01)
    peer = torch.optim.Muon([theirs], lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for step in range(5):
        ours.grad = theirs.grad = draw(16, 6, seed=step)
        muon.step()
        peer.step()
    moved = ours.detach() - draw(16, 6)
    assert torch.allclose(ours, theirs, atol=0.03 * float(moved.abs().max()))  # it works in bfloat16


def test_a_kernel_moves_as_the_matrix_of_its_rows_and_entries_by_about_the_rate():
    kernel, flat = nn.Parameter(draw(8, 3, 2, 2)), nn.Parameter(draw(8, 3, 2, 2).flatten(1))
    for weights in (kernel, flat):
        weights.grad = draw(8, 3, 2, 2, seed=1).view_as(weights)
        Muon([{"params": [weights], "matrices": True}], 0.01).step()
    assert torch.equal(kernel.flatten(1), flat)
    size = (flat - draw(8, 3, 2, 2).flatten(1)).square().mean().sqrt()
    assert 0.1 * 0.01 < size < 0.3 * 0.01
