"""The most exciting rows of many columns over a stream, and monosemanticity in linear time beside all pairs.

One unit is one pass. The running top-k takes every block with torch.topk and merges it into what it has. The pairwise
form of monosemanticity is timed on a part of its blocks of pairs and scaled up.
"""

from __future__ import annotations

import time

import torch

SIZES = {"50k x 4096": {"rows": 50000, "columns": 4096, "top": 10, "units": 64, "width": 384}}
QUICK = {"small": {"rows": 4000, "columns": 512, "top": 10, "units": 8, "width": 32}}
FLOOR = ""
UNIT = "pass"
BLOCK = 1024


class Stream:
    """Activations [rows, columns], read in blocks of 1,024."""

    def __init__(self, size: dict) -> None:
        draw = torch.Generator().manual_seed(0)
        self.h = torch.randn(size["rows"], size["columns"], generator=draw)
        self.top = size["top"]

    def check(self) -> dict:
        return {"rows": float(self.rows.double().mean()), "values": float(self.values.double().mean())}


class Unmix(Stream):
    def run(self) -> dict:
        from unmix.kernels.exciting import Extremes

        best = Extremes(self.h.shape[1], self.top)
        for start in range(0, len(self.h), BLOCK):
            best.update(self.h[start : start + BLOCK], start)
        self.rows, self.values = best.result()
        return {}


class RunningTopK(Stream):
    def run(self) -> dict:
        values = torch.full((self.top, self.h.shape[1]), -torch.inf)
        rows = torch.full((self.top, self.h.shape[1]), -1)
        for start in range(0, len(self.h), BLOCK):
            part = self.h[start : start + BLOCK].topk(self.top, dim=0)
            both, places = torch.cat([values, part.values]), torch.cat([rows, part.indices + start])
            values, order = both.topk(self.top, dim=0)
            rows = places.gather(0, order)
        self.rows, self.values = rows, values
        return {}


class Weighted:
    """Activations [rows, units] and unit vectors [rows, width]."""

    def __init__(self, size: dict) -> None:
        from unmix.scores.similarity.base import embedded

        draw = torch.Generator().manual_seed(0)
        self.a = torch.rand(size["rows"], size["units"], generator=draw)
        self.alike = embedded(torch.randn(size["rows"], size["width"], generator=draw))

    def check(self) -> dict:
        return self.facts


class Linear(Weighted):
    def run(self) -> dict:
        from unmix.scores.interpretability.weighted import monosemanticity

        found = monosemanticity(self.a, self.alike, draws=0, errors=False)
        self.facts = {"score": float(found.values[0])}
        return {}


class Pairwise(Weighted):
    share = 10  # blocks of rows against all rows, one in ten of them

    def run(self) -> dict:
        n, block = len(self.a), 512
        starts = range(0, n, block)
        chosen = list(starts)[:: self.share]
        begun = time.perf_counter()
        top = torch.zeros(self.a.shape[1])
        for start in chosen:
            pairs = self.alike.vectors[start : start + block] @ self.alike.vectors.T
            top += (self.a[start : start + block] * (pairs @ self.a)).sum(0)
        spent = time.perf_counter() - begun
        self.facts = {"part": float(top[0])}
        return {"seconds": spent * len(starts) / len(chosen) / 2}  # i < j: half of the blocks


CONTENDERS = {
    "unmix": Unmix,
    "running torch top-k": RunningTopK,
    "unmix monosemanticity": Linear,
    "pairwise (scaled up)": Pairwise,
}
GOALS = {
    "": [
        ("unmix", "running torch top-k", 8.0),
        ("unmix monosemanticity", "pairwise (scaled up)", 100.0),
    ]
}


def verify(checks: dict[str, dict]) -> dict[str, str]:
    """Contenders whose rows are not those of unmix: name -> why."""
    own, other = checks.get("unmix", {}), checks.get("running torch top-k", {})
    if "rows" in own and "rows" in other and own != other:
        return {"running torch top-k": f"mean row {other['rows']:.6f} where {own['rows']:.6f} is unmix's"}
    return {}
