"""A small vision transformer."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from unmix.core.errors import UsageError
from unmix.networks.base import Network


class ViT(Network):
    """Patches of an image as tokens with learnt places, transformer blocks, the mean over tokens, a linear layer.

    patch: side of a patch in pixels. tokens: width of a token. depth: number of blocks. heads: of attention.
    ratio: hidden units of a block's network for each column of a token. There is no dropout.
    """

    equation: ClassVar[str] = "h = W mean_t N(b_L(... b_1(P x + places))) + b,  b(t) = u + mlp(N u)"
    reference: ClassVar[str] = "Dosovitskiy et al. 2020, arXiv 2010.11929"

    patch: int = Field(default=4, ge=1)
    tokens: int = Field(default=192, ge=1)
    depth: int = Field(default=6, ge=1)
    heads: int = Field(default=3, ge=1)
    ratio: float = Field(default=2.0, gt=0)

    def _build(self, shape: tuple[int, ...], width: int) -> nn.Module:
        if len(shape) != 3 or shape[1] % self.patch or shape[2] % self.patch:
            raise UsageError(
                f"ViT.patch={self.patch}: images [channels, height, width] need sides it divides, got {list(shape)}"
            )
        if self.tokens % self.heads:
            raise UsageError(f"ViT.heads={self.heads}: must divide tokens, which is {self.tokens}")
        count = (shape[1] // self.patch) * (shape[2] // self.patch)
        blocks = [_Block(self.tokens, self.heads, round(self.ratio * self.tokens)) for _ in range(self.depth)]
        return nn.Sequential(
            _Patches(shape[0], self.patch, self.tokens, count),
            *blocks,
            nn.LayerNorm(self.tokens),
            _Mean(),
            nn.Linear(self.tokens, width),
        )


class _Patches(nn.Module):
    def __init__(self, channels: int, patch: int, tokens: int, count: int) -> None:
        super().__init__()
        self.cut = nn.Conv2d(channels, tokens, patch, patch)
        self.places = nn.Parameter(0.02 * torch.randn(1, count, tokens))

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, h, w] -> [n, patches, tokens]."""
        return self.cut(x).flatten(2).transpose(1, 2) + self.places


class _Block(nn.Module):
    def __init__(self, tokens: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(tokens), nn.LayerNorm(tokens)])
        self.attend, self.join = nn.Linear(tokens, 3 * tokens), nn.Linear(tokens, tokens)
        self.mlp = nn.Sequential(nn.Linear(tokens, hidden), nn.GELU(), nn.Linear(hidden, tokens))

    def forward(self, t: Tensor) -> Tensor:
        """[n, patches, tokens] -> the same shape."""
        n, count, width = t.shape
        parts = self.attend(self.norms[0](t)).view(n, count, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value)
        t = t + self.join(seen.transpose(1, 2).reshape(n, count, width))
        return t + self.mlp(self.norms[1](t))


class _Mean(nn.Module):
    def forward(self, t: Tensor) -> Tensor:
        """[n, patches, tokens] -> [n, tokens]."""
        return t.mean(1)
