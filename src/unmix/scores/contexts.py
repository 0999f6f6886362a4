"""Contexts of a feature in text: where it fires most, and where it does not, from several sources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from unmix.core.codes import Codes
from unmix.core.items import TextItems
from unmix.core.scale import unit
from unmix.core.seeds import Stream
from unmix.scores.judging.base import Context

Pool = list[tuple[int, Iterator[int]]]  # (the neighbour that fires there or -1, rows), several neighbours in turn

SOURCES = ("random", "neighbour", "token")
NEIGHBOURS = 10  # close atoms that contexts of neighbours come from
PER_DOCUMENT = 3  # contexts of one document, where there are several documents
ALIKE = (5, 3)  # windows that agree in so many tokens before and after the middle count as the same
LOOK = 20_000  # candidates looked at for one list
MARKED = 0.3  # a token is marked where its activation is above this share of the window's largest


class Firing:
    """Where each feature is above zero: rows and values of one feature at a time, from codes kept sparse."""

    def __init__(self, codes: Codes) -> None:
        rows, columns, values = (part.cpu() for part in codes.nonzero())
        keep = values > 0
        rows, columns, values = rows[keep], columns[keep], values[keep]
        order = torch.argsort(columns, stable=True)
        self._rows, self._values = rows[order].numpy(), values[order].float().numpy()
        self.counts = torch.bincount(columns, minlength=codes.width).numpy()
        self._ends = np.concatenate([[0], np.cumsum(self.counts)])
        self.shape = codes.shape

    def __getitem__(self, feature: int) -> tuple[np.ndarray, np.ndarray]:
        part = slice(self._ends[feature], self._ends[feature + 1])
        return self._rows[part], self._values[part]


@dataclass(frozen=True)
class Drawn:
    """The row in the middle of a window where a feature is silent, and where it came from.

    source: random, neighbour or token. owner: the neighbouring feature that fires there, else -1.
    """

    row: int
    source: str
    owner: int = -1


@dataclass(frozen=True)
class Chosen:
    """One feature's contexts, by the row in the middle; no two windows overlap.

    explained, scored: where it fires; no document is in both, where the text has several. contrast, negatives: where
    it does not, as many as explained and as scored.
    """

    explained: tuple[int, ...]
    scored: tuple[int, ...]
    contrast: tuple[Drawn, ...]
    negatives: tuple[Drawn, ...]

    @property
    def shares(self) -> dict[str, float]:
        """Share of each source in the negatives."""
        counts = Counter(drawn.source for drawn in self.negatives)
        return {name: counts[name] / max(1, len(self.negatives)) for name in SOURCES}


class Windows:
    """Windows around the rows of a text, and the choice among them.

    items: tokens of documents. firing: activations of the same rows. atoms: [m, d], for neighbours.
    before, after: tokens of a window on either side of its row.
    """

    def __init__(self, items: TextItems, firing: Firing, atoms: Tensor, before: int, after: int) -> None:
        self.items, self.firing = items, firing
        self.atoms = unit(atoms.detach().cpu()).float()
        self.stream, self.places = np.asarray(items.stream), np.asarray(items.places).astype(np.int64)
        starts = np.asarray(items.starts).astype(np.int64)
        self.documents = items.documents()
        self.first = np.maximum(starts[self.documents], self.places - before)
        self.last = np.minimum(starts[self.documents + 1], self.places + after + 1)
        self.ids = self.stream[self.places]
        self.several = len(self.documents) > 0 and bool((self.documents != self.documents[0]).any())
        self._used = np.zeros(len(self.stream), dtype=bool)

    def choose(
        self, feature: int, count: int, least: int, parts: Mapping[str, float], spread: bool, rng: Stream
    ) -> Chosen | str:
        """Contexts of a feature, or in a few words why it has none.

        count: contexts where it fires, at least `least`. parts: how the negatives divide among the sources; what a
        source lacks is filled up at random. spread: draw evenly over the ranks of its activations, not from the top.
        """
        draft = _Draft(self)
        try:
            return self._choose(draft, feature, count, least, parts, spread, rng)
        finally:
            draft.clear()

    def _choose(
        self,
        draft: _Draft,
        feature: int,
        count: int,
        least: int,
        parts: Mapping[str, float],
        spread: bool,
        rng: Stream,
    ) -> Chosen | str:
        where, values = self.firing[feature]
        order = where[_falling(values, rng.child("ties"))]
        if spread:
            # Golden steps: every beginning of the list is spread evenly over the ranks of the activations.
            order = order[np.argsort((np.arange(len(order)) * 0.6180339887498949) % 1, kind="stable")]
        found = list(islice(draft.fresh(order, PER_DOCUMENT if self.several else None), count))
        if len(found) < least:
            return "too few contexts"
        explained, scored = self._halves(found, rng.child("halves"))
        if not explained or not scored:
            return "contexts of one document only"
        fires = np.sort(self.places[where])
        silent = np.searchsorted(fires, self.first) == np.searchsorted(fires, self.last)
        pools = {name: self._pool(draft, name, feature, silent, rng) for name in ("random", "neighbour")}
        # Tokens of the half that is asked about: negatives around explained tokens would be worse than chance to
        # a judge of noise, because it has just learnt these.
        negatives = _draw({**pools, "token": self._around(draft, scored, silent, rng)}, len(scored), parts)
        contrast = _draw({**pools, "token": self._around(draft, explained, silent, rng)}, len(explained), parts)
        if len(negatives) < len(scored) or not contrast:
            return "too few contexts without it"
        return Chosen(tuple(explained), tuple(scored), tuple(contrast), tuple(negatives))

    def _halves(self, found: list[int], rng: Stream) -> tuple[list[int], list[int]]:
        """Two halves of about the same size; a document is in one of them, where there are several documents."""
        groups: dict[int, list[int]] = {}
        for row in found:
            groups.setdefault(int(self.documents[row]) if self.several else row, []).append(row)
        shuffled = [list(groups.values())[i] for i in rng.numpy().permutation(len(groups))]
        halves: tuple[list[int], list[int]] = ([], [])
        for group in sorted(shuffled, key=len, reverse=True):
            halves[len(halves[0]) > len(halves[1])].extend(group)
        return halves

    def _pool(self, draft: _Draft, source: str, feature: int, silent: np.ndarray, rng: Stream) -> Pool:
        """Fresh silent rows: of every neighbour, strongest first, or of all rows, shuffled."""
        if source == "random":
            return [(-1, draft.fresh(rng.child(source).numpy().permutation(np.flatnonzero(silent))))]
        pool: Pool = []
        for other in self.neighbours(feature):
            rows, values = self.firing[other]
            quiet = silent[rows]
            pool.append((other, draft.fresh(rows[quiet][_falling(values[quiet], rng.child(f"ties {other}"))])))
        return pool

    def _around(self, draft: _Draft, rows: list[int], silent: np.ndarray, rng: Stream) -> Pool:
        """Fresh silent rows that have the token of one of `rows`, shuffled: one for each of these in turn.

        Tokens are then as frequent as among `rows`. Drawn from all rows that have one of them, frequent ones would be
        more frequent still, and a judge of noise worse than chance.
        """
        draw, own = rng.child("token").numpy(), self.ids[rows]
        inside = draw.permutation(np.flatnonzero(silent & np.isin(self.ids, own)))
        ids = self.ids[inside]
        order = np.argsort(ids, kind="stable")
        turn = np.empty(len(ids))
        turn[order] = np.arange(len(ids)) - np.searchsorted(ids[order], ids[order])
        rounds = turn // (ids[:, None] == own).sum(1)
        return [(-1, draft.fresh(inside[np.lexsort((draw.random(len(ids)), rounds))]))]

    def neighbours(self, feature: int) -> list[int]:
        """The features that fire and have the atoms closest by |cosine|, nearest first."""
        cosines = (self.atoms @ self.atoms[feature]).abs().numpy()
        cosines[feature] = -1
        cosines[self.firing.counts == 0] = -1
        order = np.argsort(-cosines, kind="stable")[:NEIGHBOURS]
        return [int(other) for other in order if cosines[other] >= 0]

    def example(self, feature: int, row: int, seen: bool = True) -> Context:
        """The window of a row with the tokens marked where a feature fires; `seen` shows its activations too."""
        first, last = int(self.first[row]), int(self.last[row])
        where, values = self.firing[feature]
        order = np.argsort(self.places[where], kind="stable")
        low, high = np.searchsorted(self.places[where][order], [first, last])
        inside = np.zeros(last - first, dtype=np.float32)
        inside[self.places[where][order[low:high]] - first] = values[order[low:high]]
        marks = (
            np.flatnonzero(inside > MARKED * inside.max()) if len(inside) and inside.max() > 0 else np.zeros(0, int)
        )
        shown = tuple(float(value) for value in inside) if seen else None
        return Context(self._tokens(first, last), tuple(int(i) for i in marks), shown, row)

    def silent(self, drawn: Drawn, marks: int, rng: Stream) -> Context:
        """The window of a negative, marked where its neighbour fires, else at its middle and `marks` - 1 places."""
        if drawn.owner >= 0:
            return self.example(drawn.owner, drawn.row, seen=False)
        first, last = int(self.first[drawn.row]), int(self.last[drawn.row])
        middle = int(self.places[drawn.row]) - first
        others = rng.numpy().permutation(np.delete(np.arange(last - first), middle))[: max(0, marks - 1)]
        return Context(self._tokens(first, last), tuple(sorted([middle, *(int(i) for i in others)])), None, drawn.row)

    def background(self, count: int, rng: Stream) -> list[Context]:
        """Windows drawn without regard to any feature."""
        rows = rng.numpy().permutation(len(self.places))[:count]
        return [Context(self._tokens(int(self.first[r]), int(self.last[r])), (), None, int(r)) for r in rows]

    def _tokens(self, first: int, last: int) -> tuple[str, ...]:
        return tuple(self.items.vocabulary[int(token)] for token in self.stream[first:last])


class _Draft:
    """The windows one feature has taken so far, so that none overlaps or repeats another."""

    def __init__(self, windows: Windows) -> None:
        self.windows, self.rows = windows, list[int]()
        self.contents: set[bytes] = set()
        self.documents: Counter[int] = Counter()

    def fresh(self, candidates: Iterable[int], per_document: int | None = None) -> Iterator[int]:
        """The candidates that neither overlap nor repeat a window taken before; each counts as taken once given."""
        w = self.windows
        for row in islice((int(row) for row in candidates), LOOK):
            place, first, last = int(w.places[row]), int(w.first[row]), int(w.last[row])
            document = int(w.documents[row])
            if w._used[first:last].any():
                continue
            if per_document is not None and self.documents[document] >= per_document:
                continue
            content = w.stream[max(first, place - ALIKE[0]) : min(last, place + ALIKE[1] + 1)].tobytes()
            if content in self.contents:
                continue
            self.contents.add(content)
            self.documents[document] += 1
            self.rows.append(row)
            w._used[first:last] = True
            yield row

    def clear(self) -> None:
        """Let the windows be taken again by another feature."""
        for row in self.rows:
            self.windows._used[self.windows.first[row] : self.windows.last[row]] = False


def _falling(values: np.ndarray, rng: Stream) -> np.ndarray:
    """Places of values [n] from the largest on, equal ones in random order: rows come by document."""
    return np.lexsort((rng.numpy().random(len(values)), -values))


def divided(parts: Mapping[str, float], count: int) -> dict[str, int]:
    """`count` in whole numbers proportional to `parts` (largest remainders)."""
    total = sum(parts.values())
    exact = {name: count * part / total for name, part in parts.items()}
    numbers = {name: int(value) for name, value in exact.items()}
    for name in sorted(exact, key=lambda n: (numbers[n] - exact[n], n))[: count - sum(numbers.values())]:
        numbers[name] += 1
    return numbers


def _draw(pools: Mapping[str, Pool], count: int, parts: Mapping[str, float]) -> list[Drawn]:
    """`count` silent contexts divided among the sources, neighbours in turn; what a source lacks is random."""
    drawn: list[Drawn] = []
    for source, number in divided(parts, count).items():
        waiting = list(pools[source])
        while waiting and number:
            owner, rows = waiting.pop(0)
            if (row := next(rows, None)) is not None:
                drawn.append(Drawn(row, source, owner))
                waiting.append((owner, rows))
                number -= 1
    for owner, rows in pools["random"]:
        drawn += [Drawn(row, "random", owner) for row in islice(rows, count - len(drawn))]
    return drawn
