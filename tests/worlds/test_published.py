"""Loaders of published data, on small files of the same formats."""

from __future__ import annotations

import gzip
import importlib.util

import numpy as np
import pytest
import torch
from scipy import io

from unmix.core.array_files import read_arrays
from unmix.core.errors import Failure, Notice, UsageError
from unmix.core.seeds import Stream
from unmix.worlds.factor_grids import codes_of, index_of
from unmix.worlds.increments import Laplace
from unmix.worlds.natural_sprites import NaturalSprites, read_windows
from unmix.worlds.norb import read_norb
from unmix.worlds.published import MPI3D, Cars3D, DSprites, Shapes3D, SmallNORB, resized
from unmix.worlds.sprites import SpritesWorld
from unmix.worlds.transitions import LaplaceGrid, UniformChange


def codes_for(sizes):
    return codes_of(np.arange(np.prod(sizes)), sizes)


def dsprites(path, sizes=(3, 2, 4, 5, 5)):
    """The published arrays, the pickled metadata too, on a small grid."""
    codes = codes_for(sizes)
    images = (np.arange(64 * 64).reshape(1, 64, 64) % (2 + codes.sum(1)[:, None, None])) == 0
    classes = np.column_stack([np.zeros(len(codes), int), codes])
    metadata = np.array({"title": "dSprites"}, dtype=object)
    np.savez_compressed(path, imgs=images.astype(np.uint8), latents_classes=classes, metadata=metadata)
    return images


def test_dsprites_and_its_codes(tmp_path):
    sizes = (3, 2, 4, 5, 5)
    images = dsprites(tmp_path / "d.npz", sizes)
    world = DSprites(path=str(tmp_path / "d.npz"), sizes=sizes)
    sample = world.sample(200, 0)
    assert sample.x.shape == (200, 1, 64, 64) and sample.x.dtype == torch.float32
    assert len(sample.index.unique()) == 200 and world.size == 600
    assert torch.equal(sample.x[:, 0].bool(), torch.from_numpy(images[sample.index.numpy()]))
    codes = codes_of(sample.index.numpy(), sizes)
    for i, grid in enumerate(world.grids):
        assert np.allclose(sample.z[:, i], grid[codes[:, i]])
    assert world.grids[1].tolist() == [0.5, 1.0] and world.grids[2][-1] == pytest.approx(2 * np.pi)
    assert torch.equal(world.render(sample.z + 0.01), sample.x)


def test_the_published_grid_is_that_of_the_rebuilt_sprites():
    one, two = DSprites(path="none.npz"), SpritesWorld()
    assert one.factor_kinds == two.factor_kinds and one.size == 737280
    assert all(np.allclose(a, b) for a, b in zip(one.grids, two.grids, strict=True))


def test_pairs_on_a_published_grid(tmp_path):
    sizes = (3, 2, 4, 5, 5)
    images = dsprites(tmp_path / "d.npz", sizes)
    world = DSprites(path=str(tmp_path / "d.npz"), sizes=sizes, transition=UniformChange(changed=2))
    sample = world.sample(100, 0)
    codes = codes_of(sample.index.numpy(), sizes)
    assert ((codes[::2] != codes[1::2]).sum(1) == 2).all()
    assert torch.equal(sample.x[:, 0].bool(), torch.from_numpy(images[sample.index.numpy()]))
    assert world.provides == sample.provides
    steps = [step for step, _ in world.batches(10, 3, Stream(0), start=1)]
    assert steps == [1, 2]
    with pytest.raises(UsageError, match="images are a grid"):
        world.but(transition=Laplace())


def test_batches_pass_through_all_rows_and_start_anywhere(tmp_path):
    sizes = (3, 2, 1, 5, 2)
    dsprites(tmp_path / "d.npz", sizes)
    world = DSprites(path=str(tmp_path / "d.npz"), sizes=sizes)
    batches = [sample.index for _, sample in world.batches(20, 6, Stream(0))]
    assert sorted(torch.cat(batches[:3]).tolist()) == list(range(60)) == sorted(torch.cat(batches[3:]).tolist())
    assert not torch.equal(batches[0], batches[3])
    late = dict(world.batches(20, 6, Stream(0), start=4))
    assert list(late) == [4, 5] and torch.equal(late[4].index, batches[4])
    with pytest.raises(UsageError, match="batch=61"):
        next(world.batches(61, 1, Stream(0)))
    with pytest.raises(UsageError, match="n=61"):
        world.sample(61, 0)


