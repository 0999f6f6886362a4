"""Labels in training: rows that have none, and what is wrong with a world's labels before anything is trained."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional

from unmix.core.errors import UsageError, notice
from unmix.learners import parallel

UNKNOWN = -1  # the label of a row that has none


def labelled_cross_entropy(logits: Tensor, y: Tensor, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of the rows with a label, 0 where none has, and the share of them that is told right.

    logits: [n, C]. y: [n], `UNKNOWN` for none. The mean is over the labelled rows of all processes.
    """
    known = y != UNKNOWN
    loss = functional.cross_entropy(logits, y, ignore_index=UNKNOWN, label_smoothing=smoothing, reduction="sum")
    return loss / labelled_count(known).to(logits.dtype), (logits.argmax(1) == y)[known].float().mean()


def labelled_count(known: Tensor) -> Tensor:
    """Mean over the processes of their number of labelled rows, which differ; 1 in all at least."""
    return parallel.mean(known.sum().double()).clamp_min(1 / parallel.ranks())


def check_labels(world: Any, classes: int, kind: str) -> None:
    """Raise `UsageError` where labels of training rows cannot be learnt from: none, or a single class.

    classes: as the world says. kind: of the learner, for messages. A `Notice` says how many rows have no label, which
    classes have no row, and where each has a single one.
    """
    labels = getattr(world, "row_labels", None)
    if labels is None:
        if classes < 2:
            raise UsageError(f"{kind}: {world.kind} has one class; there is nothing to tell apart")
        return
    there = labels[labels != UNKNOWN]
    counts = np.bincount(there, minlength=classes)
    names = world.pictures.names
    if not len(there):
        raise UsageError(f"{kind}: none of the {len(labels)} training rows has a label")
    if (counts > 0).sum() < 2:
        raise UsageError(f"{kind}: all {len(there)} labelled training rows are {names[there[0]]}; give two classes")
    if len(there) < len(labels):
        notice(f"{kind}: {len(labels) - len(there)} of {len(labels)} training rows have no label and teach no class")
    if len(empty := np.flatnonzero(counts == 0)):
        told = ", ".join(names[place] for place in empty[:5]) + " ..." * (len(empty) > 5)
        notice(f"{kind}: {len(empty)} of {classes} classes have no training row: {told}")
    if counts.max() == 1:
        notice(f"{kind}: every class has one training row, so that labels are numbers of rows; Diet needs none")
