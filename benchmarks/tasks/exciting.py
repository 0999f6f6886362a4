"""The most exciting rows of many columns over a stream, in one pass, with memory of columns x top and one block.

The running top-k takes every block with torch.topk and merges it into what it has. "products" are the same two where
the columns are directions in a space of 384, whose products with the rows are made block by block: there the product
alone, which nobody is spared, is most of the time.
"""

from __future__ import annotations

import torch

SIZES = {"50k x 4096": {"rows": 50000, "columns": 4096, "top": 10, "width": 384}}
QUICK = {"small": {"rows": 4000, "columns": 512, "top": 10, "width": 32}}
FLOOR = "read once"
UNIT = "pass"
BLOCK = 1024


class Stream:
    """Activations [rows, columns] in memory, read in blocks of 1,024."""

    def __init__(self, size: dict) -> None:
        draw = torch.Generator().manual_seed(0)
        self.h = torch.randn(size["rows"], size["columns"], generator=draw)
        self.columns, self.top, self.rows = size["columns"], size["top"], None

    def blocks(self):
        for start in range(0, len(self.h), BLOCK):
            yield start, self.h[start : start + BLOCK]

    def check(self) -> dict:
        if self.rows is None:
            return {}
        return {"rows": float(self.rows.double().mean()), "values": float(self.values.double().mean())}


class Products(Stream):
    """The same from rows [rows, width] and directions [columns, width]."""

    def __init__(self, size: dict) -> None:
        draw = torch.Generator().manual_seed(0)
        self.h = torch.randn(size["rows"], size["width"], generator=draw)
        self.directions = torch.randn(size["columns"], size["width"], generator=draw)
        self.columns, self.top, self.rows = size["columns"], size["top"], None

    def blocks(self):
        for start, part in super().blocks():
            yield start, part @ self.directions.T


class Unmix(Stream):
    def run(self) -> dict:
        from unmix.kernels.exciting import Extremes

        best = Extremes(self.columns, self.top)
        for start, part in self.blocks():
            best.update(part, start)
        self.rows, self.values = best.result()
        return {}


class RunningTopK(Stream):
    def run(self) -> dict:
        values = torch.full((self.top, self.columns), -torch.inf)
        rows = torch.full((self.top, self.columns), -1)
        for start, block in self.blocks():
            part = block.topk(self.top, dim=0)
            both, places = torch.cat([values, part.values]), torch.cat([rows, part.indices + start])
            values, order = both.topk(self.top, dim=0)
            rows = places.gather(0, order)
        self.rows, self.values = rows, values
        return {}


class Read(Stream):
    def run(self) -> dict:
        for _, part in self.blocks():
            part.sum()
        return {}


class UnmixProducts(Products, Unmix):
    pass


class TopKProducts(Products, RunningTopK):
    pass


class ProductsAlone(Products):
    def run(self) -> dict:
        for _ in self.blocks():
            pass
        return {}


CONTENDERS = {
    "unmix": Unmix,
    "running torch top-k": RunningTopK,
    "read once": Read,
    "unmix, products": UnmixProducts,
    "torch top-k, products": TopKProducts,
    "products alone": ProductsAlone,
}
GOALS = {"": [("unmix", "running torch top-k", 8.0)]}


def verify(checks: dict[str, dict]) -> dict[str, str]:
    """Contenders whose rows are not those of unmix: name -> why."""
    wrong = {}
    for own, other in (("unmix", "running torch top-k"), ("unmix, products", "torch top-k, products")):
        one, two = checks.get(own, {}), checks.get(other, {})
        if "rows" in one and "rows" in two and one != two:
            wrong[other] = f"mean row {two['rows']:.6f} where {one['rows']:.6f} is unmix's"
    return wrong
