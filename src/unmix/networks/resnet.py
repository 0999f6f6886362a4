"""Residual networks, with the stem of large images or of small ones."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unmix.core.errors import UsageError
from unmix.networks.base import Network


class ResNet(Network):
    """Stages of residual blocks with two 3 x 3 convolutions each, mean pooling, and a linear layer.

    channels: of the first stage; every further stage doubles them and halves the image (64 is ResNet-18 with the
    default blocks, 16 a narrow one). blocks: number of them in each stage. stem: small (3 x 3, stride 1, no pooling,
    for images of some 32 pixels) or standard (7 x 7, stride 2, max-pooling). linear: whether a linear layer follows
    the pooled features; without it the width must be theirs.
    """

    equation: ClassVar[str] = "h = W mean(b_L(... b_1(stem(x)))) + b,  b(a) = relu(a + N conv relu N conv a)"
    reference: ClassVar[str] = "He, Zhang, Ren, Sun 2015, arXiv 1512.03385"

    channels: int = Field(default=64, ge=1)
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    stem: Literal["small", "standard"] = "small"
    linear: bool = True

    def _build(self, shape: tuple[int, ...], width: int) -> nn.Module:
        if len(shape) != 3:
            raise UsageError(f"ResNet: takes images [channels, height, width], got {list(shape)}")
        last = self.channels * 2 ** (len(self.blocks) - 1)
        if not self.linear and width != last:
            raise UsageError(f"ResNet.linear=False: the pooled features have {last} columns, asked for {width}")
        if self.stem == "small":
            stem: list[nn.Module] = [nn.Conv2d(shape[0], self.channels, 3, 1, 1, bias=False)]
        else:
            stem = [nn.Conv2d(shape[0], self.channels, 7, 2, 3, bias=False)]
        stem += [nn.BatchNorm2d(self.channels), nn.ReLU()]
        stem += [nn.MaxPool2d(3, 2, 1)] if self.stem == "standard" else []
        stages: list[nn.Module] = []
        before = self.channels
        for number, count in enumerate(self.blocks):
            after = self.channels * 2**number
            for place in range(count):
                stages.append(_Block(before, after, 2 if number and not place else 1))
                before = after
        pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        net = nn.Sequential(*stem, *stages, *pooled, *([nn.Linear(last, width)] if self.linear else []))
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        return net


class _Block(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(after), nn.BatchNorm2d(after)])
        same = stride == 1 and before == after
        shortcut = [nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)]
        self.shortcut = nn.Identity() if same else nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """[n, before, h, w] -> [n, after, h / stride, w / stride]."""
        h = torch.relu(self.norms[0](self.first(x)))
        return torch.relu(self.norms[1](self.second(h)) + self.shortcut(x))
