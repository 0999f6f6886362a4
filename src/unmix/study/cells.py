"""Cells: one combination of world, finder, encoder and seed; fitted, encoded and scored."""

from __future__ import annotations

import math
import weakref
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator, Field
from torch import Tensor

from unmix.core.codes import Codes
from unmix.core.copies import first_copies, hold_out
from unmix.core.digest import digest
from unmix.core.errors import UsageError, notice
from unmix.core.recipe import Recipe
from unmix.core.rows import ArrayRows, Rows, Subset
from unmix.core.seeds import Stream
from unmix.encoders import ENCODERS
from unmix.encoders.matched import at_sparsity
from unmix.finders import FINDERS
from unmix.finders.features import Features, replace
from unmix.scores import SCORES
from unmix.scores.base import Inputs, Outcome
from unmix.worlds import WORLDS

LARGEST = 8 << 30  # bytes of rows that are searched for copies
FEW_DOCUMENTS = 5  # with fewer, one of them is too large a part to hold out


class Cell(Recipe):
    """One cell of a study.

    world, finder, seed: what is fitted. samples: rows to fit on; None takes all there are.
    encoder: None keeps the finder's own. l0: mean number of active codes the encoder is set to; None as it is.
    test: held-out rows that scores are measured on. scores: their names.
    start: folder and digest of features to go on from; None begins anew.
    """

    world: Annotated[Any, BeforeValidator(WORLDS.make)]
    finder: Annotated[Any, BeforeValidator(FINDERS.make)]
    encoder: Annotated[Any, BeforeValidator(lambda value: None if value is None else ENCODERS.make(value))] = None
    samples: int | None = Field(default=None, ge=2)
    l0: float | None = Field(default=None, gt=0)
    seed: int = 0
    test: int = Field(default=8192, ge=3)
    scores: tuple[str, ...] = ("fvu", "l0", "dead")
    start: tuple[str, str] | None = None

    @property
    def fit_digest(self) -> str:
        """Digest of what decides the fitted features; cells that differ only in encoder or scores share it."""
        begun = [] if self.start is None else [self.start[1]]
        return digest([self.world.digest, self.finder.as_dict(), self.samples, self.seed, self.test, *begun])

    @property
    def digest(self) -> str:
        """Digest of the cell; data enter by their content, not by their path."""
        encoder = None if self.encoder is None else self.encoder.as_dict()
        return digest([self.fit_digest, encoder, self.l0, list(self.scores)])

    @property
    def label(self) -> str:
        """A short name for progress lines."""
        encoder = "" if self.encoder is None else f" + {self.encoder.kind}"
        return f"{world_label(self.world)} {self.finder.kind}{encoder} seed {self.seed}"

    def refusal(self) -> str | None:
        """Why this cell is impossible, as a sentence, or None."""
        gives = {"codes", "atoms", "h", "reconstruction"}
        if "z" in self.world.provides:
            gives |= {"z"}
        if "atoms" in self.world.provides:
            gives |= {"truth"}
        if self.world.parents is not None:
            gives |= {"parents"}
        for name in self.scores:
            missing = sorted(SCORES[name].needs - gives)
            if missing:
                return f"{self.label}: score {name} needs {', '.join(missing)}, which {self.world.kind} does not know"
        if self.start is not None and not self.finder.continues:
            return f"{self.label}: {self.finder.kind} cannot go on from given features; leave start out"
        if self.world.size is None and self.samples is None:
            return f"{self.label}: samples must be given, for {self.world.kind} has no end"
        if self.l0 is not None and self.encoder is not None and self.encoder.sparsity is None:
            return f"{self.label}: {self.encoder.kind} has no option that sets how many codes are active"
        return None


@dataclass(frozen=True, eq=False)
class Split:
    """Rows to fit on, held-out rows [n, d], and the truth of the held-out rows where the world knows it."""

    train: Rows
    test: Tensor
    z: Codes | Tensor | None = None
    truth: Tensor | None = None
    parents: Tensor | None = None


