"""Text layer: a layer of a text model, the part of the model that reads text for it, and how its output is read."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unmix.activations.axes import Layout, data_axis
from unmix.activations.hooks import capture, layer_of, outline
from unmix.activations.reading import (
    CHANGING,
    Reading,
    alike,
    called,
    require_weights,
    run_to,
    seeded,
    words_of,
)
from unmix.core.errors import UnmixError, UsageError, notice


@dataclass(frozen=True, eq=False)
class TextLayer:
    """A layer and what reads text for it.

    reader: the model, or the part that reads text alone (`tower` is its name, "" the model's). reading: with layout
    "btc", or "tbc" where a model has tokens first. padded: whether rows stay the same beside longer passages; else
    only passages of one length are read at once. pad: id that stands in the padding.
    """

    reader: nn.Module
    layer: nn.Module
    name: str
    tower: str
    reading: Reading
    padded: bool = True
    pad: int = 0
    device: str = "cpu"

    def inputs(self, ids: np.ndarray, inside: np.ndarray) -> dict[str, Tensor]:
        """What the reader takes, by name, from ids [b, t] and which of them are no padding [b, t]."""
        held = np.where(inside, ids, self.pad).astype(np.int64)
        given = {"input_ids": torch.from_numpy(held).to(self.device)}
        if "attention_mask" in inspect.signature(self.reader.forward).parameters:
            given["attention_mask"] = torch.from_numpy(inside.astype(np.int64)).to(self.device)
        return given

    def run(self, ids: np.ndarray, inside: np.ndarray | None = None) -> Tensor:
        """What the layer gives for ids [b, t]: [b, t, d]. Raises `UsageError` where it has another shape."""
        inside = np.ones(ids.shape, bool) if inside is None else inside
        h = run_to(
            self.reader,
            self.layer,
            None,
            self.name,
            self.reading.output,
            self.reading.call,
            **self.inputs(ids, inside),
        )
        spots = Layout(self.reading.layout).spots(h) if h.ndim == 3 else h
        if spots.shape[:2] != ids.shape:
            raise UsageError(
                f"layer={self.name}: gives {list(h.shape)} for {ids.shape[0]} passages of {ids.shape[1]} tokens; "
                "name a layer with a row for each token"
            )
        return spots

    @property
    def told(self) -> str:
        """One line on what is taken of the layer."""
        words = [f"{self.name} gives {self.reading.layout}"]
        words += [f"output={self.reading.output}"] * bool(self.reading.output)
        words += [f"call={self.reading.call}"] * bool(self.reading.call)
        words += [f"{self.tower} reads the text alone"] * bool(self.tower)
        words += ["without padding, on which its rows depend"] * (not self.padded)
        return ", ".join(words)


def find_text_layer(
    model: nn.Module,
    name: str,
    passage: np.ndarray,
    output: str | None = None,
    call: int | None = None,
    batch: int = 32,
    device: str = "cpu",
    missing: Sequence[str] = (),
) -> TextLayer:
    """The layer of that name with all that is needed to read it, found in a few passes over one passage.

    passage: [t] ids of the longest passage that will be read.
    output, call: what the user says, None for what the model shows. batch: passages that are read at once.
    missing: names of weights that were drawn at random; the layer must not use them.
    Raises `UsageError` where the layer is not there, does not run on text alone, has no row for each token, has to be
    said by one of these, or where its rows depend on the other passages of a batch. A `Notice` says that it gives
    other numbers each time.
    """
    layer = layer_of(model, name)
    ids = np.stack([np.roll(passage, -row) for row in range(3)])
    pad = getattr(_text_config(model), "pad_token_id", None)
    pad = pad if isinstance(pad, int) and 0 <= pad < _embedded(model) else 0
    first_error: UsageError | None = None
    for tower, reader in _readers(model, layer, name):
        found = TextLayer(reader, layer, name, tower, Reading("btc", pooling="all"), True, pad, device)
        try:
            with called(model) as whole:
                two, path, runs = _first_pass(found, ids[:2], output, call)
            break
        except UsageError as error:
            first_error = first_error or error
    else:
        assert first_error is not None
        raise first_error
    if call is None and runs > 1:
        raise UsageError(
            f"layer={name}: runs {runs} times when the model reads a text; say which one by call=0 .. call={runs - 1}"
        )
    with called(model) as needed:
        found = _checked(found, ids, two, path, call or 0, batch)
    require_weights(missing, whole, needed, name)
    return found


def passage_limit(model: nn.Module) -> int | None:
    """The longest passage that the model's positions allow; None where it has no limit of its own.

    Tables of positions in the manner of RoBERTa leave the rows up to their padding index unused.
    """
    limits = [getattr(_text_config(model), "max_position_embeddings", None)]
    for name, module in model.named_modules():
        positions = isinstance(module, nn.Embedding) and "position" in name.rpartition(".")[2]
        if positions and module.padding_idx is not None and not hasattr(module, "offset"):
            limits.append(module.num_embeddings - module.padding_idx - 1)
    known = [limit for limit in limits if isinstance(limit, int) and limit > 0]
    return min(known, default=None)


def require_embedded(model: nn.Module, stream: np.ndarray, tokenizer: Any) -> None:
    """Raise `UsageError` for ids [t] that the model has no embedding of: the tokenizer is of another model."""
    count, largest = _embedded(model), int(stream.max())
    if largest >= count:
        raise UsageError(
            f"model: its tokenizer gives {tokenizer.convert_ids_to_tokens(largest)!r} the id {largest}, the model "
            f"has embeddings of {int(count)}; tokens were added to the tokenizer alone, or it is of another model"
        )


def _embedded(model: nn.Module) -> float:
    """How many ids a model has embeddings of; infinite where it does not look them up in a table."""
    try:
        table = model.get_input_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        table = None
    return table.num_embeddings if isinstance(table, nn.Embedding) else float("inf")


def _text_config(model: nn.Module) -> Any:
    config: Any = getattr(model, "config", None)
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def _readers(model: nn.Module, layer: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    """What may read text for a layer: an encoder for its own layers, the whole model, or a part around the layer."""
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        encoder = model.get_encoder()  # type: ignore[operator]
        if encoder is not model:
            tower = next((known for known, module in model.named_modules() if module is encoder), "encoder")
            if not any(module is layer for module in encoder.modules()):
                raise UsageError(
                    f"layer={name}: is not in the encoder; the decoder reads an answer beside the text, shifted by "
                    f"one token, and is not read here; the encoder's layers, behind {tower}: {outline(encoder)}"
                )
            yield tower, encoder
            return
    yield "", model
    parts = name.split(".")
    for count in range(1, len(parts)):
        tower = ".".join(parts[:count])
        part = model.get_submodule(tower)
        if "input_ids" in inspect.signature(part.forward).parameters:
            yield tower, part


def _first_pass(found: TextLayer, ids: np.ndarray, output: str | None, call: int | None) -> tuple[Tensor, str, int]:
    """What the layer gives in a whole pass, the path of that tensor, and how often the layer runs."""
    name, reader = found.name, found.reader
    takes = inspect.signature(reader.forward).parameters
    if "input_ids" not in takes and not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in takes.values()):
        raise UsageError(f"model: {type(reader).__name__} reads {next(iter(takes), 'nothing')}, no text")
    inputs = found.inputs(ids, np.ones(ids.shape, bool))
    with seeded(0), capture(found.layer, output=output, call=call or 0, name=name) as got:
        try:
            reader(**inputs)
        except Exception as error:
            # What comes behind the layer may need more than text.
            if got.value is None and isinstance(error, UnmixError):
                raise
            if got.value is None:
                raise UsageError(
                    f"model: {type(reader).__name__} does not read passages of {ids.shape[1]} tokens alone: "
                    f"{words_of(error)}"
                ) from error
    if got.value is None:
        what = f"runs {got.runs} times, there is no call={call}" if got.runs else "is not called"
        raise UsageError(f"layer={name}: {what} when the model reads a text; name another layer: {outline(reader)}")
    return got.value, got.path, got.runs


def _checked(found: TextLayer, ids: np.ndarray, two: Tensor, path: str, call: int, batch: int) -> TextLayer:
    """The layer with its axes, and with or without padding."""
    name, length = found.name, ids.shape[1]

    def given(part: np.ndarray) -> Tensor:
        everywhere = np.ones(part.shape, bool)
        with seeded(0):
            return run_to(found.reader, found.layer, None, name, path, call, **found.inputs(part, everywhere))

    data = data_axis(two, given(ids), name)
    other = ids[:2, : length - 1] if length > 1 else np.repeat(ids[:2], 2, 1)
    third = given(other)
    sizes = list(zip(two.shape, third.shape, strict=False))
    moved = [axis for axis, (long, shorter) in enumerate(sizes) if long != shorter]
    if not two.ndim == third.ndim == 3 or [sizes[axis] for axis in moved] != [(length, other.shape[1])]:
        raise UsageError(
            f"layer={name}: gives {list(two.shape)} for 2 passages of {length} tokens, expected an axis of each and "
            "one of features; name a layer with a row for each token"
        )
    layout = "".join("b" if axis == data else "t" if axis == moved[0] else "c" for axis in range(3))
    found = replace(found, reading=Reading(layout, path, call, "all"))
    short = max(1, length // 2)
    with seeded(0):
        alone = found.run(ids[1:2, :short])[0]
        inside = np.ones((2, length), bool)
        inside[1, short:] = False
        padded = found.run(ids[:2], inside)[1, :short]
        beside = found.run(ids[:2, :short])[1]
    with seeded(1):
        again = found.run(ids[1:2, :short])[0]
    if not alike(alone, again):
        notice(CHANGING.format(name, "text"))
        return found
    if batch > 1 and not alike(alone, beside):
        raise UsageError(
            f"layer={name}: what it gives for a text depends on the texts beside it in the batch; give batch=1"
        )
    return replace(found, padded=alike(alone, padded, 2e-5))
