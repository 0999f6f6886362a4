"""Effects: what changes of a layer did to a model, as numbers with bootstrap intervals over passages or data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unmix.activations.downstream import Change, Predicting, Reader, embeddings, predictions
from unmix.core.errors import UsageError
from unmix.core.seeds import Stream
from unmix.core.watch import Watch

DRAWS = 400
MEASURES = {
    "causal": ("loss", "kl", "same"),
    "classifier": ("loss", "accuracy", "kl", "same"),
    "sentence": ("cosine", "neighbour"),
}
HEADINGS = {
    "loss": "loss (nats)",
    "kl": "KL (nats)",
    "same": "same prediction",
    "accuracy": "accuracy",
    "cosine": "cosine",
    "neighbour": "same neighbour",
    "recovered": "recovered",
}


class Number(NamedTuple):
    """A value with its 95 % interval; None where it is not defined."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.value is None:
            return ""
        if self.low is None or self.high is None:
            return f"{self.value:.4g}"
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


@dataclass(frozen=True, eq=False)
class Effects:
    """Measures under each change, and under "original": sums over each group and how many were summed, each [g].

    kind: causal, sentence or classifier. shift: for each change, the mean change of log p of every class, or of the
    cosine to every other group's original embedding. embedded: the embeddings, of sentences only.
    """

    kind: str
    sums: Mapping[str, Mapping[str, np.ndarray]]
    counts: np.ndarray
    shift: Mapping[str, np.ndarray]
    embedded: Mapping[str, Tensor]

    @property
    def weights(self) -> np.ndarray:
        """How often each group is drawn, the same for every number, so that differences are paired: [draws, g]."""
        groups = len(self.counts)
        return Stream(0, ("bootstrap",)).numpy().multinomial(groups, np.full(groups, 1 / groups), DRAWS)

    def measures(self) -> tuple[str, ...]:
        """Names of what was measured, in the order of tables."""
        return tuple(name for name in MEASURES[self.kind] if name in self.sums["original"])

    def number(self, change: str, measure: str, less: str | None = None) -> Number:
        """The mean of a measure under a change; less: minus the same under another one."""
        top = self.sums[change][measure] - (0 if less is None else self.sums[less][measure])
        return _number(top.sum() / self.counts.sum(), (self.weights @ top) / (self.weights @ self.counts))

    def recovered(self, change: str) -> Number:
        """(mean - changed) / (mean - original) of the first measure: 1 is nothing lost, 0 no better than the mean.

        The first measure is loss; KL where no right classes are known; the cosine of sentences.
        """
        measure = self.measures()[0]
        mean, this, original = (self.sums[name][measure] for name in ("mean", change, "original"))
        top, bottom = mean - this, mean - original
        if abs(bottom.sum()) <= 1e-9 * self.counts.sum():
            return Number(None)
        with np.errstate(divide="ignore", invalid="ignore"):
            return _number(top.sum() / bottom.sum(), (self.weights @ top) / (self.weights @ bottom))


def effects(reader: Reader, changes: Mapping[str, Change], watch: Watch | None = None) -> Effects:
    """Run the model once as it is and once for each change. Raises `UsageError` where fewer than 2 groups count."""
    if isinstance(reader, Predicting):
        return _predicted(reader, changes, watch)
    return _embedded(reader, changes, watch)


def grid(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lines of a plain table; the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in (headings, *rows)) for i in range(len(headings))]
    lines = []
    for row in (headings, *rows):
        cells = [f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([f"{row[0]:<{widths[0]}}", *cells]).rstrip())
    return "\n".join(lines)


def _predicted(reader: Predicting, changes: Mapping[str, Change], watch: Watch | None) -> Effects:
    said = predictions(reader, changes, watch)
    counts = said["original"].count
    keep = counts > 0
    if keep.sum() < 2:
        raise UsageError("run: fewer than 2 passages have something to predict; read more tokens")
    known = not np.isnan(said["original"].loss[keep]).any()
    sums = {}
    for name, found in said.items():
        sums[name] = {"kl": found.kl[keep], "same": found.same[keep]}
        if known:
            sums[name] = {"loss": found.loss[keep], "accuracy": found.right[keep], **sums[name]}
    shift = {name: found.shift / counts.sum() for name, found in said.items()}
    return Effects(reader.kind, sums, counts[keep], shift, {})


def _embedded(reader: Reader, changes: Mapping[str, Change], watch: Watch | None) -> Effects:
    if len(reader) < 3:
        raise UsageError("run: fewer than 3 passages to embed; read more tokens")
    embedded = {
        name: torch.nn.functional.normalize(e.double()) for name, e in embeddings(reader, changes, watch).items()
    }
    original = embedded["original"]
    others = ~torch.eye(len(original), dtype=torch.bool)
    near = (original @ original.T).masked_fill(~others, -math.inf).argmax(1)
    sums, shift = {}, {}
    for name, changed in embedded.items():
        toward = (changed @ original.T).masked_fill(~others, -math.inf)
        sums[name] = {
            "cosine": (changed * original).sum(1).numpy(),
            "neighbour": (toward.argmax(1) == near).double().numpy(),
        }
        moved = ((changed - original) @ original.T) * others
        shift[name] = (moved.sum(0) / others.sum(0)).numpy()
    return Effects(reader.kind, sums, np.ones(len(original)), shift, embedded)


def _number(value: float, drawn: np.ndarray) -> Number:
    drawn = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or not len(drawn):
        return Number(float(value) if np.isfinite(value) else None)
    low, high = np.quantile(drawn, [0.025, 0.975])
    # Adding nought turns -0 into 0.
    return Number(float(value) + 0.0, float(low) + 0.0, float(high) + 0.0)


def as_numbers(values: Mapping[str, Any]) -> dict[str, Number]:
    """Numbers again from what JSON gives back."""
    return {name: Number(*parts) for name, parts in values.items()}
