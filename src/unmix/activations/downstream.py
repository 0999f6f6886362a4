"""Downstream: what a model says when the rows of one layer are changed; next tokens, sentence embeddings, classes."""

from __future__ import annotations

import contextlib
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from unmix.activations.hooks import first_tensor, layer_of, quiet, splice
from unmix.activations.models import FolderModel
from unmix.activations.tokens import END, START, Passages, roles_of, surroundings
from unmix.core.errors import UsageError
from unmix.core.items import TextItems
from unmix.core.watch import Watch

Change = Callable[[Tensor], Tensor]
LOGITS_BYTES = 64 << 20


class Reader(ABC):
    """A model, one of its layers, and what it reads, in groups: passages of text or single data.

    A change is a function of rows [n, d] to rows [n, d]; it gets the layer's output at the places that have a row,
    and everything else stays as it is. `kind` is causal, sentence or classifier.
    """

    kind: ClassVar[str]
    model: nn.Module
    batch: int

    @abstractmethod
    def __len__(self) -> int:
        """Number of groups."""

    @abstractmethod
    def read(self, groups: np.ndarray, change: Change | None = None) -> Tensor:
        """What the model says about some groups: logits [predictions, classes], or embeddings [groups, d]."""

    def batches(self) -> Iterator[np.ndarray]:
        """Numbers of the groups, batch by batch."""
        for first in range(0, len(self), self.batch):
            yield np.arange(first, min(first + self.batch, len(self)))


