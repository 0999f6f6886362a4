"""Images as a world: every picture keeps its number, whatever holds it; bad pictures are refused with a sentence."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from unmix.core.errors import Failure, Notice, UsageError
from unmix.core.seeds import Stream
from unmix.worlds.images import Images, holds_images


@pytest.fixture
def folder(tmp_path):
    draw = np.random.default_rng(0)
    for kind in ("cat", "dog"):
        (tmp_path / "all" / kind).mkdir(parents=True)
        for number in range(10):
            values = draw.integers(0, 255, (6, 6, 3), dtype=np.uint8)
            Image.fromarray(values).save(tmp_path / "all" / kind / f"{number}.png")
    return tmp_path / "all"


def test_numbers_stay_with_their_picture_in_folder_zip_and_array(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as made:
        for file in sorted(folder.rglob("*.png"), reverse=True):
            made.write(file, file.relative_to(folder).as_posix())
    world = Images(path=str(folder))
    whole = Images(path=str(folder), part="all").rows()
    values = (whole.x * 255).round().to(torch.uint8).movedim(1, 3).numpy()
    np.savez(tmp_path / "all.npz", images=values, labels=np.repeat(["cat", "dog"], 10))
    others = [Images(path=str(tmp_path / name)) for name in ("all.zip", "all.npz")]
    assert world.size == world.instances == 16 and world.classes == 2 and world.held_out.size == 4
    for other in others:
        assert torch.equal(other.pictures.values, world.pictures.values)
        assert np.array_equal(other.pictures.labels, world.pictures.labels)
        assert holds_images(other.path)
    rows = world.rows()
    assert rows.index.tolist() == list(range(16))
    assert rows.y.tolist() == [0] * 8 + [1] * 8
    assert world.held_out.rows().index.tolist() == [16, 17, 18, 19]
    seen = []
    for step, sample in world.batches(8, 6, Stream(1)):
        assert torch.equal(sample.x, rows.x[sample.index]) and torch.equal(sample.y, rows.y[sample.index])
        seen.append(sample.index)
        late = dict(world.batches(8, 6, Stream(1), step))[step]
        assert torch.equal(late.index, sample.index)
    for epoch in range(3):
        assert sorted(torch.cat(seen[2 * epoch : 2 * epoch + 2]).tolist()) == list(range(16))
    assert not torch.equal(seen[0], seen[2])
    drawn = world.sample(5, 3)
    assert torch.equal(drawn.x, rows.x[drawn.index])


def test_numbers_survive_subset_concatenation_shuffling_and_workers(folder):
    from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset

    class Numbered(Dataset):
        def __init__(self, world):
            self.rows = world.rows()

        def __len__(self):
            return len(self.rows)

        def __getitem__(self, place):
            return self.rows.x[place], self.rows.index[place]

    world = Images(path=str(folder))
    data = ConcatDataset([Subset(Numbered(world), [3, 1, 15]), Subset(Numbered(world), [7])])
    rows = world.rows()
    with torch.random.fork_rng(devices=[]):
        loaded = list(DataLoader(data, 2, shuffle=True, generator=torch.Generator().manual_seed(0)))
    found = torch.cat([index for _, index in loaded])
    assert sorted(found.tolist()) == [1, 3, 7, 15]
    assert all(torch.equal(x, rows.x[index]) for x, index in loaded)


def test_digits_are_held_out_by_class_and_the_recipe_knows_its_content(folder):
    digits = Images(path="digits")
    assert (digits.size, digits.held_out.size, digits.classes) == (1438, 359, 10)
    assert digits.rows().x.shape == (1438, 1, 8, 8) and float(digits.rows().x.max()) == 1
    assert not set(digits.numbers) & set(digits.held_out.numbers)
    assert digits.digest != digits.but(seed=1).digest and digits.held_out.held_out == digits.held_out
    before = Images(path=str(folder)).digest
    moved = folder.rename(folder.parent / "moved")
    assert Images(path=str(moved)).digest == before
    (moved / "cat" / "0.png").unlink()
    assert Images(path=str(moved)).digest != before


def test_bad_pictures_are_refused_and_duplicates_defined(folder, tmp_path):
    world = Images(path=str(folder))
    assert world.duplicates == ()
    first = folder / "cat" / "0.png"
    (folder / "dog" / "twice.png").write_bytes(first.read_bytes())
    with pytest.warns(Notice, match="1 of 21 pictures are copies of others"):
        assert Images(path=str(folder)).duplicates == ((0, 20),)
    (folder / "dog" / "twice.png").unlink()
    Image.fromarray(np.full((6, 6, 3), 99, np.uint8)).save(folder / "loose.png")
    assert Images(path=str(folder), part="all").rows().y.tolist().count(-1) == 1
    Image.fromarray(np.zeros((9, 7, 3), np.uint8)).save(folder / "wide.png")
    with pytest.raises(UsageError, match=r"wide\.png is \[9, 7\]; give side=32"):
        Images(path=str(folder)).size  # noqa: B018
    assert Images(path=str(folder), side=8).rows().x.shape[1:] == (3, 8, 8)
    (folder / "broken.png").write_bytes(first.read_bytes()[:40])
    with pytest.raises(Failure, match=r"broken\.png: no picture that can be read"):
        Images(path=str(folder)).size  # noqa: B018
    (tmp_path / "one").mkdir()
    with pytest.raises(UsageError, match="holds no picture"):
        Images(path=str(tmp_path / "one")).size  # noqa: B018
    (tmp_path / "one" / "a.png").write_bytes(first.read_bytes())
    with pytest.raises(UsageError, match="at least 2"):
        Images(path=str(tmp_path / "one")).size  # noqa: B018
    np.save(tmp_path / "flat.npy", np.zeros((3, 4)))
    assert not holds_images(str(tmp_path / "flat.npy"))
    with pytest.raises(UsageError, match="images must be"):
        Images(path=str(tmp_path / "flat.npy")).size  # noqa: B018
    with pytest.raises(UsageError, match="no such file"):
        Images(path=str(tmp_path / "none")).size  # noqa: B018
    with pytest.raises(UsageError, match="give 1 to"):
        world.sample(100)


def test_a_folder_divided_into_train_and_test_is_held_out_as_it_is(folder, tmp_path):
    for number, file in enumerate(sorted(folder.rglob("*.png"))):
        part = "test" if number % 4 == 0 else "train"
        (tmp_path / "set" / part / file.parent.name).mkdir(parents=True, exist_ok=True)
        file.rename(tmp_path / "set" / part / file.parent.name / file.name)
    world = Images(path=str(tmp_path))
    assert world.classes == 2 and world.pictures.names == ("cat", "dog")
    assert (world.size, world.held_out.size) == (15, 5)
    assert all("/test/" in world.pictures.files[number] for number in world.held_out.numbers)
    assert world.held_out.rows().index.tolist() == [15, 16, 17, 18, 19]
    assert world.but(held=0.0).size == 20
    only = Images(path=str(tmp_path), within="set/train")
    assert (only.size, only.held_out.size) == (12, 3) and only.pictures.names == ("cat", "dog")
    (tmp_path / "set" / "notes").mkdir()
    Image.fromarray(np.zeros((6, 6, 3), np.uint8)).save(tmp_path / "set" / "notes" / "a.png")
    assert Images(path=str(tmp_path)).pictures.aside is None, "not wholly divided"


def test_fewer_pictures_are_of_every_class_alike_and_the_rest_stays_where_it_is():
    world = Images(path="digits")
    few = world.but(most=100)
    assert few.size == few.instances == 100 and few.rows().index.tolist() == list(range(100))
    counts = np.bincount(few.rows().y.numpy())
    assert counts.min() >= 9 and counts.max() <= 11
    assert set(few.numbers) <= set(world.numbers) and np.array_equal(few.held_out.numbers, world.held_out.numbers)
    assert few.held_out.rows().index.tolist() == list(range(100, 459))
    assert not np.array_equal(few.numbers, world.but(most=100, seed=1).numbers)
    assert world.but(most=5000) != world and np.array_equal(world.but(most=5000).numbers, world.numbers)
    assert "most" not in world.as_dict() and few.digest != world.digest
    assert few.pictures.values is world.pictures.values, "one reading for all"


def noise(path, rows=40, times=2):
    """Pictures of noise, each `times` times under other names and labels."""
    draw = np.random.default_rng(0)
    for number in range(rows):
        values = Image.fromarray(draw.integers(0, 256, (6, 6, 3), np.uint8))
        for copy in range(times):
            kind = path / "ab"[draw.integers(2)]
            kind.mkdir(parents=True, exist_ok=True)
            values.save(kind / f"{number}-{copy}.png")
    return path


def test_copies_are_on_one_side_also_where_their_labels_differ(tmp_path):
    world = Images(path=str(noise(tmp_path)))
    with pytest.warns(Notice, match="40 of 80 pictures are copies of others; copies are on one side"):
        train, held = world.rows(), world.held_out.rows()
    assert len(train) + len(held) == 80 and 12 <= len(held) <= 16
    seen = {row.numpy().tobytes() for row in train.x}
    assert not any(row.numpy().tobytes() in seen for row in held.x)
    assert world.row_labels.tolist() == train.y.tolist()


def test_where_files_say_what_is_for_tests_copies_of_training_rows_are_left_out(tmp_path):
    noise(tmp_path / "train", times=1)
    draw = np.random.default_rng(9)
    for kind in "ab":
        (tmp_path / "test" / kind).mkdir(parents=True)
        for number in range(5):
            values = draw.integers(0, 256, (6, 6, 3), np.uint8)
            Image.fromarray(values).save(tmp_path / "test" / kind / f"{number}.png")
    copied = next((tmp_path / "train" / "a").iterdir())
    (tmp_path / "test" / "b" / "copied.png").write_bytes(copied.read_bytes())
    world = Images(path=str(tmp_path))
    with pytest.warns(Notice) as said:
        assert (world.size, len(held := world.held_out.numbers)) == (40, 10)
    assert any("1 held-out pictures are copies of training pictures and are left out" in str(w.message) for w in said)
    assert not any("copied" in world.pictures.files[number] for number in held)


def test_pictures_without_copies_are_split_as_the_draw_says():
    digits = Images(path="digits")
    labels, draw = digits.pictures.labels, Stream(0, ("Images", "held")).numpy()
    held = [draw.permutation(np.flatnonzero(labels == k))[: round(0.2 * (labels == k).sum())] for k in range(10)]
    assert digits.held_out.numbers.tolist() == sorted(np.concatenate(held))


@pytest.mark.parametrize("none", [np.nan, -1, "", "nan"])
def test_labels_that_are_none_are_no_class(tmp_path, none):
    kinds = np.arange(30) % 3
    labels = np.where(np.arange(30) < 5, none, kinds.astype(str) if isinstance(none, str) else kinds)
    images = np.random.default_rng(0).random((30, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "p.npz", images=images, labels=labels)
    world = Images(path=str(tmp_path / "p.npz"), part="all")
    assert world.classes == 3 and world.pictures.names == ("0", "1", "2")
    assert world.rows().y.tolist() == [-1] * 5 + (np.arange(5, 30) % 3).tolist()


@pytest.mark.parametrize("kind, said", [("uint8", "taken as masks of 0 and 1"), ("bool", None), ("int64", None)])
def test_masks_come_out_as_0_and_1(tmp_path, kind, said):
    masks = np.random.default_rng(0).random((20, 8, 8)) > 0.5
    np.savez(tmp_path / "m.npz", images=masks.astype(kind))
    world = Images(path=str(tmp_path / "m.npz"), part="all")
    if said:
        with pytest.warns(Notice, match=said):
            world.rows()
    assert np.array_equal(world.rows().x[:, 0].numpy(), masks)


def test_masks_in_files_12_bits_and_axes(tmp_path):
    draw = np.random.default_rng(0)
    (tmp_path / "m").mkdir()
    for number in range(4):
        Image.fromarray(draw.integers(0, 2, (8, 8), np.uint8)).save(tmp_path / "m" / f"{number}.png")
    with pytest.warns(Notice, match="taken as masks"):
        assert Images(path=str(tmp_path / "m"), part="all").rows().x.unique().tolist() == [0, 1]
    wide = draw.integers(0, 4096, (10, 3, 8, 8)).astype(np.uint16)
    np.save(tmp_path / "w.npy", wide)
    with pytest.raises(UsageError, match=r"they are 0 to \d+; say what is white, such as white=4095"):
        Images(path=str(tmp_path / "w.npy")).rows()
    found = Images(path=str(tmp_path / "w.npy"), white=4095, part="all")
    assert np.allclose(found.rows().x.numpy(), wide / 4095)
    assert found.digest != found.but(white=65535).digest and "white" not in found.but(white=None).as_dict()
    np.save(tmp_path / "s.npy", np.moveaxis(wide, 0, 3))  # as MATLAB keeps them: [3, 8, 8, 10]
    with pytest.raises(UsageError, match="which axis of"):
        Images(path=str(tmp_path / "s.npy"), white=4095).rows()
    turned = Images(path=str(tmp_path / "s.npy"), white=4095, axes="chwn", part="all")
    assert torch.equal(turned.rows().x, found.rows().x)


def test_one_stack_is_a_set_of_pictures(tmp_path):
    pages = [Image.fromarray(np.full((8, 8), 50 * (k + 1), np.uint8)) for k in range(5)]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    assert holds_images(str(tmp_path / "stack.tif"))
    with pytest.warns(Notice, match="1 of 1 files hold several frames, 5 in all"):
        world = Images(path=str(tmp_path / "stack.tif"), part="all")
        assert (world.rows().x[:, 0, 0, 0] * 255).round().tolist() == [50, 100, 150, 200, 250]
    assert world.pictures.files == tuple(f"stack.tif:{k}" for k in range(5))
