"""Streams, rows, samples, safe writes, minibatches, options."""

from __future__ import annotations

import errno
import os

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

from unmix.core import options
from unmix.core.digest import array_digest, digest
from unmix.core.errors import Failure, UsageError
from unmix.core.loop import minibatches, warm_then_decay
from unmix.core.rows import ArrayRows, Subset, as_rows, as_tensor, gather
from unmix.core.sample import Sample
from unmix.core.scale import flattened, near_one, resolution, size_of, unit, varies
from unmix.core.seeds import Stream
from unmix.core.statistics import bootstrap_mean, seed_interval
from unmix.core.store import read_json, read_tensors, replacing, write_json, write_tensors


def test_streams_are_named_and_independent():
    assert Stream(0).child("a").numpy().random() == Stream(0).child("a").numpy().random()
    numbers = {Stream(s).child(n).number for s in range(5) for n in ("a", "b", "a/b")}
    numbers |= {Stream(s).child("a").child("b").number for s in range(5)}
    assert len(numbers) == 20


def test_digest_covers_content_and_not_layout():
    a = np.arange(12.0).reshape(3, 4)
    assert array_digest(a) == array_digest(np.asfortranarray(a)) == array_digest(torch.from_numpy(a))
    assert array_digest(a) != array_digest(a.astype(np.float32))
    assert array_digest(a) != array_digest(a.reshape(4, 3))
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


def test_rows_in_blocks_cover_every_row_once():
    rows = ArrayRows(np.arange(50.0).reshape(25, 2))
    for stream in (None, Stream(3)):
        seen = torch.cat(list(rows.blocks(7, stream)))
        assert sorted(seen[:, 0].tolist()) == list(range(0, 50, 2))
    assert not torch.equal(torch.cat(list(rows.blocks(7, Stream(3)))), torch.cat(list(rows.blocks(7, Stream(4)))))
    part = Subset(rows, np.array([3, 1, 8]))
    assert part.take(np.array([0, 2]))[:, 0].tolist() == [6, 16]
    assert gather(part).shape == (3, 2)
    assert gather(rows, 5, Stream(0)).shape == (5, 2)
    assert part.digest != Subset(rows, np.array([3, 1, 7])).digest


def test_rows_refuse_what_is_not_a_matrix_of_numbers():
    for bad, word in [
        (np.zeros(3), "matrix"),
        (np.zeros((0, 3)), "no rows"),
        (np.array([["a"]]), "real numbers"),
        (np.zeros((2, 2), dtype=complex), "real numbers"),
    ]:
        with pytest.raises(UsageError, match=word):
            ArrayRows(bad)
    with pytest.raises(UsageError, match="expected rows"):
        as_rows("text")
    bad = np.zeros((70_000, 2), dtype=np.float32)
    bad[66_000, 1] = np.inf
    with pytest.raises(UsageError, match="row 66000, column 1"):
        ArrayRows(bad)