class Predicting(Reader):
    """A reader whose model gives logits over classes: `names` [classes], or () where they have none."""

    names: Sequence[str] = ()

    @abstractmethod
    def answers(self, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """For every prediction of `read`: the group it belongs to, and the right class (None where unknown)."""


@dataclass(eq=False)
class TextReader(Reader):
    """Passages of text through a model with a layer.

    chosen: [g] numbers of the passages read. touched: [t] which tokens of the stream a change reaches; start, end,
    padding and massive tokens are left alone where the rows left them out.
    """

    model: nn.Module
    layer: nn.Module
    text: Passages
    chosen: np.ndarray
    touched: np.ndarray
    batch: int = 32
    device: str = "cpu"
    names: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.chosen)

    def places(self, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Place in the stream of every token of a padded batch [b, t], and which are not padding."""
        first, last = self.text.bounds[self.chosen[groups]], self.text.bounds[self.chosen[groups] + 1]
        steps = np.arange(int((last - first).max()))[None]
        inside = steps < (last - first)[:, None]
        return np.where(inside, first[:, None] + steps, 0), inside

    @contextlib.contextmanager
    def _changed(self, reached: np.ndarray, change: Change | None) -> Iterator[None]:
        where = torch.from_numpy(reached).to(self.device)

        def transform(h: Tensor) -> Tensor:
            if h.ndim != 3 or h.shape[:2] != where.shape:
                raise UsageError(f"layer: gives {list(h.shape)}, expected a row for each token [passages, tokens, d]")
            return _replaced(h, where, change)  # type: ignore[arg-type]

        if change is None or not reached.any():
            yield
        else:
            with splice(self.layer, transform):
                yield

    def _run(self, places: np.ndarray, inside: np.ndarray, change: Change | None) -> Any:
        # Token 0 stands in the padding, which the mask hides.
        ids = np.where(inside, self.text.stream[places], 0).astype(np.int64)
        with self._changed(self.touched[places] & inside, change):
            return self.model(
                input_ids=torch.from_numpy(ids).to(self.device),
                attention_mask=torch.from_numpy(inside.astype(np.int64)).to(self.device),
            )


class CausalReader(TextReader, Predicting):
    """Next tokens: every token after the first touched one of its passage is predicted; start and end tokens are not.

    Predictions before the first touched token cannot change and would only dilute what is measured.
    """

    kind: ClassVar[str] = "causal"

    def _predicted(self, places: np.ndarray, inside: np.ndarray) -> np.ndarray:
        """[b, t - 1] of bool: is the token after this one predicted?"""
        before = np.logical_or.accumulate(self.touched[places] & inside, axis=1)[:, :-1]
        plain = ~np.isin(self.text.roles[places[:, 1:]], (START, END))
        return before & inside[:, 1:] & plain

    def read(self, groups: np.ndarray, change: Change | None = None) -> Tensor:
        """Logits [predictions, vocabulary]."""
        places, inside = self.places(groups)
        logits = first_tensor(self._run(places, inside, change))[:, :-1]
        return logits[torch.from_numpy(self._predicted(places, inside)).to(logits.device)].float()

    def answers(self, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Group and true next token of every prediction."""
        places, inside = self.places(groups)
        wanted = self._predicted(places, inside)
        owners = np.broadcast_to(groups[:, None], wanted.shape)[wanted]
        return owners, self.text.stream[places[:, 1:]][wanted].astype(np.int64)


class SentenceReader(TextReader):
    """Sentence embeddings: the mean of the last hidden states over a passage's tokens."""

    kind: ClassVar[str] = "sentence"

    def read(self, groups: np.ndarray, change: Change | None = None) -> Tensor:
        """Embeddings [groups, d]."""
        places, inside = self.places(groups)
        states = first_tensor(self._run(places, inside, change)).float()
        weight = torch.from_numpy(inside).to(states)[:, :, None]
        return (states * weight).sum(1) / weight.sum(1)


@dataclass(eq=False)
class ArrayReader(Predicting):
    """Data through a module that gives logits [b, classes] first.

    x: [n, ...]. labels: [n] whole numbers, or None. pooling, position: as in `ModuleActivations`. Where rows are
    means over positions, a change is added to all positions, so that their mean becomes what the change says.
    """

    model: nn.Module
    layer: nn.Module
    x: Tensor
    labels: np.ndarray | None = None
    pooling: str = "mean"
    position: int = 0
    batch: int = 256
    device: str = "cpu"
    kind: ClassVar[str] = "classifier"

    def __len__(self) -> int:
        return len(self.x)

    def read(self, groups: np.ndarray, change: Change | None = None) -> Tensor:
        """Logits [groups, classes]; raises `UsageError` where the module gives something else."""
        x = self.x[int(groups[0]) : int(groups[-1]) + 1].to(self.device)
        hook = contextlib.nullcontext() if change is None else splice(self.layer, lambda h: self._pooled(h, change))
        with hook:
            logits = first_tensor(self.model(x))
        if logits.ndim != 2 or len(logits) != len(x):
            raise UsageError(f"model: gives {list(logits.shape)} for {len(x)} data; expected logits [b, classes]")
        return logits.float()

    def answers(self, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """One prediction for each datum."""
        return groups, None if self.labels is None else self.labels[groups]

    def _pooled(self, h: Tensor, change: Change) -> Tensor:
        if h.ndim == 2:
            return _rows(change, h)
        spots = h if h.ndim == 3 else h.flatten(2).transpose(1, 2)
        if self.pooling == "mean":
            mean = spots.mean(1)
            new = spots + (_rows(change, mean) - mean)[:, None]
        else:
            centre = spots.shape[1] // 2 if h.ndim == 3 else h.shape[2] // 2 * h.shape[3] + h.shape[3] // 2
            where = torch.ones(spots.shape[:2], dtype=torch.bool, device=h.device)
            if self.pooling != "all":
                where[:] = False
                where[:, centre if self.pooling == "centre" else self.position] = True
            new = _replaced(spots, where, change)
        return new if h.ndim == 3 else new.transpose(1, 2).reshape(h.shape)


def text_reader(
    source: FolderModel, layer: str, items: TextItems, context: int, batch: int = 32, device: str = "cpu"
) -> TextReader:
    """A reader of the passages that rows were made from, all of them, every token with a row touched.

    layer: as AutoModel names it. items: of the rows. context: tokens that the model read at once. With a next-token
    head in the folder it predicts next tokens, else it gives sentence embeddings.
    """
    tokenizer = source.tokenizer()
    before, after = surroundings(tokenizer)
    stream, starts = np.asarray(items.stream), np.asarray(items.starts)
    # A document's passages are full but the last, so that their bounds need not be stored.
    cuts = [np.arange(a, b, context) for a, b in itertools.pairwise(starts.tolist())]
    bounds = np.concatenate([*cuts, starts[-1:]])
    text = Passages(
        stream, roles_of(stream, bounds, tokenizer, len(before), len(after)), bounds, starts, items.titles
    )
    touched = np.zeros(len(stream), bool)
    touched[items.places] = True
    model = source.load("causal" if source.causal else "").to(device)
    inner = layer_of(model.base_model if source.causal else model, layer)  # type: ignore[arg-type]
    if not source.causal:
        return SentenceReader(model, inner, text, np.arange(len(text)), touched, batch, device)
    classes = int(model.config.vocab_size)  # type: ignore[union-attr,arg-type]
    batch = max(1, min(batch, LOGITS_BYTES // (4 * classes * context)))
    return CausalReader(model, inner, text, np.arange(len(text)), touched, batch, device, items.vocabulary)


@dataclass(frozen=True, eq=False)
class Predictions:
    """Sums over the predictions of each group; a mean is sum over count.

    count: [g]. loss: [g] -log p of the right class in nats, NaN where it is not known.
    kl: [g] KL(original || changed) in nats. right: [g] predictions whose largest class is the right one.
    same: [g] whose largest class is the original's. shift: [classes] change of log p, summed over all predictions.
    """

    count: np.ndarray
    loss: np.ndarray
    kl: np.ndarray
    right: np.ndarray
    same: np.ndarray
    shift: np.ndarray


def predictions(
    reader: Predicting, changes: Mapping[str, Change], watch: Watch | None = None
) -> dict[str, Predictions]:
    """What the model predicts with each change, and under "original" without; all read the same batches.

    Raises `UsageError` for a right class that the model does not have.
    """
    names, watch = ["original", *changes], watch or Watch()
    measured = ("count", "loss", "kl", "right", "same")
    sums = {name: {part: np.zeros(len(reader)) for part in measured} for name in names}
    shifts: dict[str, Any] = dict.fromkeys(names, 0.0)
    with quiet(reader.model):
        for groups in reader.batches():
            owners, right = reader.answers(groups)
            if not len(owners):
                continue
            original = reader.read(groups).log_softmax(1)
            if right is not None and not (right.min() >= 0 and right.max() < original.shape[1]):
                raise UsageError(f"labels: {int(right.max())} for a model of {original.shape[1]} classes, from 0")
            truth = None if right is None else torch.from_numpy(right).to(original.device)
            for name in names:
                changed = original if name == "original" else reader.read(groups, changes[name]).log_softmax(1)
                parts = _parts(original, changed, truth)
                for part, values in parts.items():
                    sums[name][part] += np.bincount(owners, values.double().cpu().numpy(), len(reader))
                shifts[name] = shifts[name] + (changed - original).double().sum(0).cpu().numpy()
            watch.on_step(int(groups[-1]) + 1, len(reader), {})
    watch.done()
    return {name: Predictions(**sums[name], shift=np.asarray(shifts[name])) for name in names}


def embeddings(reader: Reader, changes: Mapping[str, Change], watch: Watch | None = None) -> dict[str, Tensor]:
    """Embeddings [g, d] of all groups with each change, and under "original" without."""
    watch = watch or Watch()
    wanted: dict[str, Change | None] = {"original": None, **changes}
    parts: dict[str, list[Tensor]] = {name: [] for name in wanted}
    with quiet(reader.model):
        for groups in reader.batches():
            for name, change in wanted.items():
                parts[name].append(reader.read(groups, change).cpu())
            watch.on_step(int(groups[-1]) + 1, len(reader), {})
    watch.done()
    return {name: torch.cat(blocks) for name, blocks in parts.items()}


def _parts(original: Tensor, changed: Tensor, truth: Tensor | None) -> dict[str, Tensor]:
    best = changed.argmax(1)
    unknown = original.new_full((len(original),), torch.nan)
    return {
        "count": torch.ones_like(unknown),
        "loss": unknown if truth is None else -changed.gather(1, truth[:, None])[:, 0],
        # Rounding may leave a hair below zero.
        "kl": (original.exp() * (original - changed)).sum(1).clamp_min(0),
        "right": unknown if truth is None else (best == truth).double(),
        "same": (best == original.argmax(1)).double(),
    }


def _rows(change: Change, rows: Tensor) -> Tensor:
    new = change(rows)
    if new.shape != rows.shape:
        raise UsageError(f"change: gives {list(new.shape)} for rows {list(rows.shape)}; it must keep the shape")
    return new.to(rows)


def _replaced(h: Tensor, where: Tensor, change: Change) -> Tensor:
    """h with the rows at `where` changed; the rest and h itself stay."""
    new = h.clone()
    new[where] = _rows(change, h[where])
    return new
