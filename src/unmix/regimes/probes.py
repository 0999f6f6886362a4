"""Inputs to run a model on: those that are given, or one that is made from what its first layers take."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor, nn

from unmix.core.errors import UsageError
from unmix.core.seeds import Stream
from unmix.regimes.jacobian import Forward
from unmix.regimes.running import converted, copied, first_line, precision, quiet, take_mode, tensors_in, usable

Probe = Tensor | tuple[Any, ...] | Mapping[str, Any] | None
SIDES = (32, 28, 16, 64, 8, 84, 96, 224, 128, 299, 48, 100, 256, 512, 1000, 4000, 16000)  # of pictures and of series
LENGTH = 5  # of a sequence
USUAL, TRIES = 12, 400
CONVOLUTIONS = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip


@dataclass(frozen=True)
class Input:
    """What a model is called with, or `forward` with the model and `given`; text says it in words."""

    args: tuple[Any, ...] = ()
    named: dict[str, Any] = field(default_factory=dict)
    forward: Forward | None = None
    text: str = "the probe"

    def call(self, model: nn.Module, dtype: torch.dtype | None = None) -> list[Tensor]:
        """Every tensor that the model gives, in the mode that it is in."""
        args, named = converted((self.args, self.named), dtype)
        return tensors_in(model(*args, **named) if self.forward is None else self.forward(model, *args))

    def outputs(self, twin: nn.Module, model: nn.Module, dtype: torch.dtype | None = None) -> list[Tensor]:
        """What a copy gives in evaluation mode, and behind it what it gives in the mode of its model."""
        with quiet(model, dtype), torch.no_grad():
            made = self.call(twin.eval(), dtype)
            if any(m.training for m in model.modules()):
                take_mode(twin, model)
                try:
                    made = [*made, *self.call(twin, dtype)]
                except Exception as error:  # as where targets are wanted in training
                    raise UsageError(f"in training mode: {first_line(error)}; call model.eval() first") from error
        return [t.detach().clone() for t in made]


def found_input(model: nn.Module, probe: Probe = None, forward: Forward | None = None) -> Input:
    """The input that is given, or else one that the model runs on and gives finite numbers for.

    probe: a tensor; a tuple of arguments; a mapping of named ones. Raises `UsageError` where the model cannot be run
    on it, gives no finite number, or where none is given and none could be made.
    """
    if lazy := [n for n, p in model.named_parameters() if isinstance(p, nn.parameter.UninitializedParameter)]:
        raise UsageError(f"model: {lazy[0]} has no size yet (a lazy layer); run the model once first")
    if any(p.is_meta for p in model.parameters()):
        raise UsageError("model: its weights are on the meta device, without numbers; load them first")
    if probe is not None:
        made = _given(model, probe, forward)
        if why := _refused(copied(model), model, made):
            raise UsageError(f"probe: {why}")
        return made
    if forward is not None:
        raise UsageError("forward: give a probe with it")
    first, tried, twin = "", 0, copied(model)
    for made in islice(_guesses(model), TRIES):
        why = _refused(twin, model, made)
        if not why:
            return made
        first, tried = first or f"; on {made.text}: {why}", tried + 1
    raise UsageError(
        f"probe: what the model takes could not be told from its layers ({tried} inputs tried{first}); "
        "give an input as probe="
    )


def _given(model: nn.Module, probe: Any, forward: Forward | None) -> Input:
    if forward is not None:
        return Input((probe,), forward=forward)
    named = dict(probe) if isinstance(probe, Mapping) else {}
    args = () if isinstance(probe, Mapping) else probe if isinstance(probe, tuple) else (probe,)
    return Input(args, {**_uncached(model), **named})


def _parameters(model: nn.Module) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(model.forward).parameters
    except (TypeError, ValueError):
        return {}


def _uncached(model: nn.Module) -> dict[str, Any]:
    """Keys and values that a model keeps for its next call are no part of its function: they are left out."""
    return {"use_cache": False} if "use_cache" in _parameters(model) else {}


def _refused(twin: nn.Module, model: nn.Module, made: Input) -> str:
    """Why an input is of no use, or nothing."""
    try:
        outputs = made.outputs(twin, model)
    except UsageError as error:
        return f"the model cannot be run on it {error}"
    except Exception as error:  # whatever a foreign module raises
        return f"the model cannot be run on it ({first_line(error)})"
    return "" if usable(outputs) else "the model gives no finite number for it, so that nothing can be compared"


def _guesses(model: nn.Module) -> Iterator[Input]:
    """Inputs to try: what the model itself says, then what each kind of layer takes, in their order."""
    for name in ("example_input_array", "dummy_inputs"):
        with contextlib.suppress(Exception):  # properties of foreign classes
            held = getattr(model, name)
            if isinstance(held, (Tensor, tuple, Mapping)) and len(held):
                yield replace(_given(model, held, None), text=f"the model's own {name}")
    first = next(model.parameters(), torch.zeros(0))
    dims = list(dict.fromkeys(size for p in model.parameters() for size in p.shape if size <= 1024))
    words = [m.num_embeddings for m in model.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag))]
    kinds = dict.fromkeys(shapes for m in model.modules() if (shapes := _shapes(m, tuple(dims))))
    own = ((((2, LENGTH, d), 0), ((4, d), 0)) for d in dims)
    seen = set()
    for shape, below in chain(
        *(k[:USUAL] for k in kinds), *(k[USUAL:] for k in kinds), *own, (((2, LENGTH), min(words)),) if words else ()
    ):
        if (shape, below) in seen:
            continue
        seen.add((shape, below))
        draw = Stream(0).child("probe").torch()

        def drawn(shape: Any = shape, below: int = below, draw: Any = draw) -> Tensor:
            if below:
                return torch.randint(0, below, shape, generator=draw).to(first.device)
            return torch.randn(shape, generator=draw).to(first.device, precision(model))

        yield from _calls(model, drawn, f"{'whole numbers' if below else 'numbers'} of shape {shape}")


def _shapes(module: nn.Module, dims: tuple[int, ...]) -> tuple[tuple[tuple[int, ...], int], ...]:
    """Shapes that a layer may take, the usual ones first, each with the bound of its whole numbers or 0 for reals."""
    sides = tuple(dict.fromkeys((*SIDES, *(d for d in dims if d <= 256))))
    made: list[tuple[int, ...]] = []
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return tuple((shape, module.num_embeddings) for shape in ((2, LENGTH), (4,)))
    if isinstance(module, nn.Linear):
        wide = module.in_features
        made = [(4, wide), (2, LENGTH, wide), *((2, d, wide) for d in dims)]
    elif isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        made = [(2, LENGTH, module.input_size), (4, module.input_size)]
    elif isinstance(module, nn.MultiheadAttention):
        made = [(2, LENGTH, module.embed_dim), (LENGTH, module.embed_dim)]
    elif isinstance(module, nn.LayerNorm):
        made = [(2, LENGTH, *module.normalized_shape), (4, *module.normalized_shape)]
    elif isinstance(module, CONVOLUTIONS):
        wide, axes = module.in_channels, len(module.kernel_size)
        if axes == 3:
            made = [(2, wide, s, s, s) for s in (16, 8, 32)]
        else:
            made = [(2, wide, *(s,) * axes) for s in sides if s < 300 or axes == 1]
            made += [(2, *(s,) * axes, *((wide,) if wide > 1 else ())) for s in sides if s < 300 or axes == 1]
    elif isinstance(module, nn.modules.batchnorm._BatchNorm):
        made = [(4, module.num_features), (2, module.num_features, 16), (2, module.num_features, 16, 16)]
    return tuple((shape, 0) for shape in made)


def _calls(model: nn.Module, drawn: Callable[[], Tensor], text: str) -> Iterator[Input]:
    """Ways to call a model with what is drawn: alone, by its name, and for every argument that has no default."""
    parameters, fixed = _parameters(model), _uncached(model)
    plain = [p for p in parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = sum(p.default is p.empty for p in plain)
    named = {
        p.name: drawn() for p in parameters.values() if p.kind is p.KEYWORD_ONLY and p.default is p.empty
    } | fixed
    main, x = str(getattr(model, "main_input_name", "")), drawn()
    if not needed and "decoder_input_ids" in parameters:
        yield Input((), {"input_ids": x, "decoder_input_ids": drawn(), **fixed}, text=text)
    elif not needed and main in parameters:
        yield Input((), {main: x, **fixed}, text=text)
    else:
        rest = max(needed - 1, 0)
        yield Input(
            (() if len(named) > len(fixed) and not needed else (x,)) + tuple(drawn() for _ in range(rest)),
            named,
            text=text,
        )
        if rest:
            yield Input((x, *(torch.ones(len(x), dtype=torch.long, device=x.device),) * rest), named, text=text)
            yield Input((x, *(x.new_ones(len(x)),) * rest), named, text=text)
