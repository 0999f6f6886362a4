"""Gated, AbsTopK and Matryoshka beside their equations; shifts that are left out; fits on rows."""

from __future__ import annotations

import pytest
import torch

from unmix.core.errors import UsageError
from unmix.encoders import ENCODERS, gates
from unmix.encoders.gates import AbsTopK, Gated, Matryoshka
from unmix.finders.features import assemble, replace


@pytest.fixture(scope="module")
def truth(world):
    return assemble(world.atoms, torch.zeros(world.width), ENCODERS.make("Nearest"))


@pytest.fixture(scope="module")
def x(world):
    return world.sample(600, 0).x


@pytest.mark.parametrize(("name", "fields"), [("Linear", {"active": 2.0}), ("MLP", {"hidden": 8, "active": 2.0})])
def test_shifts_that_are_left_out_stay_zero(name, fields, truth, x):
    with_shift = ENCODERS[name](**fields, steps=30).bind(truth, x).tensors
    without = ENCODERS[name](**fields, steps=30, bias=False).bind(truth, x)
    for shift in {"shift", "out_shift"} & without.tensors.keys():
        assert with_shift[shift].abs().max() > 0
        assert (without.tensors[shift] == 0).all()
    assert without(x).l0().double().mean().item() == pytest.approx(2.0, rel=0.2)


def test_a_gate_opens_and_a_magnitude_reads(truth, x):
    draw = torch.Generator().manual_seed(0)
    m, d = truth.shape
    shapes = {"weight": (m, d), "shift": (m,), "gate_shift": (m,), "log_scale": (m,)}
    tensors = {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    codes = Gated().restore(truth, tensors)(x).dense()
    read = x @ tensors["weight"].T
    magnitude = (tensors["log_scale"].exp() * read + tensors["shift"]).clamp_min(0)
    expected = torch.where(read + tensors["gate_shift"] > 0, magnitude, torch.zeros(()))
    assert torch.allclose(codes, expected, atol=1e-5)
    assert 0 < codes.count_nonzero() < codes.numel()


def test_the_gate_learns_from_its_own_decoding_and_leaves_the_dictionary_alone(truth, x):
    tensors = {n: t.clone().requires_grad_() for n, t in Gated(init="tied").bind(truth).tensors.items()}
    atoms, given = truth.atoms.clone().requires_grad_(), x.clone().requires_grad_()
    parts = Gated()._objective({**tensors, "atoms": atoms}, given)
    plain = (x - parts.codes @ atoms).square().sum(1) / 2
    assert (parts.error > plain).any()
    (slope,) = torch.autograd.grad(parts.error.sum(), [tensors["gate_shift"]], retain_graph=True)
    assert slope.abs().max() > 0
    full = torch.autograd.grad(parts.error.sum(), [atoms], retain_graph=True)
    assert torch.allclose(full[0], torch.autograd.grad(plain.sum(), [atoms])[0], atol=1e-4)


def test_the_largest_by_size_keep_their_sign(truth, x):
    encoder = AbsTopK(init="tied", k=3).bind(truth)
    codes = encoder(x)
    before = x @ truth.atoms.T
    least = before.abs().sort(1, descending=True).values[:, 2:3]
    assert torch.allclose(codes.dense(), before * (before.abs() >= least), atol=1e-6)
    assert (codes.values < 0).any() and (codes.values > 0).any()
    assert torch.equal(codes.dense(), AbsTopK(k=3)._forward(encoder.tensors, x))


def test_ties_by_size_go_to_the_lowest_index():
    features = assemble(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]), torch.zeros(2), ENCODERS.make("Nearest"))
    codes = AbsTopK(init="tied", k=1).bind(features)(torch.tensor([[2.0, 0.5], [-2.0, 2.0]]))
    assert codes.indices.tolist() == [[0], [0]]
    assert codes.values.tolist() == [[2.0], [-2.0]]


def test_blocks_of_rows_do_not_change_the_codes(truth, x, monkeypatch):
    encoder = AbsTopK(init="tied", k=3).bind(truth)
    whole = encoder(x)
    monkeypatch.setattr(gates, "BLOCK_BYTES", 1)
    assert torch.allclose(encoder(x).dense(), whole.dense(), atol=1e-6)


def test_codes_of_a_small_level_are_those_of_a_larger_one_cut(truth, x):
    encoder = Matryoshka(init="tied", k=4, prefixes=(6, 12))
    whole = encoder.bind(truth)(x).dense()
    for prefix in (1, 6, 12, 24):
        codes = encoder.but(prefix=prefix).bind(truth)(x).dense()
        assert torch.equal(codes[:, :prefix], whole[:, :prefix])
        assert (codes[:, prefix:] == 0).all()
    assert torch.allclose(whole, ENCODERS["TopK"](init="tied", k=4).bind(truth)(x).dense(), atol=1e-6)


def test_the_objective_is_the_sum_over_the_levels(truth, x):
    encoder = Matryoshka(init="tied", k=4, prefixes=(6, 12))
    tensors = {**encoder.bind(truth).tensors, "atoms": truth.atoms}
    parts = encoder._objective(tensors, x)
    levels = [(x - parts.codes[:, :p] @ truth.atoms[:p]).square().sum(1) / 2 for p in (6, 12, 24)]
    assert torch.allclose(parts.error, sum(levels), atol=1e-4)
    assert Matryoshka().levels(32) == (2, 4, 8, 16, 32)
    assert Matryoshka().levels(3) == (1, 3)
    assert Matryoshka().levels(1) == (1,)


def test_impossible_prefixes_are_refused(truth):
    with pytest.raises(UsageError, match="rising"):
        Matryoshka(prefixes=(4, 4))
    with pytest.raises(UsageError, match="prefixes=25"):
        Matryoshka(init="tied", k=2, prefixes=(25,)).bind(truth)
    with pytest.raises(UsageError, match="prefix=30"):
        Matryoshka(init="tied", k=2, prefix=30).bind(truth)


@pytest.mark.parametrize(
    ("name", "fields"),
    [("Gated", {"active": 2.0}), ("AbsTopK", {"k": 2}), ("Matryoshka", {"k": 2}), ("Lista", {"active": 2.0})],
)
def test_a_fit_on_rows_lowers_the_error_and_reads_rows_one_by_one(name, fields, truth, world, x):
    fresh = world.sample(400, 5).x
    fitted = replace(truth, encoder=ENCODERS[name](**fields, steps=300), rows=x)
    first = replace(truth, encoder=ENCODERS[name](**fields, init="tied"))

    def left(features):
        return (fresh - features.reconstruct(fresh)).square().sum().item()

    assert left(fitted) < 0.8 * left(first)
    assert fitted.encode(x).l0().double().mean().item() == pytest.approx(2.0, rel=0.02)
    whole = fitted.encode(fresh[:20]).dense()
    alone = torch.cat([fitted.encode(fresh[i : i + 1]).dense() for i in range(20)])
    assert torch.allclose(alone, whole, atol=1e-5)
