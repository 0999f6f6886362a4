"""Every encoder over one dictionary: right shapes and finite codes for any batch, and refusals."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from unmix.core.errors import UsageError
from unmix.encoders import ENCODERS
from unmix.finders.features import assemble, replace

FIELDS = {
    "Linear": {"init": "tied"},
    "TopK": {"init": "tied", "k": 3},
    "BatchTopK": {"k": 3, "steps": 20},
    "JumpReLU": {"init": "tied"},
    "AbsTopK": {"init": "tied", "k": 3},
    "Gated": {"init": "tied"},
    "Matryoshka": {"init": "tied", "k": 3},
    "MLP": {"hidden": 16, "steps": 20},
    "Lista": {"init": "tied", "penalty": 0.05},
    "Ista": {"penalty": 0.05},
    "Fista": {"penalty": 0.05},
    "CoordinateDescent": {"penalty": 0.05},
    "Lca": {"penalty": 0.05},
    "Exponentiated": {"penalty": 0.5, "steps": 200, "lr": 0.05},
    "Nnls": {},
    "MatchingPursuit": {"k": 3},
    "Omp": {"k": 3},
    "GradientPursuit": {"k": 3},
    "Nearest": {},
    "Refine": {"first": {"kind": "TopK", "init": "tied", "k": 3}, "then": {"kind": "Fista", "penalty": 0.05}},
    "Debiased": {"base": {"kind": "Fista", "penalty": 0.05}},
    "Thresholded": {"base": {"kind": "Linear", "init": "tied"}, "threshold": 0.2},
    "Largest": {"base": {"kind": "Fista", "penalty": 0.2}, "k": 3},
}
# Encoders that choose codes by optimisation or greedily: a zero row has no codes, a zero atom is never used.
EXACT = ["Ista", "Fista", "CoordinateDescent", "Lca", "Nnls", "MatchingPursuit", "Omp", "GradientPursuit", "Refine"]
EXACT += ["Debiased"]
SIGNED = [n for n in FIELDS if "positive" in ENCODERS[n].model_fields]


@pytest.fixture(scope="module")
def dictionary():
    draw = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(20, 8, generator=draw))
    atoms[5] = atoms[4]  # a copy
    atoms[6] = 0  # a zero atom
    bias = torch.randn(8, generator=draw)
    return assemble(atoms, bias, ENCODERS.make("Nearest"))


@pytest.fixture(scope="module")
def rows():
    return torch.randn(70, 8, generator=torch.Generator().manual_seed(1))


def bind(name, dictionary, rows, **changes):
    recipe = ENCODERS[name](**{**FIELDS[name], **changes})
    return recipe.bind(dictionary, rows if recipe.needs_rows else None)


def test_every_encoder_is_covered():
    assert set(FIELDS) == set(ENCODERS)


@pytest.mark.parametrize("name", list(ENCODERS))
def test_codes_have_the_right_shape_and_sign(name, dictionary, rows):
    encoder = bind(name, dictionary, rows)
    codes = encoder(rows)
    assert codes.shape == (70, 20)
    dense = codes.dense()
    assert torch.isfinite(dense).all()
    assert (dense >= 0).all() or encoder.recipe.signed
    assert encoder.flops > 0
    if codes.cost is not None:
        assert codes.cost.shape == (70,)
        assert (codes.cost > 0).all() and (codes.cost <= encoder.flops).all()
    assert codes.certificate is None or (codes.certificate.shape == (70,) and (codes.certificate >= 0).all())
    assert torch.equal((dense != 0).sum(1), codes.l0())
    assert torch.allclose(codes.decode(dictionary.atoms), dense @ dictionary.atoms, atol=1e-5)


@pytest.mark.parametrize("name", list(ENCODERS))
def test_a_row_has_the_same_codes_alone_and_in_any_batch(name, dictionary, rows):
    encoder = bind(name, dictionary, rows)
    whole = encoder(rows).dense()
    alone = torch.cat([encoder(rows[i : i + 1]).dense() for i in range(10)])
    assert torch.allclose(alone, whole[:10], atol=2e-4)
    assert torch.allclose(encoder(rows, block=7).dense(), whole, atol=2e-4)
    strided = torch.stack([rows, rows], 2)[..., 0]
    assert not strided.is_contiguous()
    assert torch.allclose(encoder(strided).dense(), whole, atol=2e-4)


@pytest.mark.parametrize("name", list(ENCODERS))
def test_empty_batch_and_zero_row(name, dictionary, rows):
    encoder = bind(name, dictionary, rows)
    assert encoder(rows[:0]).shape == (0, 20)
    assert encoder(rows[:0]).dense().shape == (0, 20)
    codes = encoder(dictionary.bias[None])  # a zero row once the bias is off
    assert torch.isfinite(codes.dense()).all()
    if name in EXACT:
        assert codes.l0().item() == 0


@pytest.mark.parametrize("name", list(ENCODERS))
def test_wrong_width_and_nan_are_refused(name, dictionary, rows):
    encoder = bind(name, dictionary, rows)
    with pytest.raises(UsageError, match=r"expected \[n, 8\]"):
        encoder(rows[:, :5])
    bad = rows.clone()
    bad[3, 1] = float("inf")
    with pytest.raises(UsageError, match="row 3, column 1"):
        encoder(bad)


@pytest.mark.parametrize("name", [n for n in ENCODERS if ENCODERS[n].sparsity == "k"])
def test_k_over_the_number_of_atoms_is_refused_and_k_equal_to_it_is_not(name, dictionary, rows):
    with pytest.raises(UsageError, match="k=21: must be at most the number of atoms, 20"):
        bind(name, dictionary, rows, k=21)
    assert torch.isfinite(bind(name, dictionary, rows, k=20)(rows).dense()).all()
    l0 = bind(name, dictionary, rows, k=1)(rows).l0()
    assert (l0 <= 1).all() or (name == "BatchTopK" and l0.double().mean() <= 1)  # k is a mean there


@pytest.mark.parametrize("name", [n for n in ENCODERS if ENCODERS[n].weights is True])
def test_weights_need_rows_or_a_start(name, dictionary, rows):
    fields = {k: v for k, v in FIELDS[name].items() if k != "init"}
    with pytest.raises(UsageError, match="give rows"):
        replace(dictionary, encoder=ENCODERS[name](**fields))
    fitted = replace(
        dictionary, encoder=ENCODERS[name](**fields, **({} if "steps" in fields else {"steps": 20})), rows=rows
    )
    assert fitted.encode(rows).shape == (70, 20)


@pytest.mark.parametrize("name", list(ENCODERS))
def test_moving_precision_keeps_the_codes(name, dictionary, rows):
    encoder = bind(name, dictionary, rows)
    double = encoder.to(torch.float64)
    assert double(rows).dense().dtype == torch.float64
    # Which of two copies of an atom carries a code is left to rounding.
    one, two = (
        torch.cat([c[:, :4], c[:, 4:6].sum(1, True), c[:, 6:]], 1)
        for c in (double(rows).dense(), encoder(rows).dense())
    )
    assert torch.allclose(one.float(), two, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("name", EXACT)
def test_a_zero_atom_is_never_used_and_a_copy_changes_nothing(name, dictionary, rows):
    codes = bind(name, dictionary, rows)(rows).dense()
    assert (codes[:, 6] == 0).all()
    alone = assemble(dictionary.atoms[:5], dictionary.bias, ENCODERS.make("Nearest"))
    twice = assemble(dictionary.atoms[[0, 1, 2, 3, 4, 4]], dictionary.bias, ENCODERS.make("Nearest"))
    one, two = (bind(name, part, rows)(rows).decode(part.atoms) for part in (alone, twice))
    assert torch.allclose(one, two, atol=0.02)


@pytest.mark.parametrize("name", list(ENCODERS))
@pytest.mark.parametrize(("n", "m", "d"), [(1, 3, 1), (5, 67, 3), (3, 3, 67)])
def test_odd_sizes_are_finite(name, n, m, d):
    draw = torch.Generator().manual_seed(m)
    atoms, x = torch.randn(m, d, generator=draw), torch.randn(max(n, 2), d, generator=draw)
    features = assemble(atoms, torch.zeros(d), ENCODERS.make("Nearest"))
    codes = bind(name, features, x)(x[:n])
    assert codes.shape == (n, m)
    assert torch.isfinite(codes.dense()).all()
    assert codes.certificate is None or torch.isfinite(codes.certificate).all()


@pytest.mark.parametrize("name", SIGNED)
def test_signed_codes_are_asked_for_by_the_recipe(name, dictionary, rows):
    encoder = bind(name, dictionary, rows, positive=False)
    assert encoder.recipe.signed and not bind(name, dictionary, rows).recipe.signed
    codes, mirrored = (encoder(dictionary.bias + sign * (rows - dictionary.bias)) for sign in (1, -1))
    assert (codes.dense() < 0).any() and (codes.dense() > 0).any()
    assert torch.allclose(codes.decode(dictionary.atoms), -mirrored.decode(dictionary.atoms), atol=0.02)
    left, positive = (
        (dictionary.bias + c.decode(dictionary.atoms) - rows).norm()
        for c in (codes, bind(name, dictionary, rows)(rows))
    )
    assert left < positive


@pytest.mark.parametrize("name", list(ENCODERS))
def test_given_codes_are_a_start_or_are_refused(name, dictionary, rows):
    encoder = bind(name, dictionary, rows)
    codes = encoder(rows)
    if not encoder.recipe.warm:
        with pytest.raises(UsageError, match=r"start: .* cannot begin from given codes"):
            encoder(rows, start=codes)
        return
    with pytest.raises(UsageError, match=r"start: expected codes \[70, 20\], got \[69, 20\]"):
        encoder(rows, start=codes.rows(slice(1, 70)))
    again = encoder(rows, block=16, start=codes)
    if name in EXACT:
        assert torch.allclose(again.decode(dictionary.atoms), codes.decode(dictionary.atoms), atol=0.05)
    if codes.certificate is not None:
        assert again.certificate.max() <= codes.certificate.max() + 1e-6
    assert again.cost.sum() <= codes.cost.sum() * 1.001


@pytest.mark.parametrize("name", list(ENCODERS))
def test_saved_features_encode_the_same(name, dictionary, rows, tmp_path):
    encoder = bind(name, dictionary, rows)
    features = dataclasses.replace(dictionary, encoder=encoder)
    again = type(features).load(features.save(tmp_path / "features"))
    assert again.digest == features.digest
    assert again.encoder.recipe == encoder.recipe
    assert torch.allclose(again.encode(rows).dense(), features.encode(rows).dense(), atol=2e-4)