def test_bad_dsprites_are_refused(tmp_path):
    path = tmp_path / "d.npz"
    dsprites(path)
    with pytest.raises(UsageError, match="737280; give sizes"):
        DSprites(path=str(path)).sample(2, 0)
    with pytest.raises(UsageError, match="sizes"):
        DSprites(path=str(path), sizes=(3, 2))
    with pytest.raises(UsageError, match="labels do not fit the grid 3 x 2 x 5 x 4 x 5"):
        DSprites(path=str(path), sizes=(3, 2, 5, 4, 5)).sample(2, 0)
    np.savez(path, other=np.zeros(3))
    with pytest.raises(UsageError, match="no array imgs; it has other"):
        DSprites(path=str(path)).sample(2, 0)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(Failure, match="not a whole array"):
        DSprites(path=str(path)).sample(2, 0)
    with pytest.raises(UsageError, match="no such file"):
        DSprites(path="none.npz").sample(2, 0)


def test_files_are_known_by_content(tmp_path):
    dsprites(tmp_path / "a.npz")
    (tmp_path / "b.npz").write_bytes((tmp_path / "a.npz").read_bytes())
    one, two = (DSprites(path=str(tmp_path / f"{name}.npz"), sizes=(3, 2, 4, 5, 5)) for name in "ab")
    assert one.digest == two.digest and one.as_dict()["content"] == two.as_dict()["content"] is not None
    with pytest.raises(UsageError, match="other content"):
        one.but(content="0" * 16).sample(2, 0)


