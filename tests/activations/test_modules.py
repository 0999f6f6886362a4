from __future__ import annotations

import importlib
import linecache
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from unmix.activations.command import collect_command
from unmix.activations.images import crops
from unmix.activations.modules import ModuleActivations
from unmix.activations.shards import ShardRows
from unmix.core.errors import Failure, Notice, UsageError
from unmix.core.items import ImageItems
from unmix.core.rows import ArrayRows
from unmix.core.sample import Sample
from unmix.core.watch import Watch

BUILT: list[nn.Module] = []


def build(width: int = 4) -> nn.Module:
    torch.manual_seed(5)
    net = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(width * 20, 3))
    BUILT.append(net)
    return net


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> ModuleActivations:
    monkeypatch.setitem(sys.modules, "modules_under_test", sys.modules[__name__])
    return ModuleActivations(model="modules_under_test:build", layer="1", batch=8)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((21, 1, 4, 5)).astype(np.float32)


def test_pooling(recipe: ModuleActivations, images: np.ndarray, tmp_path: Path) -> None:
    rows = recipe.collect(images, tmp_path / "mean")
    with torch.no_grad():
        h = BUILT[-1][:2](torch.from_numpy(images))
    flat = h.flatten(2).transpose(1, 2)
    wanted = {"mean": flat.mean(1), "centre": h[:, :, 2, 2], "position": flat[:, 7], "all": flat.reshape(-1, 4)}
    assert rows.about["positions"] == 1
    for pooling, value in wanted.items():
        rows = recipe.but(pooling=pooling, position=7).collect(images, tmp_path / f"p {pooling}")
        torch.testing.assert_close(rows.take(np.arange(len(rows))), value)
    assert rows.items.numbers[[0, 19, 20, 419]].tolist() == [0, 0, 1, 20]
    whole = recipe.but(layer="").collect(images, tmp_path / "whole")
    assert whole.shape == (21, 3)
    with pytest.raises(UsageError, match="position=20: there are 20 positions"):
        recipe.but(pooling="position", position=20).collect(images, tmp_path / "no")


def test_arguments_samples_and_rows(recipe: ModuleActivations, images: np.ndarray, tmp_path: Path) -> None:
    pictures = ImageItems(np.zeros((21, 4, 5), np.uint8), tuple("abc" * 7))
    sample = Sample(x=images, items=pictures)
    rows = recipe.but(arguments={"width": 6}, pooling="all").collect(sample, tmp_path / "a")
    assert rows.shape == (420, 6) and rows.items.kind == "image" and rows.items.labels[20] == "b"
    flat = ArrayRows(images.reshape(21, -1))
    same = ModuleActivations(model="torch.nn:Identity").collect(flat, tmp_path / "b")
    assert np.array_equal(same.take(np.arange(21)).numpy(), images.reshape(21, -1))