def world_label(world: Any) -> str:
    """data, matched, or the recipe as text."""
    return {"Data": "data", "MatchedWorld": "matched"}.get(world.kind, str(world))


def split_rows(rows: Rows, test: int, items: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the rows to fit on and of the held-out rows: a tenth, at most `test`, at least half of that.

    Of text whole documents are held out, where there are five or more and some of them are short enough; else the
    rows at the end. Copies (`kept_together`) are on one side, and a `Notice` says how many there are. The same for
    every seed, so that nothing is ever chosen on held-out rows. Raises `UsageError` where all rows are copies of one.
    """
    n = rows.shape[0]
    draw = Stream(0, ("split",)).numpy()
    wanted = max(1, min(test, n // 10))
    group = kept_together(rows, items)
    if getattr(items, "kind", "") != "text":
        held_out = hold_out(draw.permutation(n), group, wanted)
        if not len(held_out):
            raise UsageError(f"rows: {np.bincount(group).max()} of {n} are copies of one; none can be held out")
        return np.setdiff1d(np.arange(n), held_out), held_out
    held = _held_documents(np.bincount(group, minlength=len(items.starts) - 1), wanted, draw)
    if held is None:
        return np.arange(n - wanted), np.arange(n - wanted, n)
    inside = held[group]
    return np.flatnonzero(~inside), np.flatnonzero(inside)[:test]


def kept_together(rows: Rows, items: Any = None) -> np.ndarray:
    """For each of n rows the number of its group: rows of one group never lie on both sides of a split, [n] int64.

    Of text the first document with the same tokens; else the first row with the same image or, where the rows show
    none, the same values. A `Notice` says how many copies there are, or that rows of more than 8 GB are not searched.
    """
    found, kind = _GROUPS.setdefault(rows, {}), getattr(items, "kind", "")
    if kind not in found:
        found[kind] = _groups(rows, items)
    return found[kind]


_GROUPS: weakref.WeakKeyDictionary[Any, dict[str, np.ndarray]] = weakref.WeakKeyDictionary()


def _groups(rows: Rows, items: Any) -> np.ndarray:
    kind = getattr(items, "kind", "")
    filled: Any = True
    if kind == "text":
        filled = np.diff(items.starts) > 0
        ends = zip(items.starts[:-1].tolist(), items.starts[1:].tolist(), strict=True)
        seen: dict[bytes, int] = {}
        first = np.asarray([seen.setdefault(items.stream[a:b].tobytes(), place) for place, (a, b) in enumerate(ends)])
        told = "documents"
    elif kind != "image" and 4 * math.prod(rows.shape) > LARGEST:
        notice(f"rows: {4 * math.prod(rows.shape) >> 30} GB are not searched for copies")
        return np.arange(rows.shape[0])
    else:
        first = first_copies(items if kind == "image" else rows)
        told = "images" if kind == "image" else "rows"
    copies = int(((first != np.arange(len(first))) & filled).sum())
    if copies and getattr(rows, "about", {}).get("positions", 1) == 1:  # else rows of one image
        notice(f"{copies} of {len(first)} {told} are copies of others; copies are on one side of the split")
    return first[items.documents()] if kind == "text" else first


def _held_documents(sizes: np.ndarray, wanted: int, draw: np.random.Generator) -> np.ndarray | None:
    """Which documents [c] to hold out for about `wanted` rows, given their sizes; None where none will do."""
    if (sizes > 0).sum() < FEW_DOCUMENTS:
        return None
    order = draw.permutation(len(sizes))
    reach = sizes[order].cumsum()
    number = max(1, int(np.searchsorted(reach, wanted)))
    held = np.zeros(len(sizes), dtype=bool)
    held[order[:number]] = True
    if wanted / 2 <= sizes[held].sum() <= 2 * wanted:
        return held
    # A long document is in the way: those that are short enough, in the same order.
    held[:] = False
    total = 0
    for one in order:
        if total + sizes[one] <= 2 * wanted and total < wanted / 2:
            held[one] = True
            total += sizes[one]
    return held if total >= wanted / 2 else None


def all_rows(cell: Cell) -> tuple[Rows, Any]:
    """Every row of a cell's data, as its features saw them, and how to show them."""
    rows = cell.world.open()
    items = rows.items
    train, _ = split_rows(rows, cell.test, items)
    return cell.world.transformed(rows, train), items


def split(cell: Cell) -> Split:
    """The rows of a cell; raises `UsageError` where there are fewer than asked for."""
    world, seed = cell.world, Stream(cell.seed)
    if world.kind == "Data":
        rows = world.open()
        train, test = split_rows(rows, cell.test, rows.items)
        rows = world.transformed(rows, train)
        if cell.samples is not None:
            if cell.samples > len(train):
                raise UsageError(f"samples={cell.samples}: only {len(train)} rows to fit on")
            train = np.sort(seed.child("samples").numpy().choice(train, cell.samples, replace=False))
        return Split(Subset(rows, train), rows.take(test))
    train = world.sample(cell.samples, seed.child("train"))
    test = world.held_out.sample(cell.test, seed.child("test"))
    h, h_test = (s.h if s.h is not None else s.x for s in (train, test))
    truth = world.atoms if "atoms" in world.provides else None
    return Split(ArrayRows(h, check=False), h_test, test.z, truth, world.parents)


def swapped(cell: Cell, features: Features, part: Split) -> Features:
    """The fitted features with the cell's encoder at the cell's sparsity, fitted on the rows to fit on only."""
    if cell.encoder is None:
        return features
    encoder, rng = cell.encoder, Stream(cell.seed).child("encoder")
    if cell.l0 is not None:
        encoder = at_sparsity(encoder, features, part.train, cell.l0, rng)
    fit = encoder.needs_rows and not encoder.learns_as(features.encoder.recipe)
    rows = part.train if fit else None
    return replace(features, encoder=encoder, rows=rows, rng=rng)


def measure(cell: Cell, features: Features, part: Split) -> dict[str, Any]:
    """What is stored of a cell: facts and, for every score, value, chance, ceiling, interval and what they say."""
    used = swapped(cell, features, part)
    codes = used.encode(part.test, cost=True)
    inputs = Inputs(codes, part.z, part.test, used.decode(codes), used.atoms, part.truth, parents=part.parents)
    outcomes: dict[str, Outcome] = {
        name: SCORES[name]().measure(inputs, Stream(cell.seed).child("scores")) for name in cell.scores
    }
    about = features.about
    return {
        "world": world_label(cell.world),
        "samples": part.train.shape[0],
        "finder": cell.finder.kind,
        "encoder": used.encoder.recipe.kind,
        "amortised": used.encoder.recipe.amortised,
        "own": cell.encoder is None,
        "seed": cell.seed,
        "target_l0": cell.l0,
        "encode_flops": float(codes.cost.mean()),  # type: ignore[union-attr]
        "certificate": None if codes.certificate is None else float(codes.certificate.max()),
        "fit_flops": about.get("flops"),
        "fit_seconds": about.get("seconds"),
        "scores": {name: _stored(outcome) for name, outcome in outcomes.items()},
    }


def _stored(outcome: Outcome) -> dict[str, float | bool | None]:
    numbers = {
        "value": outcome.value,
        "chance": outcome.chance,
        "ceiling": outcome.ceiling,
        "low": outcome.interval[0],
        "high": outcome.interval[1],
        "corrected": outcome.corrected,
        **({"minimum": float(outcome.detail["minimum"])} if "minimum" in outcome.detail else {}),
    }
    known: dict[str, float | bool | None] = {k: None if math.isnan(v) else v for k, v in numbers.items()}
    return {**known, "at_chance": outcome.at_chance}