def colours(sizes, side=8):
    """Images [n, side, side, 3] whose number can be read off their first pixel."""
    number = np.arange(np.prod(sizes))
    images = np.random.default_rng(0).integers(0, 255, (len(number), side, side, 3)).astype(np.uint8)
    images[:, 0, 0] = np.stack([number // 65536, number // 256 % 256, number % 256], 1)
    return images


def read_number(x):
    first = (x[:, :, 0, 0] * 255).round().long()
    return first[:, 0] * 65536 + first[:, 1] * 256 + first[:, 2]


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_mpi3d(tmp_path, suffix):
    sizes = (2, 3, 2, 1, 2, 4, 3)
    images, path = colours(sizes), tmp_path / f"mpi3d{suffix}"
    np.savez(path, images=images) if suffix == ".npz" else np.save(path, images.reshape(*sizes, *images.shape[1:]))
    sample = MPI3D(path=str(path), sizes=sizes).sample(100, 0)
    assert sample.x.shape == (100, 3, 8, 8) and torch.equal(read_number(sample.x), sample.index)
    assert torch.equal(sample.z.long(), torch.from_numpy(codes_of(sample.index.numpy(), sizes)))


def test_shapes3d(tmp_path):
    sizes = (2, 2, 2, 3, 4, 3)
    images = colours(sizes)
    np.savez(tmp_path / "shapes.npz", images=images, labels=codes_for(sizes) / 7)
    sample = Shapes3D(path=str(tmp_path / "shapes.npz"), sizes=sizes).sample(50, 0)
    assert torch.equal(read_number(sample.x), sample.index)
    assert set(sample.z[:, 0].tolist()) == {0.0, 0.5} and set(sample.z[:, 5].tolist()) == {-30.0, 0.0, 30.0}


def test_copies_of_dsprites_in_another_order_and_range(tmp_path):
    sizes = (3, 2, 4, 5, 5)
    images = dsprites(tmp_path / "d.npz", sizes)
    whole = DSprites(path=str(tmp_path / "d.npz"), sizes=sizes).sample(600, 0)
    found = {**np.load(tmp_path / "d.npz", allow_pickle=True)}
    order = np.random.default_rng(1).permutation(600)
    for kind in (images, images.astype(np.uint8) * 255, images.astype(float), images[:, None], images[..., None]):
        np.savez(tmp_path / "c.npz", imgs=kind[order], latents_classes=found["latents_classes"][order])
        copy = DSprites(path=str(tmp_path / "c.npz"), sizes=sizes).sample(600, 0)
        assert torch.equal(copy.x, whole.x) and torch.equal(copy.z, whole.z)
    found["latents_classes"][1] = found["latents_classes"][0]
    np.savez(tmp_path / "c.npz", imgs=images, latents_classes=found["latents_classes"])
    with pytest.raises(UsageError, match="2 of 600 combinations are not there exactly once"):
        DSprites(path=str(tmp_path / "c.npz"), sizes=sizes).sample(2, 0)


def test_copies_of_shapes3d_follow_their_labels(tmp_path):
    sizes = (2, 2, 2, 3, 4, 3)
    images, labels, path = colours(sizes), codes_for(sizes) * 0.1 - 1, tmp_path / "s.npz"
    order = np.random.default_rng(1).permutation(len(images))
    np.savez(path, images=images[order], labels=labels[order])
    sample = Shapes3D(path=str(path), sizes=sizes).sample(100, 0)
    assert torch.equal(read_number(sample.x), sample.index)
    np.savez(path, images=images[order], labels=labels[order][:, [0, 1, 2, 4, 3, 5]])
    with pytest.raises(UsageError, match="labels have 2 x 2 x 2 x 4 x 3 x 3 values, but the grid is"):
        Shapes3D(path=str(path), sizes=sizes).sample(2, 0)
    np.savez(path, images=images)
    with pytest.warns(Notice, match="has no labels; its images are taken to be in the published order"):
        Shapes3D(path=str(path), sizes=sizes).sample(2, 0)


def test_copies_of_mpi3d_in_other_numbers_and_axes(tmp_path):
    sizes = (2, 3, 2, 1, 2, 4, 3)
    images, path = colours(sizes), tmp_path / "m.npy"
    whole = MPI3D(path=str(path), sizes=sizes)
    for kind in (
        (images / 255).astype(np.float32),
        images / 255,
        np.moveaxis(images, 3, 1),
        np.asfortranarray(images),
    ):
        np.save(path, kind)
        sample = whole.but().sample(100, 0)
        assert torch.equal(read_number(sample.x), sample.index) and float(sample.x.max()) <= 1
    first = (images.reshape(*sizes, 8, 8, 3)).transpose(6, 0, 1, 2, 3, 4, 5, 7, 8, 9)
    for wrong, told in (
        (
            images.astype(np.int64),
            "images are int64 from 0 to 255; expected bytes from 0 to 255, or",
        ),
        (images / 1.0, r"images are float64 from 0\.0 to 255\.0"),
        ((images > 99).astype(np.uint8), "images are uint8 from 0 to 1"),
        (images / 127.5 - 1, r"images are float64 from -1\.0 to 1\.0"),
        (np.where(images == 9, np.nan, images / 255), "images are float64 from nan"),
        (first, r"images \[3, 2, .* must begin with the grid \[2, 3"),
        (images[1:], "287, 8, 8, 3.*has 288; give sizes"),
    ):
        np.save(path, wrong)
        with pytest.raises(UsageError, match=told):
            whole.but().sample(2, 0)
    path.write_bytes(b"")
    with pytest.raises(Failure, match=r"m\.npy: not a whole array"):
        whole.but().sample(2, 0)


@pytest.mark.skipif(importlib.util.find_spec("h5py") is not None, reason="h5py is there")
def test_shapes3d_says_that_h5py_is_missing(tmp_path):
    (tmp_path / "3dshapes.h5").write_bytes(b"any")
    with pytest.raises(UsageError, match="pip install h5py"):
        Shapes3D(path=str(tmp_path / "3dshapes.h5")).sample(2, 0)


def test_shapes3d_from_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py")
    sizes = (2, 2, 2, 3, 4, 3)
    with h5py.File(tmp_path / "3dshapes.h5", "w") as opened:
        opened["images"], opened["labels"] = colours(sizes), codes_for(sizes)
    sample = Shapes3D(path=str(tmp_path / "3dshapes.h5"), sizes=sizes).sample(50, 0)
    assert torch.equal(read_number(sample.x), sample.index)


def test_cars3d(tmp_path):
    sizes = (2, 3, 2)
    made = np.random.default_rng(0).integers(0, 255, (2, 16, 16, 3, 3, 2)).astype(np.uint8)
    for name, mesh in zip(("b_mesh", "a_mesh"), made, strict=True):
        io.savemat(tmp_path / f"{name}.mat", {"im": mesh})
    world = Cars3D(path=str(tmp_path), sizes=sizes, pixels=16)
    sample = world.sample(12, 0)
    for image, index in zip(sample.x, sample.index, strict=True):
        elevation, azimuth, car = codes_of(np.array([index]), sizes)[0]
        wanted = made[1 - car, :, :, :, azimuth, elevation]  # cars are numbered by file name
        assert torch.equal((image * 255).round().byte(), torch.from_numpy(wanted).permute(2, 0, 1))
    assert world.but(pixels=8).sample(2, 0).x.shape == (2, 3, 8, 8)
    assert set(sample.z[:, 1].tolist()) == {0.0, 120.0, 240.0}
    with pytest.raises(UsageError, match=r"has 2 \.mat files"):
        Cars3D(path=str(tmp_path)).sample(2, 0)


@pytest.mark.parametrize("harm, told", [
    (lambda path, mesh: path.write_bytes(b"x" * 300), r"a\.mat: no MATLAB file that can be read"),
    (lambda path, mesh: path.write_bytes(b""), r"a\.mat: no MATLAB file that can be read"),
    (lambda path, mesh: path.write_bytes(path.read_bytes()[:700]), r"a\.mat: no MATLAB file that can be read"),
    (lambda path, mesh: io.savemat(path, {"im": mesh / 255}), r"a\.mat: im must be bytes .* got float64 \["),
    (lambda path, mesh: io.savemat(path, {"x": mesh}), r"a\.mat: im must be bytes .* got nothing"),
    (lambda path, mesh: io.savemat(path, {"im": mesh.T}), r"a\.mat: im must be bytes .* got uint8 \[2, 3, 3"),
])  # fmt: skip
def test_bad_cars_are_refused_by_name(tmp_path, harm, told):
    mesh = np.zeros((16, 16, 3, 3, 2), np.uint8)
    io.savemat(tmp_path / "a.mat", {"im": mesh})
    harm(tmp_path / "a.mat", mesh)
    with pytest.raises((Failure, UsageError), match=told):
        Cars3D(path=str(tmp_path), sizes=(2, 3, 1)).sample(2, 0)


def test_cars_as_newer_matlab_saves_them(tmp_path):
    h5py = pytest.importorskip("h5py")
    made = np.random.default_rng(0).integers(0, 255, (2, 16, 16, 3, 3, 2)).astype(np.uint8)
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    for name, mesh in zip(("car_2", "car_10"), made, strict=True):  # in natural order
        io.savemat(tmp_path / "old" / f"{name}.mat", {"im": mesh})
        with h5py.File(tmp_path / "new" / f"{name}.mat", "w", userblock_size=512) as file:
            file["im"] = mesh.T
        with open(tmp_path / "new" / f"{name}.mat", "r+b") as raw:
            raw.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    (tmp_path / "old" / "._car_2.mat").write_bytes(b"left by a file system")
    old, new = (
        Cars3D(path=str(tmp_path / name), sizes=(2, 3, 2), pixels=16).sample(12, 0) for name in ("old", "new")
    )
    assert torch.equal(old.x, new.x)
    place = old.index.tolist().index(0)
    assert torch.equal((old.x[place] * 255).round().byte(), torch.from_numpy(made[0, ..., 0, 0]).permute(2, 0, 1))


def test_a_cut_hdf5_file_is_a_failure(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "3dshapes.h5", "w") as opened:
        opened["images"], opened["group/more"] = colours((2, 2, 2, 3, 4, 3)), 1
    whole = (tmp_path / "3dshapes.h5").read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"no HDF5"):
        (tmp_path / "cut.h5").write_bytes(content)
        with pytest.raises(Failure, match=r"cut\.h5: not a whole HDF5 file \(.+\); copy or make it again"):
            Shapes3D(path=str(tmp_path / "cut.h5")).sample(2, 0)
    with pytest.raises(UsageError, match="has no array imgs; it has group/more, images"):
        read_arrays(tmp_path / "3dshapes.h5", {"imgs": True})
    with pytest.raises(UsageError, match=r"arrays are read from \.npz, \.safetensors, \.h5"):
        read_arrays(tmp_path / "3dshapes.tar", {"imgs": True})


def norb(path, values, magic):
    head = np.array([magic, values.ndim, *values.shape, *[1] * (3 - values.ndim)], "<i4").tobytes()
    data = head + values.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.mark.parametrize("end", ["", ".gz"])
def test_smallnorb(tmp_path, end):
    sizes = (2, 2, 3, 2, 2)
    codes = codes_for(sizes)
    order = np.random.default_rng(0).permutation(len(codes))
    for part, rows in (("training", order[:20]), ("testing", order[20:])):
        pictures = np.zeros((len(rows), 2, 96, 96), np.uint8)
        pictures[:, 0] = rows[:, None, None]
        pictures[:, 1] = 255
        info = codes[rows][:, 1:].astype("<i4")
        info[:, 2] *= 2
        for kind, values, magic in (
            ("dat", pictures, 0x1E3D4C55),
            ("cat", codes[rows][:, 0].astype("<i4"), 0x1E3D4C54),
            ("info", info, 0x1E3D4C54),
        ):
            norb(tmp_path / f"smallnorb-5x46789x9x18x6x2x96x96-{part}-{kind}.mat{end}", values, magic)
    sample = SmallNORB(path=str(tmp_path), sizes=sizes).sample(48, 0)
    assert sample.x.shape == (48, 1, 64, 64)
    assert torch.equal((sample.x[:, 0, 5, 5] * 255).round().long(), sample.index)
    assert torch.equal(sample.z[:, 0].long(), torch.from_numpy(codes[sample.index.numpy(), 0]))
    with pytest.raises(UsageError, match="combinations are not there"):
        SmallNORB(path=str(tmp_path)).sample(2, 0)


def test_bad_norb_matrices_are_refused(tmp_path):
    path = tmp_path / "a.mat"
    norb(path, np.zeros((4, 4), np.uint8), 0x1E3D4C55)
    assert read_norb(path).shape == (4, 4)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Failure, match="cut off"):
        read_norb(path)
    path.write_bytes(b"MATLAB 5.0 MAT-file, something")
    with pytest.raises(Failure, match="not a matrix"):
        read_norb(path)
    for content in (b"", gzip.compress(b"x" * 40)[:20], np.array([0x1E3D4C55, 1 << 30, 4, 4, 4], "<i4").tobytes()):
        for name in ("a.mat", "a.mat.gz"):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(Failure, match=r"a\.mat"):
                read_norb(tmp_path / name)
    with pytest.raises(UsageError, match="no smallnorb"):
        SmallNORB(path=str(tmp_path)).sample(2, 0)


