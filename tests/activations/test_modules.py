from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from unmix.activations.modules import ModuleActivations
from unmix.core.errors import Failure, UsageError
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
    with pytest.raises(UsageError, match="position=20: layer 1 has 20 positions"):
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
    with pytest.raises(UsageError, match="with at least one row"):
        recipe.collect(images[:0], tmp_path / "b")