def test_resume_same_bytes_and_never_twice(recipe: ModuleActivations, images: np.ndarray, tmp_path: Path) -> None:
    class Stop(Watch):
        def on_step(self, step: int, total: int, facts: Any) -> None:
            if step >= 16:
                raise KeyboardInterrupt

    recipe = recipe.but(pooling="all")
    options: dict[str, Any] = {"shard_bytes": 4 * 4 * 130}
    whole = recipe.collect(images, tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        recipe.collect(images, tmp_path / "a", Stop(), **options)
    assert (tmp_path / "a" / "rows-00001.bin").exists() and not (tmp_path / "a" / "manifest.json").exists()
    rows = recipe.collect(images, tmp_path / "a", **options)
    assert rows.digest == whole.digest
    assert (tmp_path / "a" / "manifest.json").read_bytes() == (tmp_path / "whole" / "manifest.json").read_bytes()
    assert recipe.collect(images, tmp_path / "a").digest == whole.digest
    with pytest.raises(UsageError, match="--overwrite"):
        recipe.collect(images + 1, tmp_path / "a")


def test_what_cannot_be(recipe: ModuleActivations, images: np.ndarray, tmp_path: Path) -> None:
    broken = images.copy()
    broken[13, 0, 1, 1] = np.nan
    with pytest.raises(Failure, match="NaN or infinite at datum 13"):
        recipe.but(pooling="all").collect(broken, tmp_path / "a")
    with pytest.raises(UsageError, match="layer=9: Sequential has no such layer"):
        recipe.but(layer="9").collect(images, tmp_path / "b")
    with pytest.raises(UsageError, match=r"does not take data \[2, 4, 5\] of float32: .*channels"):
        recipe.collect(np.zeros((3, 2, 4, 5), np.float32), tmp_path / "b")
    with pytest.raises(UsageError, match="with at least one row"):
        recipe.collect(ImageItems(np.zeros((0, 4, 5), np.uint8)), tmp_path / "b")
    with pytest.raises(UsageError, match="with at least one row"):
        recipe.collect(images[:0], tmp_path / "b")


class Swinlike(nn.Module):
    """Maps with channels last, as in Swin; a transform with complex output; a recurrent layer with its states."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.patch, self.block = nn.Conv2d(1, 6, 2, 2), nn.Linear(6, 5)
        self.fourier, self.states = Fourier(), nn.LSTM(5, 4, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.fourier(self.block(self.patch(x).permute(0, 2, 3, 1))).real
        return self.states(h.flatten(1, 2))[0][:, -1]


class Fourier(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fft.fft2(x, dim=(1, 2))


def test_what_is_taken_of_a_layer_is_said_and_kept(
    recipe: ModuleActivations, images: np.ndarray, tmp_path: Path
) -> None:
    recipe = ModuleActivations(model="modules_under_test:Swinlike", layer="block", batch=8)
    rows = recipe.collect(images, tmp_path / "block")
    with torch.random.fork_rng():
        model = Swinlike()
    h = model.block(model.patch(torch.from_numpy(images)).permute(0, 2, 3, 1)).detach()
    torch.testing.assert_close(rows.take(np.arange(21)), h.mean((1, 2)))
    assert rows.about["reading"]["layout"] == "bhwc" and rows.about["grid"] == [2, 2]
    assert rows.about["taken"] == "block gives bhwc [b, 2, 2, 5], mean over 2 x 2 places"
    with pytest.raises(UsageError, match="layer=fourier: gives complex numbers"):
        recipe.but(layer="fourier").collect(images, tmp_path / "complex")
    np.save(tmp_path / "x.npy", images)
    named = ("modules_under_test:Swinlike", "states", str(tmp_path / "x.npy"), tmp_path / "states")
    with pytest.raises(UsageError, match=r"output=9: layer states gives output=0 \[2, 4, 4\], output=1\.0"):
        collect_command(*named, {"output": [9]})
    told = collect_command(*named, {"output": [1.0], "batch": [8]})
    assert told == (
        f"activations  21 rows of width 4 in {tmp_path / 'states'}; states gives tbc [1, b, 4], output=1.0"
    )
    torch.testing.assert_close(
        ShardRows(tmp_path / "states").take(np.arange(21)), model(torch.from_numpy(images)).detach()
    )
    said = collect_command(*named[:3], tmp_path / "said", {"output": [0], "layout": ["btc"], "pooling": ["all"]})
    with pytest.raises(UsageError, match=r"ModuleActivations\.batch: one value here, got 2"):
        collect_command(*named, {"batch": [1, 2]})
    for number, mean in enumerate(([0.5, 0.25], [[0.5, 0.25]])):
        with pytest.raises(UsageError, match="mean: 2 numbers for images of 1 channels"):
            collect_command(*named[:3], tmp_path / f"mean {number}", {"mean": mean})
    assert "84 rows of width 4" in str(said) and "a row for each of 4 places" in str(said)
    assert not (tmp_path / "complex").exists()


class Shape(nn.Module):
    """Gives its input back, as a map."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.fixture
def plain(recipe: ModuleActivations) -> ModuleActivations:
    return ModuleActivations(model="modules_under_test:Shape", pooling="all")


def bytes_of_images(n: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (n, 4, 6, 3)).astype(np.uint8)


def test_images_in_bytes_are_prepared(plain: ModuleActivations, tmp_path: Path) -> None:
    images = bytes_of_images()
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32) / 255)
    rows = plain.collect(ImageItems(images, tuple("abcde")), tmp_path / "plain")
    assert rows.about["grid"] == [4, 6] and rows.about["positions"] == 24
    torch.testing.assert_close(rows.take(np.arange(120)), x.flatten(2).transpose(1, 2).reshape(-1, 3))
    mean, deviation = (0.5, 0.4, 0.3), (0.1, 0.2, 0.4)
    moved = plain.but(mean=mean, deviation=deviation).collect(images, tmp_path / "moved")
    wanted = (x - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(deviation).view(-1, 1, 1)
    torch.testing.assert_close(moved.take(np.arange(120)), wanted.flatten(2).transpose(1, 2).reshape(-1, 3))
    grey = plain.but(channels=1).collect(images, tmp_path / "grey")
    torch.testing.assert_close(grey.take(np.arange(120)), x.mean(1).reshape(-1, 1))
    colour = plain.but(channels=3).collect(images[..., 0], tmp_path / "colour")
    torch.testing.assert_close(colour.take(np.arange(120)), x[:, 0].reshape(-1, 1).expand(-1, 3))
    small = plain.but(side=2, pooling="mean").collect(images, tmp_path / "small")
    assert small.about["grid"] == [2, 2] and small.shape == (5, 3)
    # Antialiasing keeps the mean, but for the edges.
    torch.testing.assert_close(small.take(np.arange(5)), x.mean((2, 3)), atol=0.1, rtol=0)
    with pytest.raises(UsageError, match="mean: 2 numbers for images of 3 channels"):
        plain.but(mean=(0.5, 0.4)).collect(images, tmp_path / "no")
    with pytest.raises(UsageError, match=r"are for images \[n, channels, h, w\]"):
        plain.but(side=3).collect(np.zeros((4, 7), np.float32), tmp_path / "no")
    with pytest.raises(UsageError, match="deviation"):
        plain.but(deviation=0.0)
    with pytest.raises(UsageError, match="is made from 1 or 3, the images have 2"):
        plain.but(channels=3).collect(np.zeros((4, 2, 5, 5), np.float32), tmp_path / "no")
    as_tensors = plain.collect(torch.from_numpy(images), tmp_path / "tensors")
    assert as_tensors.digest == rows.digest and np.array_equal(as_tensors.items.images[::24], images)


def test_any_change_makes_a_new_key_and_stale_rows_are_never_served(
    recipe: ModuleActivations, tmp_path: Path
) -> None:
    images, folder = bytes_of_images(8)[:, :, :5, :1], tmp_path / "acts"
    recipe.collect(ImageItems(images[..., 0], tuple("aabbccdd")), folder)
    touched = images.copy()
    touched[7, 3, 4] ^= 1
    labels = tuple("aabbccdd")
    changes: dict[str, tuple[ModuleActivations, ImageItems]] = {
        "weights": (recipe.but(arguments={"width": 5}), ImageItems(images[..., 0], labels)),
        "layer": (recipe.but(layer="0"), ImageItems(images[..., 0], labels)),
        "pooling": (recipe.but(pooling="centre"), ImageItems(images[..., 0], labels)),
        "position": (recipe.but(position=3), ImageItems(images[..., 0], labels)),
        "mean": (recipe.but(mean=0.5), ImageItems(images[..., 0], labels)),
        "one bit": (recipe, ImageItems(touched[..., 0], labels)),
        "order": (recipe, ImageItems(images[::-1, ..., 0], labels)),
        "labels": (recipe, ImageItems(images[..., 0], tuple("aabbccde"))),
    }
    for changed, items in changes.values():
        with pytest.raises(UsageError, match="--overwrite"):
            changed.collect(items, folder)
    with torch.no_grad():
        x = torch.from_numpy(touched[..., 0].astype(np.float32) / 255)[:, None]
        rows = recipe.collect(changes["one bit"][1], folder, overwrite=True)
        torch.testing.assert_close(rows.take(np.arange(8)), BUILT[-1][:2](x).mean((2, 3)))


def test_other_code_with_the_same_weights_is_another_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    code = "from torch import nn\n\n\nclass Net(nn.Module):\n    def forward(self, x):\n        return x{}\n"
    recipe, images = ModuleActivations(model="same_weights:Net"), bytes_of_images()
    for change, wanted in (("", 1.0), (" * 2", 2.0)):
        (tmp_path / "same_weights.py").write_text(code.format(change))
        linecache.checkcache()
        monkeypatch.delitem(sys.modules, "same_weights", raising=False)
        importlib.invalidate_caches()
        if change:
            with pytest.raises(UsageError, match="--overwrite"):
                recipe.collect(images, tmp_path / "a")
        rows = recipe.collect(images, tmp_path / "a", overwrite=bool(change))
        torch.testing.assert_close(rows.take(np.arange(5)).numpy(), wanted * images.mean((1, 2)).astype("f4") / 255)


def test_windows_around_positions(plain: ModuleActivations, tmp_path: Path) -> None:
    image = np.arange(64, dtype=np.uint8).reshape(1, 8, 8)
    found = crops(image, [0, 0, 0], [0, 3, 15], (4, 4), 0.5)
    assert np.array_equal(found[0], image[0, :4, :4]) and np.array_equal(found[2], image[0, 4:, 4:])
    assert np.array_equal(found[1], image[0, :4, 4:])
    assert np.array_equal(crops(image, [0], [5], (4, 4), 0.25)[0], image[0, 2:4, 2:4])
    images = bytes_of_images()
    rows = plain.but(crop=0.5).collect(ImageItems(images, tuple("abcde")), tmp_path / "a")
    assert rows.items.images.shape == (120, 2, 3, 3) and rows.items.labels[24] == "b"
    assert np.array_equal(rows.items.images[24 + 23], images[1, 2:, 3:])
    with pytest.raises(UsageError, match="places must be below 4 x 4"):
        crops(image, [0], [16], (4, 4))
    with pytest.raises(UsageError, match="needs images and pooling=all"):
        plain.but(crop=0.5, pooling="mean").collect(images, tmp_path / "b")
    flat = plain.but(crop=0.5, model="torch.nn:Flatten")
    with pytest.raises(UsageError, match="gives no map"):
        flat.collect(images, tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_a_folder_of_images_at_the_command_line(recipe: ModuleActivations, tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "pictures" / "cats").mkdir(parents=True)
    images = bytes_of_images(6)[:, :, :5]
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "pictures" / "cats" / f"{number}.png")
    options = {"channels": [1], "pooling": ["all"], "batch": [8]}
    costs = collect_command(
        "modules_under_test:build", "1", str(tmp_path / "pictures"), tmp_path / "acts", options, dry_run=True
    )
    assert costs["rows"] == 120 and costs["disk_bytes"] == 120 * 4 * 4 + 20 * images.nbytes  # type: ignore[index]
    told = collect_command("modules_under_test:build", "1", str(tmp_path / "pictures"), tmp_path / "acts", options)
    assert "120 rows of width 4" in str(told)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for file in sorted((tmp_path / "pictures").rglob("*.png")):
            archive.write(file, file.relative_to(tmp_path).as_posix())
        archive.write(tmp_path / "pictures/cats/0.png", "other/0.png")
    inside = f"{tmp_path / 'all.zip'}:pictures/"
    found = collect_command("modules_under_test:build", "1", inside, tmp_path / "acts", options)
    assert found == told  # the same images from elsewhere
    items = ImageItems(images, ("cats",) * 6, tuple(f"cats/{number}.png" for number in range(6)))
    rows = recipe.but(channels=1, pooling="all").collect(items, tmp_path / "acts")  # found again
    assert rows.items.labels[0] == "cats" and rows.shape == (120, 4)


def test_masks_and_channels_first_bytes_are_read_as_images(recipe: ModuleActivations, tmp_path: Path) -> None:
    images = bytes_of_images(6)
    plain = recipe.but(channels=1)
    rows = plain.collect(images, tmp_path / "last")
    first = plain.collect(np.ascontiguousarray(np.moveaxis(images, 3, 1)), tmp_path / "first")
    assert torch.equal(rows.take(np.arange(6)), first.take(np.arange(6)))
    masks = (images > 99).astype(np.uint8)
    with pytest.warns(Notice, match="data: the largest value of the images is 1 of 255, so they are taken as masks"):
        small = plain.collect(masks, tmp_path / "small")
    whole = plain.collect(masks * np.uint8(255), tmp_path / "whole")
    assert torch.equal(small.take(np.arange(6)), whole.take(np.arange(6)))
