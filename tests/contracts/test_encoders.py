"""Every encoder over one dictionary: right shapes and finite codes for any batch, and refusals."""

from __future__ import annotations

import pytest
import torch

from unmix.core.errors import UsageError
from unmix.encoders import ENCODERS
from unmix.finders.features import assemble, replace

FIELDS = {
    "Linear": {"init": "tied"},
    "TopK": {"init": "tied", "k": 3},
    "AbsTopK": {"init": "tied", "k": 3},
    "Gated": {"init": "tied"},
    "Matryoshka": {"init": "tied", "k": 3},
    "MLP": {"hidden": 16, "steps": 20},
    "Lista": {"init": "tied", "penalty": 0.05},
    "Fista": {"penalty": 0.05},
    "Omp": {"k": 3},
    "Nearest": {},
}


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
    return recipe.bind(dictionary, rows if recipe.weights and getattr(recipe, "init", None) is None else None)


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
    assert codes.cost is None or codes.cost.shape == (70,)
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
    if name in ("Fista", "Omp"):
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
    assert (bind(name, dictionary, rows, k=1)(rows).l0() <= 1).all()


@pytest.mark.parametrize("name", [n for n in ENCODERS if ENCODERS[n].weights])
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
    assert torch.allclose(double(rows).dense().float(), encoder(rows).dense(), atol=2e-3)
