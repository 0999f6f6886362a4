"""A training step on pictures: random views, network forwards and backwards, loss, AdamW; DIET beside SimCLR."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

SIZES = {"32 pixels, batch 256": {"pictures": 20_000, "side": 32, "batch": 256, "channels": 16, "steps": 4}}
QUICK = {"small": {"pictures": 512, "side": 16, "batch": 32, "channels": 4, "steps": 2}}
FLOOR, UNIT = "network, one view", "step"
WIDTH, LR, DECAY = 128, 1e-3, 0.05
CROP, JITTER, GRAY, BLUR = 0.2, 0.3, 0.2, 0.2  # as in unmix's default views, which erase boxes as well


class Task:
    """Pictures of noise, the encoder, and steps with a loss; a run is a few steps."""

    def __init__(self, size: dict) -> None:
        from unmix.networks.resnet import ResNet

        self.size, self.losses = size, []
        shape = (size["pictures"], size["side"], size["side"], 3)
        self.pictures = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        self.recipe = ResNet(channels=size["channels"], blocks=(1, 1, 1))
        self.encoder = self.recipe.build((3, size["side"], size["side"]), WIDTH, 0)
        self.prepare()

    def prepare(self) -> None:
        """What is made once."""

    def run(self) -> dict:
        self.losses += self.step(self.size["steps"])
        return {"units": self.size["steps"]}

    def check(self) -> dict:
        return {"loss": self.losses[0]} if self.losses else {}

    def step(self, count: int) -> list[float]:
        raise NotImplementedError

    def given(self) -> torch.Tensor:
        """A batch as it is, without views."""
        batch = torch.from_numpy(self.pictures[: self.size["batch"]])
        return batch.movedim(3, 1).float() / 255


class Floor(Task):
    """One pass through the encoder, forwards and backwards."""

    def step(self, count: int) -> list[float]:
        for _ in range(count):
            self.encoder(self.given()).square().mean().backward()
        return []


class Unmix(Task):
    """`fit` of a learner on an array of pictures, everything that it does in it."""

    kind, augment = "Diet", "auto"

    def prepare(self) -> None:
        from unmix.learners import LEARNERS
        from unmix.worlds.images import Images

        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name) / "pictures.npy"
        np.save(path, self.pictures)
        self.world = Images(path=str(path), held=0.0)
        fields = {"network": self.recipe, "width": WIDTH, "batch": self.size["batch"], "augment": self.augment}
        self.learner = LEARNERS[self.kind](**fields, lr=LR, weight_decay=DECAY, steps=self.size["steps"])
        self.world.pictures  # noqa: B018 (read once, before anything is timed)

    def step(self, count: int) -> list[float]:
        return [line["loss"] for line in self.learner.fit(self.world).trace]


class UnmixGiven(Unmix):
    augment = None


class UnmixSimCLR(Unmix):
    kind = "SimCLR"


class Lightly(Task):
    """lightly's views, projection head and loss around the same encoder, in a plain loop over a DataLoader."""

    workers = 0

    def prepare(self) -> None:
        from lightly.loss import NTXentLoss
        from lightly.models.modules import SimCLRProjectionHead

        self.loss = NTXentLoss(temperature=0.5)
        self.model = nn.Sequential(self.encoder, SimCLRProjectionHead(WIDTH, 256, 128))
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=LR, weight_decay=DECAY, fused=True)
        self.batches = self.views()

    def views(self):
        from lightly.transforms import SimCLRTransform
        from PIL import Image
        from torch.utils.data import DataLoader, Dataset

        pictures = self.pictures
        transform = SimCLRTransform(
            input_size=self.size["side"], min_scale=CROP, cj_prob=JITTER, cj_strength=0.5, random_gray_scale=GRAY,
            gaussian_blur=BLUR, normalize=None,
        )  # fmt: skip

        class Viewed(Dataset):
            def __len__(self) -> int:
                return len(pictures)

            def __getitem__(self, place: int) -> list[torch.Tensor]:
                return transform(Image.fromarray(pictures[place]))

        loader = DataLoader(
            Viewed(), self.size["batch"], shuffle=True, drop_last=True, num_workers=self.workers,
            persistent_workers=self.workers > 0,
        )  # fmt: skip
        while True:
            yield from loader

    def step(self, count: int) -> list[float]:
        losses = []
        for _, (first, second) in zip(range(count), self.batches, strict=False):
            self.optimiser.zero_grad()
            loss = self.loss(*self.model(torch.cat([first, second])).chunk(2))
            loss.backward()
            self.optimiser.step()
            losses.append(float(loss.detach()))
        return losses


class LightlyWorkers(Lightly):
    workers = 2


class LightlyGiven(Lightly):
    def views(self):
        while True:
            yield self.given(), self.given().flip(3)


CONTENDERS = {
    "unmix": Unmix,
    "network, one view": Floor,
    "unmix, views given": UnmixGiven,
    "unmix SimCLR": UnmixSimCLR,
    "lightly SimCLR": Lightly,
    "lightly, 2 workers": LightlyWorkers,
    "lightly, views given": LightlyGiven,
}
GOALS = {
    "": [
        ("unmix", "lightly SimCLR", 1.0),
        ("unmix", "lightly, 2 workers", 1.0),
        ("unmix, views given", "lightly, views given", 1.0),
    ]
}


def verify(checks: dict[str, dict]) -> dict[str, str]:
    """A first loss cannot be above that of a uniform guess by more than a start at random explains."""
    return {
        name: f"first loss {facts['loss']:.3f}"
        for name, facts in checks.items()
        if facts and not 0 < facts["loss"] < 1.5 * math.log(SIZES["32 pixels, batch 256"]["pictures"])
    }
