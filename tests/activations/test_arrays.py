from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.sparse import csr_matrix, save_npz

from unmix.activations.arrays import open_array, open_column, open_rows
from unmix.activations.data import Data
from unmix.activations.shards import ShardWriter
from unmix.core.errors import Failure, Notice, UsageError
from unmix.core.recipe import Recipe
from unmix.core.rows import Rows
from unmix.worlds import WORLDS


@pytest.fixture
def array() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)


def test_every_kind_gives_the_same_rows(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "one.npz", h=array)
    np.savez_compressed(tmp_path / "two.npz", h=array, g=array + 1)
    save_file({"h": torch.from_numpy(array), "g": torch.from_numpy(array + 1)}, tmp_path / "a.safetensors")
    save_file({"h": torch.from_numpy(array).bfloat16()}, tmp_path / "b.safetensors")
    with ShardWriter(tmp_path / "acts", 4) as writer:
        writer.append(array)
        writer.finish()
    for name in ("a.npy", "one.npz", "one.npz:h", "two.npz:h", "a.safetensors:h", "acts"):
        rows = open_rows(f"{tmp_path / name}")
        assert isinstance(rows, Rows)
        assert np.array_equal(torch.cat(list(rows.blocks(7))).numpy(), array), name
        assert len(rows.items) == 30 and rows.items.kind == "vector"
    assert isinstance(open_rows(tmp_path / "a.npy").array, np.memmap)
    assert next(open_rows(tmp_path / "b.safetensors").blocks(30)).dtype == torch.float32


