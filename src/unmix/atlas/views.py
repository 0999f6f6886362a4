"""Views: how the rows of each kind of items are shown, and which of them a feature's page shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from unmix.atlas.payload import png, rounded, sheet, shrunk, write_script
from unmix.core.items import ImageItems, TextItems, VectorItems

PER_DOCUMENT = 3  # contexts from one document, unless there are not enough documents
ALIKE = (5, 3)  # contexts that agree in so many tokens before and after theirs count as the same
LOOK = 4000  # candidates looked at for one list; repeats beyond this many leave the list shorter
COMMON = 16  # tokens or labels listed for a feature
SHEET_COLUMNS = 32


class View(Protocol):
    """Shows rows of one kind of items."""

    facts: dict[str, Any]
    silent: bool  # whether rows where a feature does not fire are worth showing

    def document(self, row: int) -> int: ...

    def fresh(self, row: int, shown: Shown) -> bool: ...

    def context(self, row: int, activations: np.ndarray) -> list[Any]: ...

    def common(self, rows: np.ndarray, values: np.ndarray) -> list[list[Any]]: ...

    def end_chunk(self, folder: Path, number: int) -> None: ...

    def end(self, folder: Path) -> None: ...


class Shown:
    """What one feature's page shows already, so that nothing is shown twice."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.spans: list[tuple[int, int]] = []
        self.contents: set[bytes] = set()

    def choose(self, candidates: np.ndarray, limit: int) -> list[int]:
        """The first `limit` rows that show something new, at most three of one document unless there are too few."""
        taken: list[tuple[int, int]] = []
        crowded: list[tuple[int, int]] = []
        documents: Counter[int] = Counter()
        for rank, row in enumerate(candidates[:LOOK].tolist()):
            if len(taken) == limit:
                break
            document = self.view.document(row)
            if document >= 0 and documents[document] >= PER_DOCUMENT:
                crowded.append((rank, row))
            elif self.view.fresh(row, self):
                taken.append((rank, row))
                documents[document] += 1
        for rank, row in crowded:
            if len(taken) == limit:
                break
            if self.view.fresh(row, self):
                taken.append((rank, row))
        return [row for _, row in sorted(taken)]

    def new_content(self, content: bytes) -> bool:
        """Whether this content was not shown before; it counts as shown from now on."""
        if content in self.contents:
            return False
        self.contents.add(content)
        return True


class Names:
    """Short numbers for the texts that are really used, in order of first use."""

    def __init__(self) -> None:
        self.numbers: dict[int, int] = {}

    def __getitem__(self, key: int) -> int:
        return self.numbers.setdefault(key, len(self.numbers))


def grouped(keys: np.ndarray, values: np.ndarray, totals: np.ndarray) -> Iterable[tuple[int, int, float, float]]:
    """Keys by summed magnitude, largest first: (key, count, share of the key's rows, mean value)."""
    kinds, inverse = np.unique(keys, return_inverse=True)
    counts = np.bincount(inverse)
    sums = np.bincount(inverse, values)
    weight = np.bincount(inverse, np.abs(values))
    for i in np.argsort(-weight, kind="stable")[:COMMON]:
        yield int(kinds[i]), int(counts[i]), counts[i] / totals[kinds[i]], sums[i] / counts[i]


class TextView:
    """Tokens in a window of their document, every token with the feature's activation there."""

    silent = False

    def __init__(self, items: TextItems, before: int = 12, after: int = 8) -> None:
        self.items, self.tokens, self.titles = items, Names(), Names()
        self.stream, self.places = np.asarray(items.stream), np.asarray(items.places)
        self.documents = items.documents()
        starts = np.asarray(items.starts)
        self.firsts = np.maximum(starts[self.documents], self.places - before)
        self.lasts = np.minimum(starts[self.documents + 1], self.places + after + 1)
        self.row_of = np.full(len(self.stream), -1, np.int64)
        self.row_of[self.places] = np.arange(len(self.places))
        self.ids = self.stream[self.places]
        self.totals = np.bincount(self.ids, minlength=len(items.vocabulary))
        self.facts: dict[str, Any] = {"documents": len(items.titles)}

    def document(self, row: int) -> int:
        """Number of the row's document."""
        return int(self.documents[row])

    def fresh(self, row: int, shown: Shown) -> bool:
        """Whether the row lies in no window shown so far and reads differently from all of them around its token."""
        place, first, last = int(self.places[row]), int(self.firsts[row]), int(self.lasts[row])
        if any(a <= place < b for a, b in shown.spans):
            return False
        if not shown.new_content(
            self.stream[max(first, place - ALIKE[0]) : min(last, place + ALIKE[1] + 1)].tobytes()
        ):
            return False
        shown.spans.append((first, last))
        return True

    def context(self, row: int, activations: np.ndarray) -> list[Any]:
        """[row, value, title, centre, tokens, (offset, value) of every activation, offsets without a row]."""
        first, last = int(self.firsts[row]), int(self.lasts[row])
        rows = self.row_of[first:last]
        values = np.where(rows >= 0, activations[rows], 0)
        marks: list[Any] = []
        for offset in np.flatnonzero(values).tolist():
            marks += [offset, rounded(values[offset], 3)]
        return [
            row,
            rounded(activations[row]),
            self.titles[self.document(row)],
            int(self.places[row]) - first,
            [self.tokens[i] for i in self.stream[first:last].tolist()],
            marks,
            np.flatnonzero(rows < 0).tolist(),
        ]

    def common(self, rows: np.ndarray, values: np.ndarray) -> list[list[Any]]:
        """Tokens the feature fires most on: [token, rows, share of the token's rows, mean activation]."""
        found = grouped(self.ids[rows], values, self.totals)
        return [[self.tokens[key], count, rounded(share, 3), rounded(mean)] for key, count, share, mean in found]

    def end_chunk(self, folder: Path, number: int) -> None:
        """Nothing: all texts are written at the end."""

    def end(self, folder: Path) -> None:
        """Write the tokens and titles that were used."""
        tokens = [self.items.vocabulary[key] for key in self.tokens.numbers]
        titles = [self.items.titles[key] for key in self.titles.numbers]
        write_script(folder, "texts", {"tokens": tokens, "titles": titles})


