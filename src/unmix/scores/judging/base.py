"""Judge: the protocol of automated interpretability; a language model, statistics or a control."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from unmix.core.recipe import Recipe


@dataclass(frozen=True)
class Context:
    """Tokens of one window of a document.

    tokens: texts, in order. marks: positions in `tokens` that are marked; in examples those where the feature fires,
    in questions of fuzzing those that are asked about, in questions of detection none.
    activations: one number for each token in examples, None in every question. row: number of the row in the middle.
    """

    tokens: tuple[str, ...]
    marks: tuple[int, ...] = ()
    activations: tuple[float, ...] | None = None
    row: int = -1


@dataclass(frozen=True)
class Evidence:
    """What a feature is explained from.

    examples: contexts in which it fires. contrast: about as many in which it does not, from the same sources as the
    negatives of the questions. background: many contexts of the same text, drawn without regard to the feature.
    """

    examples: Sequence[Context]
    contrast: Sequence[Context]
    background: Sequence[Context] = ()


@dataclass(frozen=True)
class Explanation:
    """A feature in words (`text`), and whatever the judge wants to find again when it is asked (`detail`)."""

    text: str
    detail: dict[str, Any] = field(default_factory=dict)


class AtWork(Protocol):
    """A judge that takes questions."""

    def explain(self, evidence: Evidence) -> Explanation: ...

    def detect(self, explanation: Explanation, contexts: Sequence[Context]) -> np.ndarray: ...

    def fuzz(self, explanation: Explanation, contexts: Sequence[Context]) -> np.ndarray: ...


class Judge(Recipe):
    """Explains a feature, then says of other contexts whether it fires there.

    The two kinds of questions are those of Paulo et al. 2024, arXiv 2410.13928: detection (does the feature fire
    anywhere in this context) and fuzzing (does it fire at the marked tokens).
    """

    @contextlib.contextmanager
    def open(self) -> Iterator[AtWork]:
        """The judge at work; one that needs a process or a connection keeps it for the length of the block."""
        yield self

    @abstractmethod
    def explain(self, evidence: Evidence) -> Explanation:
        """The feature in words."""

    @abstractmethod
    def detect(self, explanation: Explanation, contexts: Sequence[Context]) -> np.ndarray:
        """Probability, or 0 and 1, that the feature fires somewhere in each context: [len(contexts)]."""

    @abstractmethod
    def fuzz(self, explanation: Explanation, contexts: Sequence[Context]) -> np.ndarray:
        """Probability, or 0 and 1, that the feature fires at the marked tokens of each context: [len(contexts)]."""
