"""Similarity: a recipe that is bound to images and then compares any of them by number."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from unmix.core.copies import contents
from unmix.core.errors import UsageError
from unmix.core.labels import numbered, plain
from unmix.core.recipe import Recipe
from unmix.core.rows import as_tensor, require_finite
from unmix.core.scale import unit
from unmix.scores.similarity.circular import Span, told
from unmix.scores.similarity.images import as_images

Rule = Literal["cosine", "distance"]
_BLOCK = 1 << 24  # numbers gathered at once


@dataclass(frozen=True, eq=False)
class Alike:
    """n images that can be compared: vectors [n, p] and a rule.

    "cosine": s(i, j) = <e_i, e_j>, rows of unit norm (a row of zeros is like nothing); "distance": s = -|e_i - e_j|.
    compare: a rule of its own, from vectors [..., a, p] and [..., b, p] to [..., a, b]; then `rule` says nothing.
    given: the embedding as it was given, so that a feature is never judged by itself; None where images were
    measured. content: [n] a number for what each image shows, equal for copies, so that they count once; its order is
    that in which images are drawn. None: all differ, in the order given. seen: whether the images themselves were
    there; where only an embedding was, copies must have the same activations too.
    """

    vectors: Tensor
    rule: Rule = "cosine"
    name: str = ""
    given: Tensor | None = None
    compare: Callable[[Tensor, Tensor], Tensor] | None = None
    content: Tensor | None = None
    seen: bool = True

    def __len__(self) -> int:
        return len(self.vectors)

    def take(self, rows: Any) -> Alike:
        """Only these images, in the order given."""
        index = torch.as_tensor(rows, dtype=torch.long)
        given = None if self.given is None else self.given[index]
        content = None if self.content is None else self.content[index]
        return dataclasses.replace(self, vectors=self.vectors[index], given=given, content=content)

    @cached_property
    def different(self) -> tuple[Alike, np.ndarray, np.ndarray]:
        """The u different images in order of content; numbers [u] of the first of each; which of them each is [n]."""
        if self.content is None:
            return self, np.arange(len(self)), np.arange(len(self))
        _, first, group = np.unique(self.content.numpy(), return_index=True, return_inverse=True)
        return self.take(first), first, group.reshape(-1)

    def told_apart(self, activations: Tensor) -> Alike:
        """The same, where images of equal content with unlike activations [n, m] are no copies of one another."""
        assert self.content is not None
        both = np.stack([self.content.numpy(), contents(activations)])
        content = np.unique(both, axis=1, return_inverse=True)[1].reshape(-1)
        return dataclasses.replace(self, content=torch.from_numpy(content), seen=True)

    @cached_property
    def span(self) -> Span | None:
        """The space of the embedding that was given."""
        return None if self.given is None else Span.of(self.given)

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
        if self.rule == "cosine":
            return one @ two.transpose(-1, -2)
        return -torch.cdist(one, two, compute_mode="donot_use_mm_for_euclid_dist")  # the fast way cancels

    @property
    def is_cosine(self) -> bool:
        """Whether similarities are products of the vectors."""
        return self.rule == "cosine" and self.compare is None

    def cosine(self) -> Alike:
        """Itself, for what only holds with cosines. Raises `UsageError` for another rule."""
        if not self.is_cosine:
            raise UsageError(f"similarity={self.name}: this score needs a cosine; give one such as OrientedEnergy")
        return self

    @property
    def unit(self) -> Tensor:
        """The vectors [n, p] of a cosine. Raises `UsageError` for another rule."""
        return self.cosine().vectors

    def guard(self, activations: Tensor) -> None:
        """Raise `UsageError` where the activations [n, m] are of other images, or what these are compared by.

        That is so where some of the activations are an affine function of the embedding that was given, or all of it
        of them, up to rounding (an R2 above .999 with as many rows more as that takes, see `circular.told`).
        """
        if len(activations) != len(self):
            raise UsageError(f"similarity: of {len(self)} images, the activations have {len(activations)} rows")
        if self.given is None:
            return
        alike, first, _ = self.different
        assert alike.given is not None and alike.span is not None
        if words := told(activations[torch.from_numpy(first)], alike.given, alike.span):
            raise UsageError(
                f"similarity={self.name}: {words}, which proves nothing; compare the images by something else"
            )


class Similarity(Recipe):
    """How alike images are; its one verb is `bind`. needs_weights: whether learnt weights stand behind it."""

    needs_weights: ClassVar[bool] = False

    @abstractmethod
    def bind(self, images: Any) -> Alike:
        """The images, ready to be compared; copies are found by their content.

        images: `ImageItems`, uint8 [n, h, w] or [n, h, w, 1 or 3], or floats [n, h, w] or [n, 1 or 3, h, w].
        Raises `UsageError` for anything else, and for NaN.
        """


class Measured(Similarity):
    """A similarity that is computed from the images; what it takes over all of them, it takes over different ones."""

    def bind(self, images: Any) -> Alike:
        given, content = as_images(images), contents(images)
        _, first, group = np.unique(content, return_index=True, return_inverse=True)
        alike = self._bind(given) if len(first) == len(given) else self._bind(given[first]).take(group)
        return dataclasses.replace(alike, name=str(self), content=torch.from_numpy(content))

    @abstractmethod
    def _bind(self, images: Tensor) -> Alike: ...


def unit_rows(vectors: Tensor) -> Tensor:
    """Rows [n, p] of unit norm, float32, whatever their scale; a row of zeros stays."""
    return unit(vectors).float()


def embedded(vectors: Any, rule: Rule = "cosine", name: str = "embedding", images: Any = None) -> Alike:
    """Images compared by an embedding that is there already: vectors [n, p], one row for each image.

    images: the n images, as `Similarity.bind` takes them, so that copies are found by their content; without them,
    images with equal vectors and equal activations are taken for copies, unless the vectors are of classes (they have
    fewer numbers than there are different rows). Raises `UsageError` for another shape, NaN, or other images.
    """
    given = as_tensor(vectors, name)
    while given.ndim > 2 and given.shape[-1] == 1:
        given = given[..., 0]  # maps of one place
    if given.ndim != 2 or not given.numel():
        more = "; average it over what is between first" if given.ndim > 2 else ""
        raise UsageError(f"{name}: must be [images, columns], got {list(given.shape)}{more}")
    require_finite(given, name)
    content = _contents_of(given, rule) if images is None else contents(images)
    _as_many(given, len(content), name)
    held = unit_rows(given) if rule == "cosine" else (given.double() - given.double().mean(0)).float()
    return Alike(held, rule, name, given, content=torch.from_numpy(content), seen=images is not None)


def labelled(labels: Any) -> Alike:
    """Images that are alike (1) where they have the same label and not (0) where they differ, or one has none.

    labels: [n], as `core.labels.plain` takes them.
    """
    numbers, names = numbered(plain(labels))
    one_hot = torch.zeros(len(numbers), len(names))
    one_hot[numbers >= 0, numbers[numbers >= 0]] = 1
    return Alike(one_hot, "cosine", "label", content=torch.from_numpy(_apart(numbers)))


def _as_many(given: Tensor, n: int, name: str) -> None:
    if len(given) == n:
        return
    turned = f", but {n} columns: turn it round" if given.shape[1] == n else ""
    raise UsageError(
        f"{name}: has {len(given)} rows for {n} images{turned}; it takes one row for each image, in their order"
    )


def _contents_of(given: Tensor, rule: Rule) -> np.ndarray:
    """Numbers for the rows of an embedding, in an order that neither their own nor a rotation of it changes."""
    _, first, group, count = np.unique(contents(given), return_index=True, return_inverse=True, return_counts=True)
    rows = given[torch.from_numpy(first)].double()
    if rule == "cosine":
        rows = torch.nn.functional.normalize(rows, eps=1e-300)
        key = rows @ rows.mean(0)
    else:
        key = (rows - rows.mean(0)).norm(dim=1)
    place = np.empty(len(first), np.int64)
    place[np.argsort(key.numpy(), kind="stable")] = np.arange(len(first))
    again = given[torch.from_numpy(first[count > 1])]
    of_classes = len(again.unique()) <= len(again)
    return _apart(place[group]) if of_classes and len(again) else place[group]


def _apart(numbers: np.ndarray) -> np.ndarray:
    """Different numbers in the same order: equal ones follow one another as they stand."""
    found = np.empty(len(numbers), np.int64)
    found[np.argsort(numbers, kind="stable")] = np.arange(len(numbers))
    return found
