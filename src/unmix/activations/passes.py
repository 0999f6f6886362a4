"""Passes: a text model over passages, in batches of like length, and a layer's rows in the order of the text."""

from __future__ import annotations

import numpy as np

from unmix.activations.reading import seeded
from unmix.activations.text_layer import TextLayer
from unmix.activations.tokens import Passages
from unmix.core.errors import Failure


def buckets(lengths: np.ndarray, chosen: np.ndarray, batch: int, padded: bool = True) -> list[np.ndarray]:
    """Numbers of passages that are read at once, longest first; of one length where there must be no padding.

    lengths: [passages] tokens. chosen: [g] numbers of passages. batch: at most so many at once.
    """
    order = chosen[np.argsort(-lengths[chosen], kind="stable")]
    parts = [order] if padded else np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1)
    return [part[begin : begin + batch] for part in parts for begin in range(0, len(part), batch)]


def forward(layer: TextLayer, text: Passages, chosen: np.ndarray, batch: int) -> np.ndarray:
    """The layer's output at every token of the chosen passages, in their order: [tokens, d] float32.

    Raises `Failure` that names document and token for NaN or infinite values.
    """
    lengths = np.diff(text.bounds)
    offsets = np.concatenate([[0], np.cumsum(lengths[chosen])])
    place = {int(passage): int(offset) for passage, offset in zip(chosen, offsets[:-1], strict=True)}
    out: np.ndarray | None = None
    for bucket in buckets(lengths, chosen, batch, layer.padded):
        ids = np.zeros((len(bucket), int(lengths[bucket].max())), np.int64)
        inside = np.arange(ids.shape[1])[None] < lengths[bucket][:, None]
        for row, passage in enumerate(bucket):
            ids[row, : lengths[passage]] = text.stream[text.bounds[passage] : text.bounds[passage + 1]]
        with seeded(int(bucket[0])):
            h = layer.run(ids, inside).float().cpu().numpy()
        if not np.isfinite(h[inside]).all():
            row, column = np.argwhere(~np.isfinite(h).all(2) & inside)[0]
            _not_finite(text, int(text.bounds[bucket[row]] + column), layer.name)
        if out is None:
            out = np.empty((int(offsets[-1]), h.shape[2]), np.float32)
        for row, passage in enumerate(bucket):
            begin = place[int(passage)]
            out[begin : begin + lengths[passage]] = h[row, : lengths[passage]]
    assert out is not None
    return out


def _not_finite(text: Passages, place: int, layer: str) -> None:
    document = int(np.searchsorted(text.starts, place, side="right") - 1)
    raise Failure(
        f"layer={layer}: NaN or infinite at token {place - int(text.starts[document])} of document "
        f"{text.titles[document]!r} (token id {int(text.stream[place])}); check the weights or leave that text out"
    )
