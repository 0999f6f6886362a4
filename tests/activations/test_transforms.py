from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from unmix.activations import TRANSFORMS
from unmix.activations.shards import ShardWriter
from unmix.activations.transforms import Affine, Center, Scale, Standardise, TransformedRows, Whiten
from unmix.core.errors import UsageError
from unmix.core.rows import Rows
from unmix.core.seeds import Stream
from unmix.core.store import read_tensors, write_tensors


@pytest.fixture
def h() -> torch.Tensor:
    rng = np.random.default_rng(0)
    h = rng.standard_normal((500, 8)) @ rng.standard_normal((8, 8)) + 5 * rng.standard_normal(8)
    h[:, 3] = 0.1
    return torch.from_numpy(h.astype(np.float32))


def test_what_each_does(h: torch.Tensor) -> None:
    assert torch.allclose(Center().fit(h)(h).mean(0), torch.zeros(8), atol=1e-5)
    scaled = Scale().fit(h)(h)
    assert float(scaled.square().sum(1).mean()) == pytest.approx(8, rel=1e-5)
    assert torch.allclose(scaled / scaled[0, 0], h / h[0, 0], rtol=1e-4)
    standard = Standardise().fit(h)(h)
    varies = torch.arange(8) != 3
    assert torch.allclose(standard.mean(0), torch.zeros(8), atol=1e-5) and bool((standard[:, 3] == 0).all())
    assert torch.allclose(standard.std(0, correction=0)[varies], torch.ones(7), atol=1e-4)
    white = Whiten(ridge=0).fit(h)(h)
    identity = torch.eye(8)
    identity[3, 3] = 0
    assert torch.allclose(torch.cov(white.T, correction=0), identity, atol=1e-3)
    assert bool((white[:, 3] == 0).all())


@pytest.mark.parametrize(
    "transform", [Center(), Scale(), Standardise(), Whiten(), Whiten(ridge=0.1), Whiten(ridge=0)], ids=str
)
def test_inverse_gives_the_rows_back(h: torch.Tensor, transform: Center) -> None:
    before = h.clone()
    affine = transform.fit(h)
    assert torch.allclose(affine.inverse(affine(h)), h, atol=1e-4)
    assert torch.equal(h, before)
    assert affine(h.double()).dtype == torch.float64


def test_chain_is_one_map(h: torch.Tensor) -> None:
    affine = Scale().fit(h)
    seen = affine(h)
    for transform, moved in ((Whiten(), 0), (Scale(), 1), (Center(), 1)):
        step = transform.fit(seen + moved)
        joined = affine.then(step)
        seen = step(seen)
        assert torch.allclose(joined(h), seen, atol=2e-4)
        affine = joined
    assert torch.allclose(affine.inverse(affine(h)), h, atol=2e-4)
    assert torch.allclose(affine.inverse(affine(h))[:, 3], torch.tensor(0.1), atol=1e-6)


def test_rank_keeps_the_largest_directions(h: torch.Tensor) -> None:
    affine = Whiten(rank=3, ridge=0).fit(h)
    assert int(torch.linalg.matrix_rank(affine(h), tol=1e-2)) == 3
    projected = affine.inverse(affine(h))
    values = torch.linalg.eigvalsh(torch.cov(h.T.double(), correction=0))
    lost = float((h - projected).double().square().sum(1).mean())
    assert lost == pytest.approx(float(values[:-3].sum()), rel=1e-3)
    assert torch.allclose(affine.inverse(affine(projected)), projected, atol=1e-4)


def test_state_and_rows(h: torch.Tensor, tmp_path: Path) -> None:
    affine = Scale().fit(h).then(Whiten().fit(Scale().fit(h)(h)))
    write_tensors(tmp_path / "a.safetensors", affine.state())
    again = Affine.from_state(read_tensors(tmp_path / "a.safetensors"))
    assert torch.equal(again(h), affine(h)) and again.digest == affine.digest
    with ShardWriter(tmp_path / "acts", 8, shard_bytes=1000) as writer:
        writer.append(h)
        shards = writer.finish()
    rows = TransformedRows(shards, affine)
    assert isinstance(rows, Rows) and rows.shape == (500, 8) and rows.items is shards.items
    assert rows.digest != shards.digest != TransformedRows(shards, Center().fit(h)).digest
    assert torch.allclose(torch.cat(list(rows.blocks(64))), affine(h), atol=1e-5)
    assert torch.allclose(rows.take(np.array([7, 2])), affine(h[[7, 2]]), atol=1e-5)
    mixed = torch.cat(list(rows.blocks(64, Stream(1))))
    assert torch.allclose(mixed.sum(0), affine(h).sum(0), atol=1e-2) and not torch.allclose(mixed, affine(h))
    assert Center().fit(rows).shift.abs().max() < 1e-4


def test_limit_draws_rows_by_rng(h: torch.Tensor) -> None:
    some = Center(limit=50)
    assert torch.equal(some.fit(h, 1).shift, some.fit(h, 1).shift)
    assert not torch.equal(some.fit(h, 1).shift, some.fit(h, 2).shift)
    assert TRANSFORMS.make({"kind": "Whiten", "rank": 2}) == Whiten(rank=2)


def test_what_cannot_be(h: torch.Tensor) -> None:
    with pytest.raises(UsageError, match="all are 0"):
        Scale().fit(torch.zeros(4, 2))
    with pytest.raises(UsageError, match="every column is constant"):
        Whiten().fit(torch.full((4, 2), 0.1))
    with pytest.raises(UsageError, match="rank=9: the rows have 8"):
        Whiten(rank=9).fit(h)
    with pytest.raises(UsageError, match="is for width 8, the rows have 7"):
        TransformedRows(h[:, :7], Center().fit(h))
    with pytest.raises(UsageError, match="other than 0"):
        Affine(torch.zeros(2), scale=0.0)


@pytest.mark.parametrize("name", list(TRANSFORMS))
def test_units_and_offsets_change_a_map_likewise(name: str) -> None:
    draw = np.random.default_rng(3)
    h = draw.standard_normal((300, 5)) @ draw.standard_normal((5, 5))
    given = torch.from_numpy(h)
    kind = TRANSFORMS[name]
    plain = kind().fit(h)(given)
    for unit in (2.0**-600, 2.0**-43, 2.0**27, 2.0**600) if name == "Scale" else (2.0**-43, 2.0**27):
        affine = kind().fit(h * unit)
        found = affine(given * unit)
        assert torch.allclose(found / unit if name == "Center" else found, plain, rtol=1e-5, atol=1e-6), unit
        assert torch.allclose(affine.inverse(found) / unit, given, rtol=1e-5, atol=1e-5)
    if name != "Scale":
        affine = kind().fit(h + 1e9)
        assert torch.allclose(affine(given + 1e9), plain, atol=1e-5)
        assert torch.allclose(affine.inverse(affine(given + 1e9)) - 1e9, given, atol=1e-5)
        back = affine.then(kind().fit(plain)).inverse(affine(given + 1e9).float())
        assert back.dtype == torch.float64


def test_a_map_beyond_float32_is_refused() -> None:
    with pytest.raises(UsageError, match="beyond float32"):
        Standardise().fit(np.random.default_rng(0).standard_normal((20, 2)) * 1e-60)
