"""Axes: which axis of a layer's output holds the data and which the features; found out, or asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Any

from torch import Tensor, nn

from unmix.activations.outputs import tensors
from unmix.core.errors import UsageError

LAST = (
    *(nn.Linear, nn.Bilinear, nn.LayerNorm, nn.RMSNorm, nn.Embedding, nn.EmbeddingBag, nn.MultiheadAttention),
    *(nn.TransformerEncoderLayer, nn.TransformerDecoderLayer, nn.TransformerEncoder, nn.TransformerDecoder),
    *(nn.Transformer, nn.RNN, nn.LSTM, nn.GRU, nn.RNNCell, nn.LSTMCell, nn.GRUCell),
)
SECOND = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Unfold),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.GroupNorm, nn.LocalResponseNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.PixelShuffle, nn.PixelUnshuffle),
)
COUNTS = ("out_features", "out_channels", "num_features", "num_channels", "embedding_dim")


@dataclass(frozen=True)
class Layout:
    """The axes of a layer's output, one letter each: b the data, c the features, every other letter places.

    "bchw" are channels first, "bhwc" channels last, "btc" tokens, "tbc" tokens first, "bc" rows.
    Raises `UsageError` for letters that are no layout.
    """

    axes: str

    def __post_init__(self) -> None:
        plain = self.axes.isalpha() and self.axes.islower() and len(set(self.axes)) == len(self.axes)
        if not plain or not {"b", "c"} <= set(self.axes):
            raise UsageError(
                f"layout={self.axes}: one letter for each axis, b for the data, c for the features and others for "
                "places, such as bchw, bhwc or btc"
            )

    def sizes(self, shape: Any) -> list[int]:
        """Sizes of the axes of places, in the order in which places are counted; [] where there is none."""
        return [int(shape[axis]) for axis in self._order[1:-1]]

    def spots(self, h: Tensor) -> Tensor:
        """[b, places, c] of an output h; one place where there is no axis of places."""
        moved = h.permute(*self._order)
        return moved.reshape(moved.shape[0], prod(moved.shape[1:-1]), moved.shape[-1])

    def back(self, spots: Tensor, shape: Any) -> Tensor:
        """The output of that shape from [b, places, c]."""
        moved = spots.reshape([shape[axis] for axis in self._order])
        return moved.permute(*(self._order.index(axis) for axis in range(len(self._order))))

    @property
    def _order(self) -> list[int]:
        # Time, height and width count in this order, wherever they stand.
        places = [axis for axis, letter in enumerate(self.axes) if letter not in "bc"]
        places.sort(key=lambda axis: "thw".find(self.axes[axis]))
        return [self.axes.index("b"), *places, self.axes.index("c")]


@dataclass
class Evidence:
    """Where the features are in what the modules of known type gave in one pass.

    known: by identity, a tensor and the axis of its features. seen: their shapes with the axis.
    """

    known: dict[int, tuple[Tensor, int]] = field(default_factory=dict)
    seen: list[tuple[tuple[int, ...], int]] = field(default_factory=list)

    def note(self, tensor: Tensor, axis: int) -> None:
        """This tensor has its features on that axis."""
        if tensor.ndim > 1 and id(tensor) not in self.known:
            self.known[id(tensor)] = (tensor, axis % tensor.ndim)
            self.seen.append((tuple(tensor.shape), axis % tensor.ndim))

    def axis(self, tensor: Tensor, data: int = 0) -> int | None:
        """The axis of a tensor's features: it is one of the known, or only one axis can be; None where neither.

        data: its axis of data. A tensor with the shape of known ones has its features where they have, if they agree
        and no other axis is as long.
        """
        if id(tensor) in self.known:
            return self.known[id(tensor)][1]
        shape = tuple(tensor.shape)
        voted = {axis for seen, axis in self.seen if seen == shape}
        if len(voted) != 1:
            return None
        (axis,) = voted
        others = [size for place, size in enumerate(shape) if place not in (axis, data)]
        return axis if axis != data and shape[axis] not in others else None


@contextlib.contextmanager
def watched(model: nn.Module, evidence: Evidence) -> Iterator[None]:
    """While inside, what the modules of known type give is noted; the hooks are always removed."""

    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        given = inputs[0] if isinstance(inputs, tuple) and inputs else None
        for tensor in tensors(output).values():
            if tensor.is_nested:  # has no shape
                continue
            axis = axis_by_type(module, tensor)
            if axis is None and _keeps_axes(module) and isinstance(given, Tensor) and given.ndim == tensor.ndim:
                axis = evidence.axis(given)
            if axis is not None:
                evidence.note(tensor, axis)

    handles = [module.register_forward_hook(hook) for module in model.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def axis_by_type(module: nn.Module, tensor: Tensor) -> int | None:
    """The axis of the features in what a module of torch gives; None where its type does not say.

    A subclass with a forward pass of its own may have moved the axes: there the axis is told by its length.
    """
    kind = next((kind for kind in (*LAST, *SECOND) if isinstance(module, kind)), None)
    if kind is None or tensor.ndim < 2:
        return None
    normalised = getattr(module, "normalized_shape", (0,))
    if type(module).forward is kind.forward:
        if len(normalised) > 1:  # a norm over features and places
            return None
        return tensor.ndim - 1 if kind in LAST else 1
    count = next((getattr(module, name) for name in COUNTS if hasattr(module, name)), normalised[-1])
    fitting = [axis for axis in range(1, tensor.ndim) if tensor.shape[axis] == count]
    return fitting[0] if len(fitting) == 1 and len(normalised) == 1 else None


def _keeps_axes(module: nn.Module) -> bool:
    """Whether a module of torch leaves the axes where they are: activations, dropout, pooling, padding, resizing."""
    rooms = ("activation", "dropout", "pooling", "padding", "upsampling", "linear", "channelshuffle")
    return type(module).__module__ in {f"torch.nn.modules.{room}" for room in rooms}


def data_axis(two: Tensor, three: Tensor, name: str) -> int:
    """The axis of the data, from the outputs for two and for three of them.

    Raises `UsageError` where no axis, or several, or one that data share with something else, goes with the data.
    """
    where, shapes = f"layer={name}", f"{list(two.shape)} for 2 data and {list(three.shape)} for 3"
    if two.ndim == three.ndim:
        moved = [axis for axis in range(two.ndim) if two.shape[axis] != three.shape[axis]]
        if len(moved) == 1 and (two.shape[moved[0]], three.shape[moved[0]]) == (2, 3):
            return moved[0]
        if len(moved) == 1 and 3 * two.shape[moved[0]] == 2 * three.shape[moved[0]]:
            raise UsageError(
                f"{where}: gives {shapes}: one axis holds data and places together (windows, frames); name a layer "
                "around it, whose output has an axis of the data alone"
            )
    raise UsageError(f"{where}: gives {shapes}; expected one axis that is as long as the data are many")


def layout_of(h: Tensor, data: int, features: int | None, name: str, given: str | None = None) -> Layout:
    """The layout of an output for two data: the one given, or that of the axes found.

    Raises `UsageError` where the one given does not fit, or none is given and the axis of features is not known.
    """
    if given is not None:
        layout = Layout(given)
        if len(given) != h.ndim or given.index("b") != data:
            raise UsageError(
                f"layout={given}: layer {name} gives {list(h.shape)} for 2 data, with the data on axis {data}; "
                f"such as layout={' or layout='.join(_possible(h, data))}"
            )
        return layout
    if h.ndim < 2:
        raise UsageError(f"layer={name}: gives {list(h.shape)} for 2 data; expected an axis of features beside")
    if h.ndim == 2:
        features = 1 - data
    if features is None or features == data:
        raise UsageError(
            f"layer={name}: gives {list(h.shape)} for 2 data, and nothing says which axis holds the features (c); "
            f"say it by layout={' or layout='.join(_possible(h, data))}"
        )
    return Layout(_letters(h.ndim, data, features))


def _possible(h: Tensor, data: int) -> list[str]:
    return [_letters(h.ndim, data, axis) for axis in range(h.ndim) if axis != data] or ["bc"]


def _letters(ndim: int, data: int, features: int) -> str:
    places = iter({1: "t", 2: "hw", 3: "thw"}.get(ndim - 2, "adefghijklmnopqrstuvwxyz"))
    return "".join("b" if axis == data else "c" if axis == features else next(places) for axis in range(ndim))
