"""Similarity: a recipe that is bound to images and then compares any of them by number."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from unmix.core.digest import array_digest
from unmix.core.errors import UsageError
from unmix.core.recipe import Recipe
from unmix.core.rows import as_tensor, require_finite
from unmix.scores.similarity.images import as_images

Rule = Literal["cosine", "distance"]
_BLOCK = 1 << 24  # numbers gathered at once


@dataclass(frozen=True, eq=False)
class Alike:
    """n images that can be compared: vectors [n, p] and a rule.

    "cosine": s(i, j) = <e_i, e_j>, rows of unit norm (a row of zeros is like nothing); "distance": s = -|e_i - e_j|.
    compare: a rule of its own, from vectors [..., a, p] and [..., b, p] to [..., a, b]; then `rule` says nothing.
    given: the embedding as it was given, so that a feature is never judged by itself; None where images were
    measured.
    """

    vectors: Tensor
    rule: Rule = "cosine"
    name: str = ""
    given: Tensor | None = None
    compare: Callable[[Tensor, Tensor], Tensor] | None = None

    def __len__(self) -> int:
        return len(self.vectors)

    def take(self, rows: Any) -> Alike:
        """Only these images, in the order given."""
        index = torch.as_tensor(rows, dtype=torch.long)
        given = None if self.given is None else self.given[index]
        return dataclasses.replace(self, vectors=self.vectors[index], given=given)

    def within(self, sets: Tensor) -> Tensor:
        """Similarities inside sets [s, k] of image numbers: [s, k, k]."""
        return self.between(sets, sets)

    def between(self, left: Tensor, right: Tensor) -> Tensor:
        """Similarities of images left [s, a] with images right [s, b], set by set: [s, a, b]."""
        size = max(1, (left.shape[1] + right.shape[1]) * self.vectors.shape[1])
        height = max(1, _BLOCK // size)
        parts = [self._between(a, b) for a, b in zip(left.split(height), right.split(height), strict=True)]
        return torch.cat(parts) if parts else self.vectors.new_zeros(0, left.shape[1], right.shape[1])

    def _between(self, left: Tensor, right: Tensor) -> Tensor:
        one, two = self.vectors[left], self.vectors[right]
        if self.compare is not None:
            return self.compare(one, two)
        return one @ two.transpose(-1, -2) if self.rule == "cosine" else -torch.cdist(one, two)

    @property
    def unit(self) -> Tensor:
        """The vectors [n, p], for what only holds with cosines. Raises `UsageError` for another rule."""
        if self.rule != "cosine" or self.compare is not None:
            raise UsageError(f"similarity={self.name}: this score needs a cosine; give one such as OrientedEnergy")
        return self.vectors

    def guard(self, activations: Tensor) -> None:
        """Raise `UsageError` where the activations [n, m] to be scored are what the images are compared by."""
        if len(activations) != len(self):
            raise UsageError(f"similarity: of {len(self)} images, the activations have {len(activations)} rows")
        if self.given is None or self.given.shape != activations.shape:
            return
        if array_digest(self.given.float().cpu()) == array_digest(activations.float().cpu()):
            raise UsageError(
                f"similarity={self.name}: the embedding is the activations that are scored, which proves nothing; "
                "compare the images by something else"
            )


class Similarity(Recipe):
    """How alike images are; its one verb is `bind`. needs_weights: whether learnt weights stand behind it."""

    needs_weights: ClassVar[bool] = False

    def bind(self, images: Any) -> Alike:
        """The images, ready to be compared.

        images: `ImageItems`, uint8 [n, h, w] or [n, h, w, 1 or 3], or floats [n, h, w] or [n, 1 or 3, h, w].
        Raises `UsageError` for anything else, and for NaN.
        """
        return dataclasses.replace(self._bind(as_images(images)), name=str(self))

    @abstractmethod
    def _bind(self, images: Tensor) -> Alike: ...


def unit_rows(vectors: Tensor) -> Tensor:
    """Rows [n, p] of unit norm; a row of zeros stays."""
    return torch.nn.functional.normalize(vectors.float(), eps=1e-12)


def embedded(vectors: Any, rule: Rule = "cosine", name: str = "embedding") -> Alike:
    """Images compared by an embedding that is there already: vectors [n, p], one row for each image.

    Raises `UsageError` for another shape or NaN.
    """
    given = as_tensor(vectors)
    if given.ndim != 2 or not given.numel():
        raise UsageError(f"{name}: must be [images, columns], got {list(given.shape)}")
    require_finite(given, name)
    return Alike(unit_rows(given) if rule == "cosine" else given.float(), rule, name, given)


def labelled(labels: Any) -> Alike:
    """Images that are alike (1) where they have the same label and not (0) where they differ: labels [n]."""
    import numpy as np

    names, places = np.unique(np.asarray(labels), return_inverse=True)
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(places).long(), len(names)).float()
    return Alike(one_hot, "cosine", "label")