class ImageView:
    """Pictures, gathered on one sheet for each chunk of features."""

    silent = True

    def __init__(self, items: ImageItems) -> None:
        self.items, self.slots, self.tokens = items, Names(), Names()
        height, width = shrunk(np.asarray(items.images[:1])).shape[1:3]
        self.facts: dict[str, Any] = {"picture": [width, height, SHEET_COLUMNS]}
        if items.labels is not None:
            names = sorted(set(items.labels))
            self.names, order = names, {name: i for i, name in enumerate(names)}
            self.ids = np.array([order[label] for label in items.labels])
            self.totals = np.bincount(self.ids, minlength=len(names))

    def document(self, row: int) -> int:
        """-1: pictures have no document."""
        return -1

    def fresh(self, row: int, shown: Shown) -> bool:
        """Whether the same picture was not shown so far."""
        return shown.new_content(self.items.images[row].tobytes())

    def context(self, row: int, activations: np.ndarray) -> list[Any]:
        """[row, value, place on the sheet, label]."""
        label = None if self.items.labels is None else self.tokens[int(self.ids[row])]
        return [row, rounded(activations[row]), self.slots[row], label]

    def common(self, rows: np.ndarray, values: np.ndarray) -> list[list[Any]]:
        """Labels the feature fires most on: [label, rows, share of the label's rows, mean activation]."""
        if self.items.labels is None:
            return []
        found = grouped(self.ids[rows], values, self.totals)
        return [[self.tokens[key], count, rounded(share, 3), rounded(mean)] for key, count, share, mean in found]

    def end_chunk(self, folder: Path, number: int) -> None:
        """Write the chunk's sheet of pictures."""
        rows = np.fromiter(self.slots.numbers, dtype=np.int64)
        self.slots = Names()
        if len(rows):
            pictures = shrunk(np.asarray(self.items.images[rows]))
            (folder / f"rows-{number:03d}.png").write_bytes(png(sheet(pictures, SHEET_COLUMNS)))

    def end(self, folder: Path) -> None:
        """Write the labels that were used."""
        labels = [self.names[key] for key in self.tokens.numbers]
        write_script(folder, "texts", {"tokens": labels, "titles": []})


class VectorView:
    """Rows of which only the number is known."""

    silent = False

    def __init__(self, items: VectorItems) -> None:
        self.numbers = np.asarray(items.numbers)
        self.facts: dict[str, Any] = {}

    def document(self, row: int) -> int:
        """-1: numbers have no document."""
        return -1

    def fresh(self, row: int, shown: Shown) -> bool:
        """Whether the same row was not shown so far."""
        return shown.new_content(row.to_bytes(8, "little"))

    def context(self, row: int, activations: np.ndarray) -> list[Any]:
        """[number, value]."""
        return [int(self.numbers[row]), rounded(activations[row])]

    def common(self, rows: np.ndarray, values: np.ndarray) -> list[list[Any]]:
        """Nothing."""
        return []

    def end_chunk(self, folder: Path, number: int) -> None:
        """Nothing."""

    def end(self, folder: Path) -> None:
        """Write empty tables, for the page reads them for every kind."""
        write_script(folder, "texts", {"tokens": [], "titles": []})


def view_of(items: TextItems | ImageItems | VectorItems) -> View:
    """The view for a kind of items."""
    if isinstance(items, TextItems):
        return TextView(items)
    return ImageView(items) if isinstance(items, ImageItems) else VectorView(items)
