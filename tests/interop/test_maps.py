"""Maps between conventions: transforms of the rows folded into features, for every read-out."""

from __future__ import annotations

import pytest
import torch

from unmix.activations.transforms import Center, Scale, TransformedRows, Whiten
from unmix.core.errors import UsageError
from unmix.core.rows import ArrayRows
from unmix.encoders import ENCODERS
from unmix.finders.features import replace
from unmix.interop.maps import folded, of_given_rows

from . import made

KINDS = ["Linear", "TopK", "AbsTopK", "BatchTopK", "JumpReLU", "Gated", "Matryoshka", "MLP"]


def features(kind):
    if kind != "MLP":
        return made.features(kind)
    return replace(made.features("TopK"), encoder=ENCODERS.make({"kind": "MLP", "steps": 5}), rows=made.rows())


def rows(n=400):
    return made.rows(n) @ made.draw(7, made.D, made.D) + torch.arange(made.D)


@pytest.mark.parametrize("transform", [Center(), Scale(), Whiten(), Whiten(rank=4)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_folded_features_have_the_same_codes_and_what_they_mean_in_the_rows_given(kind, transform):
    h = rows()
    affine = transform.fit(h)
    given = features(kind)
    back = folded(given, affine)
    double, exact = back.to(torch.float64), given.to(torch.float64)
    x = (h.double() - affine.shift.double()) * affine.scale
    if affine.matrix is not None:
        x = x @ affine.matrix.double()
    codes = exact.encode(x).dense()
    assert (codes != 0).any()
    # Both were rounded to float32, which moves a few codes at the edge of being active.
    same = (double.encode(h.double()).dense() - codes).abs() < 2e-4 * codes.abs().max()
    assert same.double().mean() > 0.999
    near = affine.inverse(exact.reconstruct(x))
    whole = same.all(1)
    assert torch.allclose(double.reconstruct(h.double())[whole], near[whole], atol=2e-3)
    assert back.about == given.about and given.atoms is not back.atoms


def test_a_chain_of_transforms_is_folded_from_the_inside_out():
    h = rows()
    seen = ArrayRows(h)
    for transform in (Center(), Whiten(), Scale()):
        seen = TransformedRows(seen, transform.fit(seen))
    given = made.features("Linear")
    codes = given.encode(seen).dense()
    assert torch.allclose(of_given_rows(given, seen).encode(h).dense(), codes, atol=1e-3)
    assert of_given_rows(given, ArrayRows(h)) is given


def test_an_affine_map_with_an_offset():
    h = rows()
    first, then = Whiten(rank=3).fit(h), Center().fit(h)
    both = first.then(then)
    assert both.offset is not None
    given = made.features("Gated")
    codes = given.encode(both(h)).dense()
    assert torch.allclose(folded(given, both).encode(h).dense(), codes, atol=1e-3)


def test_an_l1_problem_cannot_take_in_a_transform():
    given = replace(made.features("TopK"), encoder="Fista")
    with pytest.raises(UsageError, match="Fista: only a read-out can take in a transform"):
        folded(given, Center().fit(rows()))
