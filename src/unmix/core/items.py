"""Items: how to show row i; tokens in their context, an image, or just a number."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np

from unmix.core.errors import Failure, UsageError
from unmix.core.store import HARMED, read_json, write_json


class Items(Protocol):
    """Shows rows to a person; `kind` is text, image or vector."""

    kind: ClassVar[str]

    def __len__(self) -> int: ...

    def take(self, rows: np.ndarray) -> Items: ...

    def save(self, folder: Path) -> None: ...


@dataclass(frozen=True, eq=False)
class TextItems:
    """Rows that are tokens of documents.

    stream: [t] token ids of all documents one after another, tokens without a row included.
    starts: [documents + 1] where each document begins in the stream.
    places: [n] the place of each row in the stream.
    vocabulary: the text of each token id, as it should be shown ("##" marks a token glued to the one before).
    titles: [documents] a name for each document.
    """

    stream: np.ndarray
    starts: np.ndarray
    places: np.ndarray
    vocabulary: tuple[str, ...]
    titles: tuple[str, ...]
    kind: ClassVar[str] = "text"

    def __len__(self) -> int:
        return len(self.places)

    def document(self, row: int) -> int:
        """Number of the document that row belongs to."""
        return int(np.searchsorted(self.starts, self.places[row], side="right") - 1)

    def documents(self) -> np.ndarray:
        """Number of the document of every row: [n]."""
        return np.searchsorted(self.starts, self.places, side="right") - 1

    def window(self, row: int, before: int = 12, after: int = 8) -> np.ndarray:
        """Places in the stream around a row, inside its own document."""
        place, document = int(self.places[row]), self.document(row)
        first, last = self.starts[document], self.starts[document + 1]
        return np.arange(max(first, place - before), min(last, place + after + 1))

    def text(self, place: int) -> str:
        """The token at a place of the stream, as text."""
        return self.vocabulary[int(self.stream[place])]

    def take(self, rows: np.ndarray) -> TextItems:
        """The same documents with only these rows."""
        return TextItems(self.stream, self.starts, self.places[rows], self.vocabulary, self.titles)

    def save(self, folder: Path) -> None:
        """Write to a folder that exists."""
        for name in ("stream", "starts", "places"):
            np.save(folder / f"{name}.npy", getattr(self, name), allow_pickle=False)
        write_json(folder / "items.json", {"kind": "text", "vocabulary": self.vocabulary, "titles": self.titles})


@dataclass(frozen=True, eq=False)
class ImageItems:
    """Rows that are images: images [n, height, width] or [n, height, width, 3], uint8.

    labels: [n] of text, "" where an image has none, or None. names: [n] of the files that they are from, or None.
    """

    images: np.ndarray
    labels: tuple[str, ...] | None = None
    names: tuple[str, ...] | None = None
    kind: ClassVar[str] = "image"

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: np.ndarray) -> ImageItems:
        """Only these rows."""
        texts = (None if text is None else tuple(text[i] for i in rows) for text in (self.labels, self.names))
        return ImageItems(self.images[rows], *texts)

    def save(self, folder: Path) -> None:
        """Write to a folder that exists."""
        np.save(folder / "images.npy", self.images, allow_pickle=False)
        write_json(folder / "items.json", {"kind": "image", "labels": self.labels, "names": self.names})


@dataclass(frozen=True, eq=False)
class VectorItems:
    """Rows of which only the number is known: numbers [n]."""

    numbers: np.ndarray
    kind: ClassVar[str] = "vector"

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, rows: np.ndarray) -> VectorItems:
        """Only these rows; they keep their numbers."""
        return VectorItems(self.numbers[rows])

    def save(self, folder: Path) -> None:
        """Write to a folder that exists."""
        np.save(folder / "numbers.npy", self.numbers, allow_pickle=False)
        write_json(folder / "items.json", {"kind": "vector"})


def load_items(folder: str | Path) -> TextItems | ImageItems | VectorItems:
    """Items from the folder that `save` wrote; raises `Failure` where a file is cut off."""
    folder = Path(folder)
    facts = read_json(folder / "items.json")

    def array(name: str) -> np.ndarray:
        try:
            return np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            raise Failure(f"{folder / name}.npy: missing; make the activations again") from None
        except HARMED as error:
            raise Failure(f"{folder / name}.npy: not a whole array ({error}); make the activations again") from None

    kind = facts.get("kind") if isinstance(facts, dict) else None
    try:
        if kind == "text":
            titles, vocabulary = tuple(facts["titles"]), tuple(facts["vocabulary"])
            return TextItems(array("stream"), array("starts"), array("places"), vocabulary, titles)
        if kind == "image":
            texts = (None if facts[text] is None else tuple(facts[text]) for text in ("labels", "names"))
            return ImageItems(array("images"), *texts)
    except (KeyError, TypeError) as error:
        raise Failure(f"{folder / 'items.json'}: not whole ({error!r}); make the activations again") from None
    if kind == "vector":
        return VectorItems(array("numbers"))
    raise UsageError(f"{folder}: items of kind {kind!r}; known: text, image, vector")