def test_numbers_of_every_kind_are_the_same_rows():
    plain = np.arange(6.0).reshape(3, 2)
    kinds = {
        "nested lists": plain.tolist(),
        "a table": pd.DataFrame(plain, columns=["a", "b"]),
        "the other byte order": plain.astype(plain.dtype.newbyteorder()),
        "narrow, in the other byte order": plain.astype(np.dtype(np.float32).newbyteorder()),
        "long": plain.astype(np.longdouble),
        "half": plain.astype(np.float16),
        "bfloat16": torch.from_numpy(plain).bfloat16(),
        "columns first": np.asfortranarray(plain),
        "with gradients": torch.from_numpy(plain).requires_grad_(),
    }
    for name, given in kinds.items():
        rows = as_rows(given)
        assert torch.cat(list(rows.blocks(2))).tolist() == plain.tolist(), name
        assert len(rows.digest) == 16
        assert as_tensor(given).tolist() == plain.tolist(), name
    assert as_tensor(kinds["the other byte order"]).dtype == torch.float64
    assert as_tensor(kinds["with gradients"]).requires_grad, "encoders pass gradients on"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (scipy.sparse.eye(3).tocsr(), r"h: is sparse; give h\.toarray\(\)"),
        (torch.eye(3).to_sparse(), r"h: is sparse; give h\.to_dense\(\)"),
        (torch.eye(3) + 1j, "real numbers, got torch.complex64"),
        ([[1.0], [1.0, 2.0]], "expected an array"),
        ("text", "expected rows or an array"),
        (pd.DataFrame({"a": ["x", "y"]}), "real numbers"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused_by_name(given, message):
    for read in (as_rows, as_tensor):
        with pytest.raises(UsageError, match=message):
            read(given, "h")


def test_a_read_only_memory_map_is_read_without_warnings(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((5, 3), dtype=np.float16))
    rows = ArrayRows(np.load(tmp_path / "a.npy", mmap_mode="r"))
    assert next(rows.blocks(5)).dtype == torch.float32


def test_minibatches_from_the_middle_equal_the_uninterrupted_ones():
    rows = ArrayRows(np.arange(40.0).reshape(20, 2))
    whole = list(minibatches(rows, 6, 11, Stream(0)))
    assert [step for step, _ in whole] == list(range(11))
    assert all(len(block) == 6 for _, block in whole)
    for start in (1, 3, 7, 10):
        later = list(minibatches(rows, 6, 11, Stream(0), start))
        assert [s for s, _ in later] == list(range(start, 11))
        for (_, a), (_, b) in zip(whole[start:], later, strict=True):
            assert torch.equal(a, b)


def test_learning_rate_factor_rises_and_falls():
    factors = [warm_then_decay(step, 100) for step in range(100)]
    assert factors[0] == pytest.approx(0.2)
    assert max(factors) == 1 and factors[50] == 1
    assert 0 < factors[-1] < 0.05


def test_sample_rows_are_aligned():
    sample = Sample(x=torch.zeros(4, 2), y=np.array([1, 2, 3, 4]))
    assert len(sample) == 4 and sample.provides == {"x", "y"}
    assert sample.take(np.array([2, 0])).y.tolist() == [3, 1]
    with pytest.raises(UsageError, match="x 4, y 3"):
        Sample(x=torch.zeros(4, 2), y=np.zeros(3))
    with pytest.raises(UsageError, match="absent"):
        Sample()


def test_a_failed_write_leaves_what_was_there(tmp_path):
    target = tmp_path / "result.json"
    write_json(target, {"a": 1})
    with pytest.raises(RuntimeError, match="boom"), replacing(target) as part:
        part.write_text("half")
        raise RuntimeError("boom")
    assert read_json(target) == {"a": 1}
    with pytest.raises(Failure, match="nothing stored before was changed"), replacing(target) as part:
        part.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert read_json(target) == {"a": 1}
    with pytest.raises(ValueError):
        write_json(target, {"a": float("nan")})
    assert read_json(target) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_a_folder_is_replaced_whole(tmp_path):
    for number in (1, 2):
        with replacing(tmp_path / "folder") as part:
            part.mkdir()
            write_json(part / "number.json", number)
    assert read_json(tmp_path / "folder" / "number.json") == 2
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_cut_off_files_are_failures_in_one_line(tmp_path):
    write_tensors(tmp_path / "t.safetensors", {"a": torch.ones(100)})
    data = (tmp_path / "t.safetensors").read_bytes()
    (tmp_path / "t.safetensors").write_bytes(data[:-40])
    with pytest.raises(Failure, match="not a whole safetensors file"):
        read_tensors(tmp_path / "t.safetensors")
    (tmp_path / "j.json").write_text('{"a": ')
    with pytest.raises(Failure, match="not whole"):
        read_json(tmp_path / "j.json")
    with pytest.raises(UsageError, match="no such file"):
        read_json(tmp_path / "none.json")


def test_intervals():
    mean, low, high = seed_interval([1.0, 2.0, 3.0])
    assert (mean, round(low, 3), round(high, 3)) == (2.0, -0.484, 4.484)
    assert np.isnan(seed_interval([1.0])[1])
    low, high = bootstrap_mean(np.arange(100.0), Stream(0))
    assert 40 < low < 49.5 < high < 59


def test_options_parse_values_lists_and_ranges():
    parsed = options.parse(["finder=PCA,NMF", "finder.width=8", "seed=0..2", "x=[1,2]", "flag=true", "l=1e-3,.2"])
    assert parsed["finder"] == ["PCA", "NMF"] and parsed["seed"] == [0, 1, 2]
    assert parsed["x"] == [[1, 2]] and parsed["flag"] == [True] and parsed["l"] == [0.001, 0.2]
    for bad in (["width"], ["a=1", "a=2"], ["seed=3..1"], ["x=[1"]):
        with pytest.raises(UsageError):
            options.parse(bad)


def test_options_make_recipes_and_refuse_unknown_fields():
    from unmix.finders import FINDERS

    given = options.parse(["finder=PCA,KMeans", "finder.width=4,8", "KMeans.starts=2"])
    made = options.recipes(FINDERS, "finder", given, [])
    assert [str(r) for r in made] == [
        "PCA(width=4)",
        "PCA(width=8)",
        "KMeans(width=4, starts=2)",
        "KMeans(width=8, starts=2)",
    ]
    assert not given
    with pytest.raises(UsageError, match="did you mean width"):
        options.recipes(FINDERS, "finder", options.parse(["finder=PCA", "finder.widht=4"]), [])
    with pytest.raises(UsageError, match="no such option here"):
        options.finish({"sede": [1]}, ["seed"])


def test_whole_numbers_keep_their_digits_or_are_refused():
    ids = np.array([[2**24 + 1, 5], [2**24 + 2, 6]])
    assert as_tensor(ids).dtype == torch.float64 and as_tensor(ids).tolist() == ids.tolist()
    assert as_tensor(torch.from_numpy(ids)).tolist() == ids.tolist()
    assert as_tensor(ids - 2**24).dtype == as_tensor(ids.astype(np.uint8)).dtype == torch.float32
    assert as_tensor(ids.astype(np.uint32)).tolist() == ids.tolist()
    for large in (ids + 2**53, torch.from_numpy(ids + 2**53), (ids + 2**53).astype(np.uint64)):
        with pytest.raises(UsageError, match=r"h: whole numbers up to .* take an offset off"):
            as_tensor(large, "h")


def test_masked_entries_are_refused():
    masked = np.ma.masked_array(np.ones((3, 2)), [[0, 0], [0, 1], [0, 0]])
    with pytest.raises(UsageError, match="h: has masked entries"):
        as_rows(masked)
    assert as_tensor(np.ma.masked_array(np.ones((3, 2)))).tolist() == [[1, 1]] * 3


def test_scale_helpers_at_the_ends_of_the_numbers():
    draw = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for size in (1e-320, 1e-200, 1.0, 1e200, 1e300):
        assert torch.allclose(unit(draw * size).norm(dim=1), torch.ones(5, dtype=torch.float64), rtol=1e-3)
        near = near_one(draw * size)
        assert bool(torch.isfinite(near.square().sum()) and near.square().sum() > 0)
    assert torch.equal(unit(torch.zeros(2, 3)), torch.zeros(2, 3))
    assert size_of(torch.tensor([1.0, float("nan")])) != size_of(torch.tensor([1.0, float("nan")]))
    jitter = 3.3 + 4.4e-16 * torch.tensor([[-2.0], [0.0], [2.0]], dtype=torch.float64)
    assert not varies(jitter).any() and varies(jitter + torch.tensor([[0.0], [0.0], [1e-11]])).all()
    assert flattened(jitter, 1e-13).unique().numel() == 1
    assert resolution(np.ones(2, np.float32)) == pytest.approx(4.8e-7, rel=0.01) and resolution([1.0]) == 1e-13


def test_a_folder_that_cannot_be_locked_is_told(tmp_path, monkeypatch):
    import filelock

    from unmix.core.errors import Notice
    from unmix.core.store import locked

    def refused(*_args, **_more):
        raise NotImplementedError("no locks here")

    monkeypatch.setattr(filelock.FileLock, "acquire", refused)
    with pytest.warns(Notice, match="cannot be locked"), locked(tmp_path, "fit", "a fit"):
        pass
