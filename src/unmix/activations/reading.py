"""Reading: how rows are read from a layer's output, found in a few passes over two and three data."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from unmix.activations.axes import Evidence, Layout, data_axis, layout_of, watched
from unmix.activations.hooks import Captured, capture, outline
from unmix.core.errors import UnmixError, UsageError, notice

Change = Callable[[Tensor], Tensor]
KINDS = "cls|class|dist|distillation|reg|registers?|storage|global|prefix"
LEADING = re.compile(rf"(^|\.)(({KINDS})_?(tokens?|emb|embed|embedding)|cls)$")
CHANGING = (
    "layer={}: gives other numbers each time it reads the same {} (dropout or sampling that is never off, or a state "
    "that is kept); each row is what one pass gave"
)
TRAILING = re.compile(r"(^|\.)(det|detection)_?tokens?$")


@dataclass(frozen=True)
class Reading:
    """Rows of a layer's output: which part of it, its axes, which of its places, and how they become rows.

    layout: letters of the axes, see `Layout`. output: path of the tensor, see `outputs.chosen`. call: which run of
    the layer in a pass, from 0. pooling: mean, centre, position or all. position: number of the place. first, last:
    the places that there are, counted over all axes of places; None is the end.
    """

    layout: str
    output: str = ""
    call: int = 0
    pooling: str = "mean"
    position: int = 0
    first: int = 0
    last: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, from which `Reading(**values)` is made again."""
        return asdict(self)

    def places(self, shape: Any) -> Tensor:
        """Numbers of the places that are read in an output of that shape: all that are averaged, or those of rows.

        Raises `UsageError` for a position that is not there, or no place.
        """
        sizes = Layout(self.layout).sizes(shape)
        numbers = torch.arange(prod(sizes))[self.first : self.last]
        if not len(numbers):
            raise UsageError(f"tokens: none is left of {prod(sizes)}")
        if self.pooling == "position":
            if self.position >= len(numbers):
                raise UsageError(f"position={self.position}: there are {len(numbers)} positions, from 0")
            return numbers[self.position, None]
        if self.pooling == "centre":
            centre = 0
            for size in sizes:
                centre = centre * size + size // 2
            return numbers[centre if len(sizes) > 1 else len(numbers) // 2, None]
        return numbers

    def grid(self, shape: Any) -> list[int] | None:
        """Height and width of the map that all places of an output of that shape are; None where they are none."""
        return Layout(self.layout).sizes(shape) if set(self.layout) == set("bchw") else None

    def rows(self, h: Tensor) -> Tensor:
        """[b, c] of an output h, or [b places, c] with pooling="all", the places of a datum one after another."""
        spots = Layout(self.layout).spots(h)[:, self.places(h.shape).to(h.device)]
        return spots.mean(1) if self.pooling == "mean" and spots.shape[1] > 1 else spots.flatten(0, 1)

    def changed(self, h: Tensor, change: Change) -> Tensor:
        """An output like h whose rows are `change` of its rows; a change of a mean is added to all its places."""
        layout, places = Layout(self.layout), self.places(h.shape).to(h.device)
        spots = layout.spots(h).clone()
        if self.pooling == "mean" and len(places) > 1:
            mean = spots[:, places].mean(1)
            spots[:, places] += (changed_rows(change, mean) - mean)[:, None]
        else:
            old = spots[:, places]
            spots[:, places] = changed_rows(change, old.flatten(0, 1)).view_as(old)
        return layout.back(spots, h.shape)

    def told(self, name: str, shape: Any) -> str:
        """One line on what is taken of a layer that gives this shape."""
        layout, shape = Layout(self.layout), list(shape)
        shown = ["b" if letter == "b" else str(size) for letter, size in zip(self.layout, shape, strict=True)]
        words = [f"{name or 'the model'} gives {self.layout} [{', '.join(shown)}]"]
        words += [f"output={self.output}"] * bool(self.output) + [f"call={self.call}"] * bool(self.call)
        sizes, places = layout.sizes(shape), self.places(shape)
        if prod(sizes) > 1:
            of = " x ".join(map(str, sizes)) + " places"
            if self.first or self.last is not None:
                among = range(prod(sizes))[self.first : self.last]
                of = f"places {among[0]} .. {among[-1]} of {prod(sizes)}"
            how = {"mean": f"mean over {of}", "all": f"a row for each of {of}"}
            words.append(how.get(self.pooling, f"place {int(places[0])} of {prod(sizes)}"))
        return ", ".join(words)


def find_reading(
    model: nn.Module,
    layer: nn.Module,
    data: Callable[[int], Tensor],
    name: str = "",
    output: str | None = None,
    call: int | None = None,
    layout: str | None = None,
    tokens: str | int | None = None,
    pooling: str = "mean",
    position: int = 0,
    batch: int = 256,
    images: bool = False,
    missing: Sequence[str] = (),
) -> tuple[Reading, Tensor]:
    """How rows are read from a layer, and its output for two data.

    data: the first k data as the model takes them, for k = 2 and 3. name: of the layer, for messages. output, call,
    layout, tokens: what the user says, None for what the model shows. batch: data that are read at once. images: the
    data are images [b, channels, height, width]. missing: names of weights that were drawn at random. What the layer
    gives is looked at in one whole pass, and compared with passes over the same data again and with another datum
    beside them.
    Raises `UsageError` where something has to be said by one of these, the layer does not run, or a datum's rows
    depend on the data beside it. A `Notice` says that a layer gives other numbers each time.
    """
    with called(model) as whole:
        got, evidence = _whole_pass(model, layer, data(2), name, output, call, images)
    assert got.value is not None and got.given is not None
    if call is None and got.runs > 1:
        raise UsageError(
            f"layer={name}: runs {got.runs} times when the model reads a datum; say which one by call=0 .. "
            f"call={got.runs - 1}"
        )
    two, path = got.value, got.path

    def passed(count: int, seed: int) -> Tensor:
        with seeded(seed):
            return run_to(model, layer, data(count), name, path, call or 0)

    with called(model) as needed:
        again, three = passed(2, 1), passed(3, 0)
    require_weights(missing, whole, needed, name)
    axis = data_axis(two, three, name)
    found = layout_of(two, axis, evidence.axis(got.given, axis), name, layout)
    first, last = _tokens(model, found, two.shape, name, tokens, pooling, data(2).ndim == 4)
    reading = Reading(found.axes, path, call or 0, pooling, position, first, last)
    once, beside = found.spots(two), found.spots(three)
    if again.shape != two.shape or not alike(once, found.spots(again)):
        notice(CHANGING.format(name, "data"))
    elif batch > 1 and not alike(once, beside[:2]):
        raise UsageError(
            f"layer={name}: what it gives for a datum depends on the data beside it in the batch (a norm over the "
            "batch, attention between data, axes in another order); give batch=1, or mend the model"
        )
    return reading, two


def run_to(model: nn.Module, layer: nn.Module, x: Any, name: str, path: str, call: int, **more: Any) -> Tensor:
    """The output of a layer in its run number `call`; the pass ends there. Raises `UsageError` where it does not run.

    x: what the model takes. path: of the tensor in the output, "" for the output itself. more: by keyword.
    """
    with capture(layer, stop=True, output=path or None, call=call, name=name) as got:
        model(x, **more) if x is not None else model(**more)
    if got.value is None:
        raise UsageError(
            f"layer={name}: does not run when the model reads the data; name another layer: {outline(model)}"
        )
    return got.value


def alike(one: Tensor, other: Tensor, share: float = 1e-4) -> bool:
    """Whether features [..., c] at every place are the same up to the rounding of sums in another order.

    share: of the mean size of a place's features, by which they may be apart; more in types of fewer digits.
    """
    if one.shape != other.shape:
        return False
    coarse = max(share, 16 * torch.finfo(one.dtype).eps)
    first, second = (torch.nan_to_num(part.double(), 0, 0, 0) for part in (one, other))
    size = first.abs().mean(-1)
    apart = (first - second).abs().mean(-1) > coarse * size + 1e-6 * size.mean()
    return not bool(apart.any())


def tell_rounding(rows: Tensor, stored: str, name: str) -> None:
    """Give a `Notice` where rows [n, d] lose their differences when they are stored as float32 or float16."""
    kept = torch.finfo(getattr(torch, stored))
    if len(rows) < 2 or torch.finfo(rows.dtype).eps >= kept.eps:
        return
    held = rows.double()
    spread, step = held.std(0), kept.eps * torch.maximum(held.abs().amax(0), torch.tensor(kept.tiny).double())
    if few := int(((spread > 0) & (step > 0.03 * spread)).sum()):
        notice(
            f"layer={name}: {few} of {rows.shape[1]} features differ so little beside their size that {stored} keeps "
            "less than two digits of it; scale or centre them in the model"
            + ", or store dtype=float32"
            * (stored == "float16")
        )


def changed_rows(change: Change, rows: Tensor) -> Tensor:
    """`change(rows)` in the dtype of the rows; raises `UsageError` where the shape is another."""
    new = change(rows)
    if new.shape != rows.shape:
        raise UsageError(f"change: gives {list(new.shape)} for rows {list(rows.shape)}; it must keep the shape")
    return new.to(rows)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch's global random state of a seed on the CPU; the one before comes back."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def words_of(error: Exception) -> str:
    """An error of somebody else's code in one line."""
    text = " ".join(str(error).split())[:200]
    return text if type(error) is RuntimeError and text else f"{type(error).__name__}: {text}".rstrip(": ")


@contextlib.contextmanager
def called(model: nn.Module) -> Iterator[set[str]]:
    """While inside, names of the modules of a model that run."""
    names: set[str] = set()
    handles = [
        module.register_forward_pre_hook(lambda *_, name=name: names.add(name))
        for name, module in model.named_modules(remove_duplicate=False)
    ]
    try:
        yield names
    finally:
        for handle in handles:
            handle.remove()


def require_weights(missing: Sequence[str], whole: set[str], needed: set[str], name: str) -> None:
    """Raise `UsageError` where a layer needs weights that were drawn at random.

    missing: their names. whole: modules that run in a whole pass. needed: modules that run up to the layer. A weight
    is used by the module that holds it, or where that never runs, by the one around it that does.
    """
    for weight in missing:
        owner = weight.rpartition(".")[0]
        while owner and owner not in whole:
            owner = owner.rpartition(".")[0]
        if owner in needed:
            raise UsageError(
                f"layer={name}: needs {weight}, of which the folder has no weights; its rows would be noise"
            )


def _whole_pass(
    model: nn.Module, layer: nn.Module, x: Tensor, name: str, output: str | None, call: int | None, images: bool
) -> tuple[Captured, Evidence]:
    evidence = Evidence()
    if images:
        evidence.note(x, 1)
    with seeded(0), watched(model, evidence), capture(layer, output=output, call=call or 0, name=name) as got:
        try:
            model(x)
        except Exception as error:
            # What comes behind the layer may need what the data do not have.
            if got.value is None and isinstance(error, UnmixError):
                raise
            if got.value is None:
                more = "; side= and channels= make other images of them" if images else ""
                more = "; give a builder whose module takes one input" if isinstance(error, TypeError) else more
                raise UsageError(
                    f"model: does not take data {list(x.shape[1:])} of {str(x.dtype).removeprefix('torch.')}: "
                    f"{words_of(error)}{more}"
                ) from error
    if got.value is None:
        runs = f"runs {got.runs} times" if got.runs else "does not run"
        raise UsageError(
            f"layer={name}: {runs} when the model reads the data; name another "
            + (f"run than call={call}" if got.runs else f"layer: {outline(model)}")
        )
    return got, evidence


def other_tokens(model: nn.Module) -> tuple[int, int]:
    """Tokens of no place that a vision model sets before its patches, and behind them, by its parameters' names.

    Before are class, distillation and register tokens, behind those of detected objects.
    """

    def count(pattern: re.Pattern[str]) -> int:
        found = [value for name, value in model.named_parameters() if pattern.search(name) and value.ndim]
        return sum(value.numel() // value.shape[-1] for value in found)

    told = getattr(model, "num_prefix_tokens", None)
    return told if isinstance(told, int) else count(LEADING), count(TRAILING)


def _tokens(
    model: nn.Module, layout: Layout, shape: Any, name: str, tokens: str | int | None, pooling: str, square: bool
) -> tuple[int, int | None]:
    """First and last of the places that are read. square: the data have two axes of places."""
    sizes, (before, behind) = layout.sizes(shape), other_tokens(model)
    where = f"layer {name}" if name else "the model"
    if len(sizes) != 1:
        if tokens not in (None, "all"):
            raise UsageError(f"tokens={tokens}: {where} gives {layout.axes} {list(shape)}, no row of tokens")
        return 0, None
    count = sizes[0]
    if tokens is None and 0 < before + behind < count and pooling != "position":
        others = f"{before} before the patches" + f" and {behind} behind" * bool(behind)
        raise UsageError(
            f"tokens: {where} gives {count} tokens; by its parameters the model sets class or register tokens, "
            f"{others}; say tokens=patches (the {count - before - behind} of places), tokens=class (the first) or "
            "tokens=all"
        )
    if tokens in ("class", "patches") and not before + behind:
        raise UsageError(
            f"tokens={tokens}: the model has no parameter named as a class token; say tokens=all, or by tokens=1 how "
            "many of the first tokens to leave out; one alone is taken by pooling=position position=0"
        )
    if tokens == "class":
        return 0, 1
    if pooling == "centre" and square:
        raise UsageError(
            f"pooling=centre: the places of {where} are one row of {count} tokens, whose centre is not that of "
            "the image; say which one by pooling=position position=..."
        )
    if tokens == "patches":
        return before, -behind or None
    return (0 if tokens in (None, "all") else int(tokens or 0)), None
