"""Sample: a record of aligned rows; observations, latents, labels and how to show them."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from unmix.core.errors import UsageError


@dataclass(frozen=True, eq=False)
class Sample:
    """Aligned rows; every field but one may be absent.

    x: [n, ...] observations. h: [n, d] a representation given as such. z: [n, f] true latents. y: [n] labels.
    index: [n] each datum's own number. group, time: [n] sequence or trial structure. split: [n] names of parts.
    repeats: [n] which repeat of the same stimulus. items: how to show row i.
    Raises `UsageError` where the fields differ in their number of rows or all are absent.
    """

    x: Any = None
    h: Any = None
    z: Any = None
    y: Any = None
    index: Any = None
    group: Any = None
    time: Any = None
    split: Any = None
    repeats: Any = None
    items: Any = None

    def __post_init__(self) -> None:
        counts = {f.name: _count(v) for f in fields(self) if (v := getattr(self, f.name)) is not None}
        if not counts:
            raise UsageError("sample: every field is absent; give at least x or h")
        if len(set(counts.values())) > 1:
            raise UsageError(f"sample: fields differ in rows: {', '.join(f'{k} {v}' for k, v in counts.items())}")

    def __len__(self) -> int:
        return next(_count(v) for f in fields(self) if (v := getattr(self, f.name)) is not None)

    @property
    def provides(self) -> frozenset[str]:
        """Names of the fields that are present."""
        return frozenset(f.name for f in fields(self) if getattr(self, f.name) is not None)

    def take(self, rows: np.ndarray) -> Sample:
        """The same record with only these rows."""
        return replace(self, **{name: _take(getattr(self, name), rows) for name in self.provides})

    def __repr__(self) -> str:
        shapes = ", ".join(f"{n} {list(getattr(getattr(self, n), 'shape', []))}" for n in sorted(self.provides))
        return f"Sample({len(self)} rows: {shapes})"


def _count(value: Any) -> int:
    return value.shape[0] if hasattr(value, "shape") else len(value)


def _take(value: Any, rows: np.ndarray) -> Any:
    if hasattr(value, "take") and not hasattr(value, "dtype"):
        return value.take(rows)
    return value[rows]
