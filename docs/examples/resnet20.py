"""A vision network for `unmix activations`: ResNet-20 for CIFAR-10, with weights from a state dict.

    PYTHONPATH=docs/examples unmix activations resnet20:build --layer layer2 --data images.npy -o acts-vision/ \
        'arguments={"weights": "resnet20-12fca82f.th"}' pooling=all

images.npy holds images [n, 3, 32, 32] as `images` makes them from a zip of CIFAR-10 pictures. Weights: those of
akamaster/pytorch_resnet_cifar10 (BSD-2); the architecture is that of He et al. 2015, arXiv 1512.03385, section 4.2,
with shortcuts that subsample and pad with zero channels.
"""

from __future__ import annotations

import io
import zipfile

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Block(nn.Module):
    """relu(shortcut(x) + bn(conv(relu(bn(conv(x))))))."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.stride, self.extra = stride, outside - inside

    def forward(self, x: Tensor) -> Tensor:
        side = self.extra // 2
        shortcut = pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, side, side))
        return relu(self.bn2(self.conv2(relu(self.bn1(self.conv1(x))))) + shortcut)


class ResNet20(nn.Module):
    """Images [n, 3, 32, 32] -> logits [n, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(Block(16, 16, 1) for _ in range(3)))
        self.layer2 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1))
        self.layer3 = nn.Sequential(Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer3(self.layer2(self.layer1(relu(self.bn1(self.conv1(x))))))
        return self.linear(out.mean((2, 3)))


def build(weights: str) -> ResNet20:
    """The network with the weights of a file, in evaluation mode."""
    state = torch.load(weights, map_location="cpu", weights_only=True)["state_dict"]
    network = ResNet20()
    network.load_state_dict({name.removeprefix("module."): tensor for name, tensor in state.items()})
    return network.eval()


def images(archive: str, split: str = "test", limit: int | None = None) -> tuple[np.ndarray, list[str]]:
    """Pictures CLASS/*.jpg below cifar10/SPLIT in a zip: normalised [n, 3, 32, 32] float32, and their classes."""
    from PIL import Image

    found, labels = [], []
    with zipfile.ZipFile(archive) as pictures:
        names = sorted(n for n in pictures.namelist() if f"/{split}/" in f"/{n}" and n.endswith(".jpg"))
        step = max(1, len(names) // (limit or len(names)))
        for name in names[::step][:limit]:
            found.append(np.asarray(Image.open(io.BytesIO(pictures.read(name))).convert("RGB"), np.float32) / 255)
            labels.append(name.split("/")[-2])
    array = (np.stack(found) - np.float32(MEAN)) / np.float32(DEVIATION)
    return np.ascontiguousarray(array.transpose(0, 3, 1, 2)), labels
