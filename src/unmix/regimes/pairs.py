"""Homogeneous pairs of a torch model: two layers between which scale can move without changing the function."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from unmix.core.errors import UsageError, suggest
from unmix.regimes.jacobian import Forward
from unmix.regimes.probes import Probe
from unmix.regimes.running import unwrapped
from unmix.regimes.sides import ATTENTION, EMBEDDINGS, LAYERS, obstacle, sides
from unmix.regimes.trials import Trial

KINDS = ("units", "embedding", *ATTENTION)


@dataclass(frozen=True)
class Pair:
    """Two places between which a factor r > 0 moves: what `first` gives is divided by r, what `second` takes times r.

    kind: units (layers with homogeneous units between), embedding (of an embedding and a layer), query-key or
    value-output (of attention; first and second are the same where one layer holds both). legal: the function is
    kept; why: the reason where it is not. heads: units of attention written out in linear layers. first_rows,
    second_rows: (first, number) of the outputs of a layer that are meant, where it holds more than one projection.
    interleaved: where the second takes several numbers for each unit, whether these are apart (every unit in turn, as
    after flattening [places, units]) and not in a row.
    """

    first: str
    second: str
    kind: str = "units"
    legal: bool = True
    why: str = ""
    heads: int = 1
    first_rows: tuple[int, int] | None = None
    second_rows: tuple[int, int] | None = None
    interleaved: bool = False

    @property
    def name(self) -> str:
        """FIRST -> SECOND, with the kind behind it for attention; MODULE kind where they are the same."""
        if self.first == self.second and self.kind in ATTENTION:
            return f"{self.first} {self.kind}".strip()
        return f"{self.first} -> {self.second}" + (f" {self.kind}" if self.kind in ATTENTION else "")


def find_pairs(model: nn.Module, probe: Probe = None, forward: Forward | None = None) -> list[Pair]:
    """Every pair of neighbouring layers of a model, with the reason where moving scale would change the function.

    The model is run on a copy: what autograd keeps of the run tells which layers follow each other, and each pair is
    tried, with scale moved at random through every unit of a copy with other weights. Attention gives its query-key
    and value-output pairs: nn.MultiheadAttention, and linear layers by their usual names (`attention`).
    probe: what to run the model on, a tensor, a tuple of arguments or a mapping of named ones; made from what the
    layers take where none is given. forward: called with (model, probe) where that is not model(probe).
    Raises `UsageError` where the model cannot be run on it, or no input for it could be made.
    """
    model = unwrapped(model)
    return tried_pairs(model, Trial(model, probe, forward))


def tried_pairs(model: nn.Module, trial: Trial) -> list[Pair]:
    """`find_pairs` with a trial that is already set up."""
    from unmix.regimes.attention import attention_pairs

    written = attention_pairs(model)
    ends = {(pair.first, pair.second) for pair in written}
    parts = dict(model.named_modules())
    pairs: list[Pair] = []
    reasons: dict[int, tuple[str, bool]] = {}
    for path in trial.record().paths:
        kind = "embedding" if isinstance(parts[path.first], EMBEDDINGS) else "units"
        pair = Pair(path.first, path.second, kind)
        if (pair.first, pair.second) in ends or pair in pairs:
            continue
        met = path.met[0] if path.met else ""
        if path.branches and not met:
            met = f"the output of {path.first} branches (a residual or shared path)"
        elif not met and trial.run.calls[path.first] > 1:
            met = f"{path.first} is used {trial.run.calls[path.first]} times"
        reasons[len(pairs)] = (met, path.bent)
        pairs.append(pair)
    return trial.judged([*pairs, *written], reasons)


def given_pairs(model: nn.Module, pairs: Iterable[Pair | str]) -> list[Pair]:
    """Pairs named by hand, as `Pair` or as text: "FIRST -> SECOND", then maybe a kind and its number of heads.

    Text: "encoder.0 -> encoder.2", "block.q -> block.k query-key 4". They are taken at their word: a probe tells
    whether the function is kept. Raises `UsageError` for a layer that is not there, sizes that do not fit, weights
    that cannot be rescaled in place (weight norm, max_norm), an unknown kind.
    """
    model = unwrapped(model)
    made = [pair if isinstance(pair, Pair) else _read(pair) for pair in pairs]
    parts = dict(model.named_modules())
    for pair in made:
        for name in (pair.first, pair.second):
            if name not in parts:
                raise UsageError(f"pair {pair.name}: no layer {name!r}; {suggest(name, parts)}")
            if not isinstance(parts[name], (*LAYERS, *EMBEDDINGS, nn.MultiheadAttention)):
                raise UsageError(
                    f"pair {pair.name}: {name} is a {type(parts[name]).__name__}, not a layer of weights"
                )
            if why := obstacle(model, name):
                raise UsageError(f"pair {pair.name}: {why}")
        sides(model, pair)
    return made


def _read(text: str) -> Pair:
    first, arrow, rest = (part.strip() for part in text.partition("->"))
    second, *more = rest.split() or [""]
    kind, heads = (*more, *("units", "1")[len(more) :])[:2]
    if not (first and second and arrow and kind in KINDS and heads.isdigit() and int(heads)) or len(more) > 2:
        raise UsageError(f"pair {text!r}: write FIRST -> SECOND, then maybe one of {', '.join(KINDS)} and heads")
    return Pair(first, second, kind, heads=int(heads))


def measurable(model: nn.Module, pair: Pair) -> bool:
    """Whether the balance of a pair's units is a number, conserved or not."""
    if not pair.legal and (pair.kind in ATTENTION or pair.first == pair.second):
        return False
    if any(obstacle(model, name) for name in (pair.first, pair.second)):
        return False
    try:
        sides(model, pair)
    except UsageError:
        return False
    return True
