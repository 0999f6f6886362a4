"""Data: rows from a path entering as a world without latents."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import BeforeValidator

from unmix.activations import TRANSFORMS
from unmix.activations.arrays import open_rows
from unmix.activations.transforms import TransformedRows
from unmix.core.digest import digest
from unmix.core.errors import UsageError
from unmix.core.rows import Rows, Subset
from unmix.core.sample import Sample
from unmix.core.seeds import Stream, as_stream
from unmix.worlds.base import World


def _transforms(values: Any) -> tuple[Any, ...]:
    return tuple(TRANSFORMS.make(value) for value in (values if isinstance(values, (list, tuple)) else (values,)))


def _name(value: Any) -> Any:
    return value if value is None else str(value)


def _names(values: Any) -> tuple[str, ...]:
    return tuple(str(value) for value in (values if isinstance(values, (list, tuple)) else (values,)))


class Data(World):
    """Real data: rows that are given; no latents are known.

    path: what `open_rows` takes. content: digest that the rows must have; None takes what is there. The recipe's
    own digest covers the content and never the path, so that a moved file is the same data.
    transforms: Center, Scale, Whiten in the order given, each fitted on the rows to fit on only; none by default.
    drop: columns of a table that are no rows' numbers, by name, or by place where they have none. labels: the column
    of a table that says what each row is.
    """

    provides: ClassVar[frozenset[str]] = frozenset({"x"})

    path: str
    content: str | None = None
    transforms: Annotated[tuple[Any, ...], BeforeValidator(_transforms)] = ()
    drop: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()
    labels: Annotated[str | None, BeforeValidator(_name)] = None

    @cached_property
    def _rows(self) -> Rows:
        rows = open_rows(self.path, self.drop, self.labels)
        if self.content is not None and rows.digest != self.content:
            raise UsageError(f"Data.content={self.content}: {self.path} has {rows.digest}; it is other data")
        return rows

    def open(self) -> Rows:
        """The rows [n, d], with `.items`. Raises as `open_rows`, and `UsageError` where the content is another."""
        return self._rows

    @cached_property
    def _found(self) -> str:
        return self.content if self.content is not None else self.open().digest

    @property
    def size(self) -> int:
        """Number of rows."""
        return self.open().shape[0]

    @property
    def digest(self) -> str:
        """Digest of the content, which is what is left where columns are dropped."""
        kept = {name: value for name, value in self.as_dict().items() if name not in ("drop", "labels")}
        return digest({**kept, "path": ""})

    def as_dict(self) -> dict[str, Any]:
        """Plain values, the content's digest filled in."""
        transforms = [transform.as_dict() for transform in self.transforms]
        columns = {"drop": list(self.drop), "labels": self.labels}
        return {
            "kind": self.kind,
            "path": self.path,
            "content": self._found,
            "transforms": transforms,
            **{name: value for name, value in columns.items() if value},
        }

    @property
    def label(self) -> str:
        """A short name for pages: the model and layer of activations, else the file's name."""
        about = getattr(self.open(), "about", {})
        if "layer" not in about:
            return Path(self.path).name
        model = Path(about["model"]).name if ".py:" in about["model"] else about["model"]
        return f"{model}, {about['layer']}"

    @property
    def facts(self) -> dict[str, str]:
        """What a page says of the data: source, size, what was dropped and how they were changed."""
        rows: Any = self.open()
        about = getattr(rows, "about", {})
        facts = {"data": self.label, "shape": f"{rows.shape[0]:,} rows of width {rows.shape[1]}"}
        if "tokens" in about:
            facts["tokens"] = "; ".join(_told(name, count) for name, count in about["tokens"].items())
        if "taken" in about:
            facts["layer"] = about["taken"]
        if self.drop:
            facts["columns left out"] = ", ".join(self.drop)
        facts["transforms"] = ", ".join(map(str, self.transforms)) or "none"
        return {**facts, "content": self._found}

    def transformed(self, rows: Rows, train: np.ndarray) -> Rows:
        """The rows after the transforms, each fitted on the rows numbered `train`."""
        for transform in self.transforms:
            rows = TransformedRows(rows, transform.fit(Subset(rows, train)))
        return rows

    def sample(self, n: int, rng: int | Stream = 0) -> Sample:
        """n rows drawn without replacement, with numbers, items and labels. Raises `UsageError` for n > size."""
        if not 1 <= n <= self.size:
            raise UsageError(f"n={n}: {self.path} has {self.size} rows; give 1 to {self.size}")
        rows: Any = self.open()
        chosen = np.sort(as_stream(rng).child("data").numpy().choice(self.size, n, replace=False))
        labels = getattr(rows, "labels", None)
        return Sample(
            x=rows.take(chosen),
            y=None if labels is None else labels[chosen],
            index=chosen,
            items=rows.items.take(chosen),
        )


def _told(name: str, count: Any) -> str:
    """One kind of token: how many were kept and dropped, zeros left out."""
    if not isinstance(count, dict):
        return f"{name} {count}"
    parts = [f"{number:,} {part}" for part, number in count.items() if number]
    return f"{name}: {', '.join(parts) or 'none'}"