def test_resizing_averages():
    images = np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1)
    assert resized(images, 2)[0, :, :, 0].tolist() == [[2, 4], [10, 12]]  # means 2.5, 4.5 ...: ties go to even
    assert resized(images, 4) is images


def test_index_and_codes_are_inverse():
    sizes = (3, 1, 4, 2)
    codes = codes_of(np.arange(24), sizes)
    assert np.array_equal(index_of(codes, sizes), np.arange(24)) and codes[1].tolist() == [0, 0, 0, 1]


def natural(path, rows=60):
    """Two neighbouring cells, an empty one between, windows that come and go."""
    draw = np.random.default_rng(0)
    lines = ["id,cat_id,t_0,t_1,t_2,t_3\n"]
    for row in range(rows):
        cells = []
        for time in range(4):
            if time == 2 and row % 2:
                cells.append("")
                continue
            area = int(draw.integers(80, 400))
            windows = [(20.0 + time, 30.0 + row / 10, area), None if row % 3 else (25.5, 11.0, area + 1), None]
            cells.append(f'"{windows}"')
        lines.append(f"{row},1,{','.join(cells)}\n")
    path.write_text("".join(lines))
    return path


def test_natural_sprites(tmp_path):
    path = natural(tmp_path / "downscale_keepaspect.csv")
    pairs = read_windows(path)
    # 30 rows have all four frames (3 pairs), 30 lack the third (1 pair); a third of each has two windows.
    assert len(pairs) == (30 * 3 + 30) + (10 * 3 + 10)
    world = NaturalSprites(path=str(path), quantile=0.1)
    assert 0 < len(world.pairs) < len(pairs) and world.size == 2 * len(world.pairs)
    sample = world.sample(200, 0)
    assert sample.x.shape == (200, 1, 64, 64) and world.provides == sample.provides
    first, second = sample.z[::2], sample.z[1::2]
    assert torch.equal(first[:, 3:], second[:, 3:]) and (first[:, :3] != second[:, :3]).any()
    mass = sample.x.sum((1, 2, 3))
    assert torch.allclose(mass, (sample.z[:, 2] * 64) ** 2, rtol=0.05)
    columns = (sample.x[:, 0].sum(1) @ torch.arange(64.0)) / mass
    assert torch.allclose(columns, 64 * sample.z[:, 0], atol=0.7)  # a triangle's middle is not its centre of mass
    assert set(sample.z[:, 4].tolist()) == {0.0, 1.0, 2.0, 3.0}


def test_bad_natural_sprites_are_refused(tmp_path):
    path = tmp_path / "n.csv"
    path.write_text("a,b,c\n")
    with pytest.raises(UsageError, match="columns must be id"):
        NaturalSprites(path=str(path)).sample(2, 0)
    path.write_text('id,cat_id,t_0,t_1\n1,1,"[(1, 2, 3)]","print(1)"\n')
    with pytest.raises(Failure, match="line 2"):
        NaturalSprites(path=str(path)).sample(2, 0)
    path.write_text('id,cat_id,t_0,t_1\n1,1,"[(1, 2, 3)]",\n')
    with pytest.raises(UsageError, match="no two neighbouring"):
        NaturalSprites(path=str(path)).sample(2, 0)


def test_lap_holds_what_the_published_class_holds(tmp_path):
    factors = SmallNORB.published
    table = LaplaceGrid(held=("category", "instance")).tables(factors)
    assert np.array_equal(table[0], np.eye(5)) and not np.array_equal(table[4], np.eye(6))