def test_keys_are_asked_for(tmp_path: Path, array: np.ndarray) -> None:
    np.savez(tmp_path / "two.npz", h=array, g=array)
    save_file({"h": torch.ones(2, 2), "g": torch.ones(2, 2)}, tmp_path / "a.safetensors")
    with pytest.raises(UsageError, match=r"holds several arrays; name one, such as two.npz:h \(arrays: h, g\)"):
        open_rows(tmp_path / "two.npz")
    with pytest.raises(UsageError, match=r"has no array 'k'.*arrays: h, g"):
        open_rows(f"{tmp_path / 'two.npz'}:k")
    with pytest.raises(UsageError, match=r"several arrays.*a.safetensors:"):
        open_rows(tmp_path / "a.safetensors")


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return (pytest.fail, ("a pickle was loaded",))

    np.save(tmp_path / "a.npy", np.array([[Trap()]], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", h=np.array([[Trap()]], dtype=object))
    for name in ("b.npy", "b.npz", "b.pkl"):
        (tmp_path / name).write_bytes(pickle.dumps(Trap()))
    for name in ("a.npy", "a.npz", "b.npz", "b.pkl"):
        with pytest.raises(UsageError, match="pickle"):
            open_rows(tmp_path / name)
    with pytest.raises((UsageError, Failure)):
        open_rows(tmp_path / "b.npy")


def test_cut_off_files_fail_in_one_line(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", h=array)
    save_file({"h": torch.from_numpy(array)}, tmp_path / "a.safetensors")
    for name in ("a.npy", "a.npz", "a.safetensors"):
        for share in (0.6, 0.0):
            data = (tmp_path / name).read_bytes()
            (tmp_path / f"cut {name}").write_bytes(data[: int(len(data) * share)])
            with pytest.raises(Failure, match="not a whole") as caught:
                open_rows(tmp_path / f"cut {name}")
            assert "\n" not in str(caught.value)


def test_other_inputs_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "flat.npy", np.ones(3))
    np.save(tmp_path / "nan.npy", np.array([[1.0, np.nan]]))
    (tmp_path / "a.md").write_text("1,2")
    (tmp_path / "gap.csv").write_text("a,b\n1,2\n3,\n5,6\n")
    save_npz(tmp_path / "sparse.npz", csr_matrix(np.eye(3)))
    np.savez(tmp_path / "named.npz", h=np.eye(3))
    (tmp_path / "named.npz").rename(tmp_path / "named.npy")
    for name, message in {
        "none.npy": "no such file or folder; .*digits",
        "flat.npy": r"must be a matrix \[n, d\]",
        "nan.npy": "row 0, column 1 is nan",
        "a.md": "cannot read .md; give a folder",
        "gap.csv": r"column 'b' has no value in some rows, 'b' in 1 of 3, the first of which is row 1.*data.drop=b",
        "sparse.npz": "is a sparse matrix of scipy",
        "named.npy": r"holds named arrays; its name must end in .npz",
        ".": "holds no activations",
    }.items():
        with pytest.raises(UsageError, match=message):
            open_rows(tmp_path / name)


def test_digits() -> None:
    rows = open_rows("digits")
    block = rows.take(np.arange(1797))
    assert rows.shape == (1797, 64) and float(block.min()) == 0 and float(block.max()) == 1
    assert rows.items.images.shape == (1797, 8, 8) and rows.items.images.max() == 255
    assert rows.items.labels[:3] == ("0", "1", "2") and rows.labels[:3].tolist() == [0, 1, 2]


def test_data_is_a_world_known_by_its_content(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    np.save(tmp_path / "b.npy", array)
    np.save(tmp_path / "c.npy", array + 1)
    a, b, c = (Data(path=str(tmp_path / name)) for name in ("a.npy", "b.npy", "c.npy"))
    assert a.digest == b.digest != c.digest
    assert a.factors == () and a.size == 30 and a.open().shape == (30, 4)
    sample = a.sample(10, 3)
    assert len(np.unique(sample.index)) == 10 and np.array_equal(sample.x.numpy(), array[sample.index])
    assert np.array_equal(a.sample(10, 3).index, sample.index)
    assert not np.array_equal(a.sample(10, 4).index, sample.index)
    again = WORLDS.make(a.as_dict())
    assert isinstance(again, Recipe) and again.content == a.open().digest and again.digest == a.digest
    assert Data(path=str(tmp_path / "gone.npy"), content=again.content).digest == a.digest
    with pytest.raises(UsageError, match="it is other data"):
        Data(path=str(tmp_path / "c.npy"), content=again.content).open()
    with pytest.raises(UsageError, match=r"n=31: .* has 30 rows"):
        a.sample(31)
    assert Data(path="digits").sample(5).y.shape == (5,)


def test_an_array_of_images_keeps_its_shape(tmp_path):
    images = np.arange(2 * 3 * 4 * 4, dtype=np.float32).reshape(2, 3, 4, 4)
    np.save(tmp_path / "images.npy", images)
    assert np.array_equal(open_array(tmp_path / "images.npy"), images)
    with pytest.raises(UsageError, match="matrix"):
        open_rows(tmp_path / "images.npy")


RECORDS = np.array([(1.5, 7, "w", (1, 2)), (2.5, 9, "r", (3, 4))], dtype="<f4, >i8, U1, (2,)u1")
RECORDS.dtype.names = ("x", "n", "stage", "pair")


def test_fields_of_structured_arrays_are_columns(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", RECORDS)
    np.savez(tmp_path / "a.npz", h=RECORDS, g=RECORDS["x"])
    for path in (tmp_path / "a.npy", f"{tmp_path / 'a.npz'}:h"):
        rows = open_rows(path, labels="stage")
        assert rows.take(np.arange(2)).tolist() == [[1.5, 7, 1, 2], [2.5, 9, 3, 4]]
        assert rows.labels.tolist() == ["w", "r"]
    with pytest.raises(UsageError, match=r"column 'stage' is not of numbers \(row 0: 'w'\)"):
        open_rows(tmp_path / "a.npy")


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["<f8", ">f8", ">i2", "<f2", "<u4", "?"])
def test_arrays_of_every_layout_hold_their_numbers(tmp_path: Path, order: str, kind: str) -> None:
    values = (np.arange(12).reshape(4, 3) % 5).astype(kind, order=order)
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "a.npz", values)
    for name in ("a.npy", "a.npz"):
        assert open_rows(tmp_path / name).take(np.arange(4)).tolist() == values.astype(float).tolist()


def test_a_table_without_columns_that_are_no_numbers(tmp_path: Path) -> None:
    text = "id,stage,x,y\n" + "".join(f"{i * 3 % 7},{'wr'[i % 2]},{i * i / 2},{i % 3}\n" for i in range(6))
    (tmp_path / "a.csv").write_text(text)
    (tmp_path / "b.csv").write_text("\n".join(line.split(",", 2)[2] for line in text.splitlines()) + "\n")
    path = str(tmp_path / "a.csv")
    with pytest.raises(UsageError, match=r"column 'stage' is not .*data.drop=stage, or .*data.labels=stage"):
        Data(path=path).open()
    data = Data(path=path, drop="id", labels="stage")
    assert data.size == 6 and data.open().labels.tolist() == ["w", "r"] * 3
    assert data.sample(6).y.tolist() == ["w", "r"] * 3
    assert data.digest == Data(path=str(tmp_path / "b.csv")).digest  # what is left is the same
    again = WORLDS.make(data.as_dict())
    assert again.digest == data.digest and again.drop == ("id",) and again.open().digest == data.open().digest
    with pytest.warns(Notice, match="column 'id' counts the rows, or is whole and different in every one"):
        assert Data(path=path, drop=["stage"]).open().shape == (6, 3)
    with pytest.raises(UsageError, match=r"data.drop=id: digits has no columns with names"):
        Data(path="digits", drop="id").open()


def test_one_value_for_each_row(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,kind\n3,x\n1,\n")
    (tmp_path / "b.csv").write_text("kind\nx\ny\n")
    np.savez(tmp_path / "c.npz", kind=np.array([1, 2]), other=np.zeros(2))
    assert open_column(f"{tmp_path / 'a.csv'}:kind").tolist() == ["x", ""]
    assert open_column(tmp_path / "b.csv").tolist() == ["x", "y"]
    assert open_column(f"{tmp_path / 'c.npz'}:kind").tolist() == [1, 2]
    with pytest.raises(UsageError, match=r"has several columns; name one, such as a.csv:id"):
        open_column(tmp_path / "a.csv")
    with pytest.raises(UsageError, match="no such file"):
        open_column(tmp_path / "none.csv")
