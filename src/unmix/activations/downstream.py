"""Downstream: what a model says when the rows of one layer are changed; next tokens, sentence embeddings, classes."""

from __future__ import annotations

import contextlib
import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from unmix.activations.axes import Layout
from unmix.activations.hooks import quiet, splice
from unmix.activations.inputs import Inputs
from unmix.activations.models import FolderModel
from unmix.activations.outputs import chosen, tensors
from unmix.activations.reading import Change, Reading, alike, changed_rows
from unmix.activations.text_layer import TextLayer, find_text_layer
from unmix.activations.tokens import END, START, Passages, roles_of, surroundings
from unmix.core.errors import UsageError, notice
from unmix.core.items import TextItems
from unmix.core.watch import Watch

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

    model: what predicts, or embeds. layer: the layer, and how it is read. chosen: [g] numbers of the passages read.
    touched: [t] which tokens of the stream a change reaches; start, end, padding and massive tokens are left alone
    where the rows left them out.
    """

    model: nn.Module
    layer: TextLayer
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
        where, reading = torch.from_numpy(reached).to(self.device), self.layer.reading
        layout = Layout(reading.layout)

        def transform(h: Tensor) -> Tensor:
            spots = layout.spots(h)
            if spots.shape[:2] != where.shape:
                raise UsageError(f"layer: gives {list(h.shape)}, expected a row for each token [passages, tokens, d]")
            return layout.back(_replaced(spots, where, change), h.shape)  # type: ignore[arg-type]

        if change is None or not reached.any():
            yield
        else:
            with splice(self.layer.layer, transform, reading.output or None, reading.call):
                yield

    def _run(self, places: np.ndarray, inside: np.ndarray, change: Change | None) -> Any:
        with self._changed(self.touched[places] & inside, change):
            return self.model(**self.layer.inputs(self.text.stream[places], inside))


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
        logits = said(self.model, self._run(places, inside, change), "logits")[:, :-1]
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
        states = said(self.model, self._run(places, inside, change), "last_hidden_state").float()
        weight = torch.from_numpy(inside).to(states)[:, :, None]
        return (states * weight).sum(1) / weight.sum(1)


@dataclass(eq=False)
class ArrayReader(Predicting):
    """Data through a module that gives logits [b, classes], alone or by that name.

    data: [n]. labels: [n] whole numbers, or None. reading: how rows are read from the layer. Where they are means
    over positions, a change is added to all positions, so that their mean becomes what the change says.
    """

    model: nn.Module
    layer: nn.Module
    data: Inputs
    labels: np.ndarray | None
    reading: Reading
    batch: int = 256
    device: str = "cpu"
    kind: ClassVar[str] = "classifier"

    def __len__(self) -> int:
        return len(self.data)

    def read(self, groups: np.ndarray, change: Change | None = None) -> Tensor:
        """Logits [groups, classes]; raises `UsageError` where the module gives something else."""
        x, reading = self.data.batch(int(groups[0]), int(groups[-1]) + 1, self.model, self.device), self.reading
        hook: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if change is not None:
            hook = splice(self.layer, lambda h: reading.changed(h, change), reading.output or None, reading.call)
        with hook:
            logits = said(self.model, self.model(x), "logits")
        if logits.ndim != 2 or len(logits) != len(x):
            raise UsageError(f"model: gives {list(logits.shape)} for {len(x)} data; expected logits [b, classes]")
        return logits.float()

    def answers(self, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """One prediction for each datum."""
        return groups, None if self.labels is None else self.labels[groups]


def text_reader(
    source: FolderModel,
    layer: str,
    items: TextItems,
    context: int,
    batch: int = 32,
    device: str = "cpu",
    output: str | None = None,
    call: int | None = None,
) -> TextReader:
    """A reader of the passages that rows were made from, all of them, every token with a row touched.

    layer, output, call: as in `TextActivations`. items: of the rows. context: tokens that the model read at once.
    With a next-token head in the folder it predicts next tokens, else it gives sentence embeddings; the latter also,
    with a `Notice`, where predictions see the tokens that come after.
    Raises `UsageError` as `find_text_layer`, and where embeddings would need weights that the folder lacks.
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
    longest = int(np.diff(bounds).argmax())
    passage = stream[bounds[longest] : bounds[longest + 1]]
    if source.causal:
        model = source.load("causal").to(device)
        found = find_text_layer(model.base_model, layer, passage, output, call, batch, device)  # type: ignore[arg-type]
        classes = int(model.config.vocab_size)  # type: ignore[union-attr,arg-type]
        most = max(1, min(batch if found.padded else 1, LOGITS_BYTES // (4 * classes * context)))
        if not _looks_ahead(model, found, passage):
            return CausalReader(model, found, text, np.arange(len(text)), touched, most, device, items.vocabulary)
        notice(f"model={source.folder}: its predictions see the tokens after; embeddings are compared instead")
    model, missing = source.opened()
    if needed := [name for name in missing if not name.startswith("pooler.")]:
        raise UsageError(f"model={source.folder}: has no weights for {needed[0]}; its embeddings would be noise")
    found = find_text_layer(model.to(device), layer, passage, output, call, batch, device)
    most = batch if found.padded else 1
    return SentenceReader(found.reader, found, text, np.arange(len(text)), touched, most, device)


def said(model: nn.Module, output: Any, name: str) -> Tensor:
    """The tensor of that name in a model's output, else the only one. Raises `UsageError` where it is neither."""
    found = tensors(output)
    return found[name if name in found else chosen(model, output)]


def _looks_ahead(model: nn.Module, layer: TextLayer, passage: np.ndarray) -> bool:
    """Whether what a model predicts at a token depends on the ones after."""
    changed = passage.copy()
    changed[-1] = passage[0]
    if len(passage) < 2 or changed[-1] == passage[-1]:
        return False
    everywhere = np.ones((1, len(passage)), bool)
    with quiet(model):
        first, second = (model(**layer.inputs(ids[None], everywhere)) for ids in (passage, changed))
    return not alike(said(model, first, "logits")[:, :-1], said(model, second, "logits")[:, :-1])


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


def _replaced(h: Tensor, where: Tensor, change: Change) -> Tensor:
    """h with the rows at `where` changed; the rest and h itself stay."""
    new = h.clone()
    new[where] = changed_rows(change, h[where])
    return new
