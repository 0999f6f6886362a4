"""Finder: the protocol of everything that finds features in rows."""

from __future__ import annotations

import time
from abc import abstractmethod
from typing import Any, ClassVar

import torch

from unmix.core.errors import UsageError
from unmix.core.recipe import Recipe
from unmix.core.rows import Rows, as_rows, gather
from unmix.core.seeds import Stream, as_stream
from unmix.core.watch import Watch
from unmix.finders.features import Features


class Finder(Recipe):
    """Finds features: `fit(rows)` gives `Features`, the same for the same rows and rng.

    seeded: the result depends on rng. nonnegative: asks for rows without negative entries.
    """

    seeded: ClassVar[bool] = True
    nonnegative: ClassVar[bool] = False

    def fit(self, rows: Any, rng: int | Stream = 0, watch: Watch | None = None, device: str = "cpu") -> Features:
        """Features of rows [n, d] (an array, a memory map, shards); global random state is not touched.

        Raises `UsageError` for NaN, too few rows, or an option that does not fit them.
        """
        rows = as_rows(rows)
        n = rows.shape[0]
        if n < 2:
            raise UsageError(f"{self.kind}: needs at least 2 rows, got {n}")
        self._check(rows)
        watch = watch or Watch()
        begun = time.perf_counter()
        features = self._fit(rows, as_stream(rng).child(self.kind), watch, device)
        watch.done()
        facts = {
            "finder": self.as_dict(),
            "seed": as_stream(rng).seed,
            "rows": n,
            "rows_digest": rows.digest,
            "seconds": round(time.perf_counter() - begun, 3),
        }
        return Features(features.atoms, features.bias, features.encoder, features.names, {**features.about, **facts})

    def _check(self, rows: Rows) -> None:
        if self.nonnegative and any(bool((block < 0).any()) for block in rows.blocks(65536)):
            raise UsageError(f"{self.kind}: needs rows without negative entries; use SparseCoding for signed rows")

    def estimate(self, rows: Rows) -> dict[str, float]:
        """What a fit costs before it is run: floating-point operations and bytes of memory at least."""
        n, d = rows.shape
        return {"flops": 2.0 * n * d * d, "bytes": 8.0 * n * d}

    @abstractmethod
    def _fit(self, rows: Rows, rng: Stream, watch: Watch, device: str) -> Features: ...


def centre_and_scale(rows: Rows, rng: Stream, limit: int = 65536) -> tuple[torch.Tensor, float]:
    """Mean [d], and the scalar s with mean |x - mean|^2 = s^2 d, over at most `limit` rows.

    Raises `UsageError` where all rows are equal.
    """
    sample = gather(rows, limit, rng.child("centre and scale")).double()
    mean = sample.mean(0)
    scale = (sample - mean).square().mean().sqrt().item()
    if scale <= 1e-12 * (1 + mean.abs().max().item()):
        raise UsageError("rows: all equal, there is nothing to find")
    return mean.float(), scale
