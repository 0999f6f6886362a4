"""Monosemanticity over all images in linear time, beside all pairs.

The pairwise form is timed on a part of its blocks of pairs and scaled up; the floor is one product of activations
with unit vectors.
"""

from __future__ import annotations

import time

import torch

SIZES = {"50k images": {"rows": 50000, "units": 64, "width": 384}}
QUICK = {"small": {"rows": 3000, "units": 8, "width": 32}}
FLOOR = "one product"
UNIT = "score"


class Weighted:
    """Activations [rows, units] and unit vectors [rows, width]."""

    def __init__(self, size: dict) -> None:
        from unmix.scores.similarity.base import embedded

        draw = torch.Generator().manual_seed(0)
        self.a = torch.rand(size["rows"], size["units"], generator=draw)
        self.alike = embedded(torch.randn(size["rows"], size["width"], generator=draw))
        self.facts: dict = {}

    def check(self) -> dict:
        return self.facts


class Linear(Weighted):
    def run(self) -> dict:
        from unmix.scores.interpretability.weighted import monosemanticity

        found = monosemanticity(self.a, self.alike, draws=0, errors=False)
        self.facts = {"score": float(found.values[0])}
        return {}


class WithErrors(Weighted):
    def run(self) -> dict:
        from unmix.scores.interpretability.weighted import monosemanticity

        found = monosemanticity(self.a, self.alike)
        self.facts = {"score": float(found.values[0])}
        return {}


class Pairwise(Weighted):
    share = 10  # blocks of rows against all rows, one in ten of them

    def run(self) -> dict:
        n, block = len(self.a), 512
        starts = range(0, n, block)
        chosen = list(starts)[:: self.share]
        low, high = self.a.aminmax(dim=0)
        a = (self.a - low) / (high - low)
        begun = time.perf_counter()
        top = torch.zeros(a.shape[1])
        for start in chosen:
            pairs = self.alike.vectors[start : start + block] @ self.alike.vectors.T
            top += (a[start : start + block] * (pairs @ a)).sum(0)
        spent = time.perf_counter() - begun
        return {"seconds": spent * len(starts) / len(chosen) / 2}  # i < j: half of the blocks

    def check(self) -> dict:
        """The score of the first unit from the pairs of all images."""
        from unmix.scores.interpretability.weighted import monosemanticity_pairwise

        return {"score": float(monosemanticity_pairwise(self.a[:, :1], self.alike)[0])}


class Product(Weighted):
    def run(self) -> dict:
        self.a.T @ self.alike.vectors
        return {}


CONTENDERS = {
    "unmix": Linear,
    "unmix, null and errors": WithErrors,
    "pairwise (scaled up)": Pairwise,
    "one product": Product,
}
GOALS = {"": [("unmix", "pairwise (scaled up)", 100.0)]}


def verify(checks: dict[str, dict]) -> dict[str, str]:
    """Contenders whose score is not that of all pairs: name -> why."""
    pairs = checks.get("pairwise (scaled up)", {}).get("score")
    found = {name: facts["score"] for name, facts in checks.items() if "score" in facts}
    if pairs is None:
        return {}
    return {name: f"{score:.8f}, all pairs {pairs:.8f}" for name, score in found.items() if abs(score - pairs) > 1e-6}
