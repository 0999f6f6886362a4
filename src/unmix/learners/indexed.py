"""Numbers of data for users of torch's DataLoader."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.utils.data import ConcatDataset, Dataset, IterableDataset

from unmix.core.errors import UsageError


class Indexed(Dataset[tuple[Any, ...]]):
    """A dataset whose items carry their own number: (x, ..., number), the number last.

    dataset: with a length and items by place; an item that is no tuple becomes (item, number). first: number of its
    first item. The number belongs to the item: it is the same in every epoch, order, worker and process, and in a
    `Subset` of this dataset. Numbers of a `ConcatDataset` of several are unlike where `first` counts on, which
    `Indexed.joined` sees to. Wrap before taking a subset: `Subset(Indexed(data), ...)` keeps the numbers of the
    whole, `Indexed(Subset(data, ...))` counts the subset from 0.
    Raises `UsageError` for a dataset without places.
    """

    def __init__(self, dataset: Any, first: int = 0) -> None:
        if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
            raise UsageError("dataset: needs a length and items by place; a stream has no numbers that stay")
        if first < 0:
            raise UsageError(f"first={first}: must be at least 0")
        self.dataset, self.first = dataset, first

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, place: int) -> tuple[Any, ...]:
        count = len(self)
        if not -count <= place < count:
            raise IndexError(f"place {place} of {count}")
        place = int(place) % count
        item = self.dataset[place]
        own = tuple(item) if isinstance(item, tuple | list) else (item,)
        return (*own, self.first + place)

    @property
    def classes(self) -> int:
        """Rows that a head needs for these numbers."""
        return self.first + len(self)

    @staticmethod
    def joined(datasets: Sequence[Any]) -> ConcatDataset[tuple[Any, ...]]:
        """A `ConcatDataset` of datasets whose numbers count on from one to the next."""
        made: list[Indexed] = []
        for dataset in datasets:
            made.append(Indexed(dataset, made[-1].classes if made else 0))
        return ConcatDataset(made)
