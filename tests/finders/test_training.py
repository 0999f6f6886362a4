"""Unit norm, written-out gradients, and what reaches latents that do not fire."""

from __future__ import annotations

import pytest
import torch

from unmix.core.adam import Adam
from unmix.core.seeds import Stream
from unmix.encoders import ENCODERS
from unmix.finders.backward import l1_gradients
from unmix.finders.training import auxiliary_error, part_of, remove_radial, resample, to_unit_norm

NAMES = ["Linear", "MLP", "TopK", "AbsTopK", "Gated", "Matryoshka", "Lista"]


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def made(name, m=10, d=6, **fields):
    encoder = ENCODERS[name](**({"k": 3} if ENCODERS[name].sparsity == "k" else {}), **fields)
    atoms = torch.nn.functional.normalize(draw(m, d))
    start = encoder._start(atoms, Stream(0))
    noisy = {n: t + 0.1 * draw(*t.shape, seed=len(n)) if t.ndim else t for n, t in start.items()}
    tensors = {"atoms": atoms, "bias": draw(d, seed=3) / 10, **noisy}
    adam = Adam({n: t for n, t in tensors.items() if n not in encoder._fixed()})
    return encoder, adam, {**tensors, **adam.learnt}


def test_norms_and_radial_parts():
    atoms, gradient = draw(7, 5), draw(7, 5, seed=1)
    to_unit_norm(atoms)
    assert (atoms.norm(dim=1) - 1).abs().max() < 1e-6
    remove_radial(gradient, atoms)
    assert (gradient * atoms).sum(1).abs().max() < 1e-6
    assert gradient.abs().max() > 0.1


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", ["Linear", "MLP"])
def test_written_out_gradients_are_those_of_the_graph(name, bias, frozen):
    encoder, adam, tensors = made(name, bias=bias, **({"hidden": 7} if name == "MLP" else {}))
    if frozen:
        adam = Adam({n: t for n, t in adam.learnt.items() if n != "atoms"})
        tensors = {**tensors, "atoms": tensors["atoms"].detach(), **adam.learnt}
    x = draw(40, 6, seed=5) - tensors["bias"]
    parts = encoder._objective(tensors, x)
    adam.backward(parts.error.mean() + 0.2 * parts.activity.abs().sum(1).mean())
    expected = {n: t.grad.clone() for n, t in adam.learnt.items()}
    adam.gradient.fill_(7.0)
    codes = l1_gradients(encoder, tensors, x, 0.2)
    assert torch.allclose(codes, parts.codes, atol=1e-6)
    assert ("shift" in expected) == bias and ("atoms" in expected) != frozen
    for name, gradient in expected.items():
        assert gradient.abs().max() > 0
        assert torch.allclose(adam.learnt[name].grad, gradient, atol=1e-5), name


@pytest.mark.parametrize("name", NAMES)
def test_the_auxiliary_error_reaches_dead_latents_and_never_the_bias(name):
    encoder, adam, tensors = made(name)
    rows, dead = draw(40, 6, seed=5), torch.tensor([2, 7, 8])
    x = rows - tensors["bias"]
    codes = encoder._objective(tensors, x).codes
    error = auxiliary_error(encoder, tensors, x, codes, dead, 2)
    assert error.shape == (40,)
    adam.backward(error.mean())
    matrix = adam.learnt[encoder.latents[0]].grad.movedim(encoder.axis, 0)
    alive = torch.tensor([i for i in range(10) if i not in dead.tolist()])
    assert matrix[dead].abs().max() > 0 and adam.learnt["atoms"].grad[dead].abs().max() > 0
    assert (matrix[alive] == 0).all()
    assert (adam.learnt["atoms"].grad[alive] == 0).all(), "the residual must be detached"
    assert (adam.learnt["bias"].grad == 0).all()


def test_the_auxiliary_error_is_that_of_the_residual():
    encoder, _, tensors = made("TopK")
    x, dead = draw(5, 6, seed=5), torch.tensor([2, 7])
    codes = encoder._forward(tensors, x)
    before = encoder._before(tensors, x)[:, dead].relu()
    left = x - codes @ tensors["atoms"] - before @ tensors["atoms"][dead]
    assert torch.allclose(auxiliary_error(encoder, tensors, x, codes, dead, 9), left.square().sum(1) / 2, atol=1e-5)
    assert part_of(encoder, tensors, dead)["weight"].shape == (2, 6)


@pytest.mark.parametrize("name", NAMES)
def test_resampled_latents_point_at_badly_reconstructed_rows(name):
    encoder, adam, tensors = made(name)
    adam.first.fill_(1.0)
    x, dead = draw(40, 6, seed=5) * 0.01, torch.tensor([2, 7])
    x[3], x[11] = 20 * torch.eye(6)[0], -20 * torch.eye(6)[1]
    codes = torch.zeros(40, 10)
    before = tensors["atoms"].detach().clone()
    taken = resample(encoder, tensors, adam, x, codes, dead, Stream(0))
    assert taken.tolist() == [2, 7]
    pointed = {tuple(atom.round(decimals=4).tolist()) for atom in tensors["atoms"].detach()[dead] + 0.0}
    assert pointed == {tuple(torch.eye(6)[0].tolist()), tuple((-torch.eye(6)[1] + 0.0).tolist())}
    others = torch.tensor([i for i in range(10) if i not in (2, 7)])
    assert torch.equal(tensors["atoms"].detach()[others], before[others])
    moments = adam._views(adam.first)["atoms"]
    assert (moments[dead] == 0).all() and (moments[others] == 1).all()
    assert len(resample(encoder, tensors, adam, torch.zeros(4, 6), torch.zeros(4, 10), dead, Stream(0))) == 0


def test_with_frozen_atoms_weights_are_pointed_at_their_own():
    encoder, _, tensors = made("Linear")
    adam = Adam({"weight": tensors["weight"], "shift": tensors["shift"]})
    tensors = {name: tensor.detach() for name, tensor in tensors.items()}
    before = tensors["atoms"].clone()
    dead = torch.tensor([1, 4])
    assert resample(encoder, tensors, adam, draw(9, 6), torch.zeros(9, 10), dead, Stream(0)).tolist() == [1, 4]
    assert torch.equal(tensors["atoms"], before)
    pointed = torch.nn.functional.cosine_similarity(adam.learnt["weight"].detach()[dead], before[dead])
    assert torch.allclose(pointed, torch.ones(2), atol=1e-5)
