"""A small transformer over a few tokens, read at the last one."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from unmix.core.errors import UsageError
from unmix.networks.base import Network


class Transformer(Network):
    """Embeddings of tokens and places, causal transformer blocks with the norm after each part, the last token.

    x holds token numbers [n, T]. vocabulary: number of tokens V (for `ModularArithmetic(encoding="tokens")` the
    modulus and two). tokens: width of a token. depth: number of blocks. heads: of attention. ratio: hidden units of a
    block's network for each column of a token. places: number of places that have an embedding. There is no dropout.
    The last block is computed for the last token alone, which is all that is read.
    """

    equation: ClassVar[str] = "h = W N(b_L(... b_1(E_x + P))_T) + b,  b(t) = N(u + mlp(u)), u = N(t + attend(t))"
    reference: ClassVar[str] = "Vaswani et al. 2017, arXiv 1706.03762; Power et al. 2022, arXiv 2201.02177"

    vocabulary: int = Field(default=99, ge=2)
    tokens: int = Field(default=128, ge=1)
    depth: int = Field(default=1, ge=1)
    heads: int = Field(default=4, ge=1)
    ratio: float = Field(default=4.0, gt=0)
    places: int = Field(default=5, ge=1)

    def _build(self, shape: tuple[int, ...], width: int) -> nn.Module:
        if len(shape) != 1 or shape[0] > self.places:
            raise UsageError(f"Transformer.places={self.places}: takes numbers [T], T at most that, got {shape}")
        if self.tokens % self.heads:
            raise UsageError(f"Transformer.heads={self.heads}: must divide tokens, which is {self.tokens}")
        hidden = round(self.ratio * self.tokens)
        last = range(self.depth)[-1]
        blocks = [_Block(self.tokens, self.heads, hidden, number == last) for number in range(self.depth)]
        return nn.Sequential(
            _Embeddings(self.vocabulary, self.places, self.tokens),
            *blocks,
            nn.Flatten(),
            nn.LayerNorm(self.tokens),
            nn.Linear(self.tokens, width),
        )


class _Embeddings(nn.Module):
    def __init__(self, vocabulary: int, places: int, width: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(places, width)

    def forward(self, x: Tensor) -> Tensor:
        """[n, T] numbers -> [n, T, width]."""
        return self.tokens(x.long()) + self.places.weight[: x.shape[1]]


class _Block(nn.Module):
    """A block with the norm after each part; `last` ones give the last token alone."""

    def __init__(self, width: int, heads: int, hidden: int, last: bool) -> None:
        super().__init__()
        self.heads, self.last = heads, last
        self.query, self.keys = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.join = nn.Linear(width, width)
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, t: Tensor) -> Tensor:
        """[n, T, width] -> the same shape, or [n, 1, width]."""
        n, count, width = t.shape
        own = t[:, -1:] if self.last else t
        query = self.query(own).view(n, -1, self.heads, width // self.heads).transpose(1, 2)
        key, value = self.keys(t).view(n, count, 2, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=not self.last)
        u = self.norms[0](own + self.join(seen.transpose(1, 2).reshape(n, -1, width)))
        return self.norms[1](u + self.mlp(u))
