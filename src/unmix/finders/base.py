"""Finder: the protocol of everything that finds features in rows."""

from __future__ import annotations

import dataclasses
import math
import time
from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from unmix.core import parallel
from unmix.core.errors import Failure, UsageError
from unmix.core.recipe import Recipe
from unmix.core.rows import Rows, as_rows, gather
from unmix.core.scale import OFFSET, kept, mean_and_scale, size_of
from unmix.core.seeds import Stream, as_stream
from unmix.core.watch import Following, Watch
from unmix.finders.features import Features


class Finder(Recipe):
    """Finds features: `fit(rows)` gives `Features`, the same for the same rows and rng.

    seeded: the result depends on rng. nonnegative: asks for rows without negative entries. control: it learns
    nothing, and says what chance reaches. continues: a fit can go on from an existing dictionary; then `_fit` takes
    `start`, Features on the device and in float32, or None. running: fields that say how a fit is run; at their
    defaults they do not enter digests.
    """

    seeded: ClassVar[bool] = True
    nonnegative: ClassVar[bool] = False
    control: ClassVar[bool] = False
    continues: ClassVar[bool] = False
    running: ClassVar[tuple[str, ...]] = ("accumulate", "split")

    def as_dict(self) -> dict[str, Any]:
        """The recipe as plain JSON values; without the fields `running` where they are at their defaults."""
        usual = {name: type(self).model_fields[name].default for name in self.running if hasattr(self, name)}
        return {name: value for name, value in super().as_dict().items() if name not in usual or value != usual[name]}

    def fit(
        self,
        rows: Any,
        rng: int | Stream = 0,
        watch: Watch | None = None,
        device: str = "cpu",
        start: Features | None = None,
    ) -> Features:
        """Features of rows [n, d] (an array, a memory map, shards); global random state is not touched.

        start: features to go on from, of the same width and number of atoms; `about` keeps their digest.
        Under torchrun every process calls this with the same rows and gets the same result.
        The rows are taken about their mean (or what the finder says) in their own precision and in units of their
        scale: rows times a number, or moved by an offset, give the same features moved likewise, up to rounding, for
        scales from 1e-35 to 1e35, but for fields in the units of the rows. Rows in float64 with an offset that is
        large beside their scale get a bias in float64.
        Raises `UsageError` for NaN, too few rows, an option that does not fit them, a start that cannot be used, or
        rows whose scale float32 does not hold.
        """
        rows = as_rows(rows)
        n = rows.shape[0]
        if n < 2:
            raise UsageError(f"{self.kind}: needs at least 2 rows, got {n}")
        self._check(rows)
        going_on: dict[str, Any] = {} if start is None else {"start": self._startable(start, rows.shape[1], device)}
        watch = watch or Watch()
        parallel.join(device)
        if parallel.rank():
            watch = Following(watch)
        begun = time.perf_counter()
        features = self._fit(rows, as_stream(rng).child(self.kind), watch, device, **going_on)
        parts = (features.atoms, features.bias, *features.encoder.tensors.values())
        if not all(math.isfinite(size_of(part)) for part in parts):
            raise Failure(
                f"{self.kind}: the fit ended with NaN or infinity; look for rows far larger than the "
                "others, or give a smaller lr"
            )
        watch.done()
        facts = {
            "finder": self.as_dict(),
            "seed": as_stream(rng).seed,
            "rows": n,
            "rows_digest": rows.digest,
            "seconds": round(time.perf_counter() - begun, 3),
            **({} if start is None else {"start": start.digest}),
        }
        # A batch of one row has no variance, and no share of it.
        about = {name: None if value in (math.inf, -math.inf) else value for name, value in features.about.items()}
        return Features(features.atoms, features.bias, features.encoder, features.names, {**about, **facts})

    def _check(self, rows: Rows) -> None:
        if self.nonnegative and any(bool((block < 0).any()) for block in rows.blocks(65536)):
            raise UsageError(f"{self.kind}: needs rows without negative entries; use SparseCoding for signed rows")

    def _startable(self, start: Features, d: int, device: str) -> Features:
        if not self.continues:
            raise UsageError(f"{self.kind}: cannot go on from existing features; fit it without start")
        if not isinstance(start, Features):
            raise UsageError(f"{self.kind}: start must be Features, got {type(start).__name__}")
        if start.shape[1] != d:
            raise UsageError(f"{self.kind}: start has atoms of width {start.shape[1]}, the rows have {d} columns")
        wanted = getattr(self, "width", start.shape[0])
        if start.shape[0] != wanted:
            raise UsageError(f"{self.kind}.width={wanted}: start has {start.shape[0]} atoms; give the same number")
        moved = start.to(device)
        return dataclasses.replace(moved.to(torch.float32), bias=moved.bias)

    def estimate(self, rows: Rows) -> dict[str, float]:
        """What a fit costs before it is run: floating-point operations and bytes of memory at least."""
        n, d = rows.shape
        return {"flops": 2.0 * n * d * d, "bytes": 8.0 * n * d}

    @abstractmethod
    def _fit(self, rows: Rows, rng: Stream, watch: Watch, device: str) -> Features: ...


def centre_and_scale(
    rows: Rows, rng: Stream, limit: int = 65536, name: str = "centre and scale"
) -> tuple[Tensor, float]:
    """Mean [d], and the scalar s with mean |x - mean|^2 = s^2 d, over at most `limit` rows drawn by rng's `name`.

    The mean is what is taken off rows of this precision (see `core.scale.kept`). Raises `UsageError` where all rows
    are equal, or their scale is beyond float32.
    """
    sample = gather(rows, limit, rng.child(name))
    mean, scale = mean_and_scale(sample)
    return kept(mean, scale, sample.dtype), scale


def framed(h: Tensor, centre: Tensor, scale: float) -> Tensor:
    """Rows [n, d] about a centre in units of a scale, float32: taken off in the precision that they have."""
    return ((h - centre) / scale).float()


def require_no_offset(kind: str, mean: Tensor, scale: float) -> None:
    """Raise `UsageError` where rows that are not centred vary by less than float32 codes of their mean tell."""
    if scale < OFFSET * (size := size_of(mean)):
        raise UsageError(
            f"{kind}: rows vary by {scale:.3g} around an offset of {size:.3g}, which float32 does not tell apart; "
            "take the offset off before"
        )
