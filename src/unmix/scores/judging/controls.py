"""Control judges: they understand nothing; every judge should beat them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unmix.core.digest import digest
from unmix.core.seeds import Stream
from unmix.scores.judging.base import Context, Evidence, Explanation, Judge


class AlwaysYes(Judge):
    """Says yes to every context: macro-F1 is 1/3 on balanced questions, balanced accuracy 1/2."""

    def explain(self, evidence: Evidence) -> Explanation:
        return Explanation("fires everywhere")

    def detect(self, explanation: Explanation, contexts: Sequence[Context]) -> np.ndarray:
        return np.ones(len(contexts))

    def fuzz(self, explanation: Explanation, contexts: Sequence[Context]) -> np.ndarray:
        return self.detect(explanation, contexts)


class Coin(Judge):
    """Tosses a coin for every context; the same tokens with the same marks get the same answer.

    seed: of the tosses.
    """

    seed: int = 0

    def explain(self, evidence: Evidence) -> Explanation:
        return Explanation("unknown", {"toss": digest([list(c.tokens) for c in evidence.examples])})

    def detect(self, explanation: Explanation, contexts: Sequence[Context]) -> np.ndarray:
        stream = Stream(self.seed, ("coin", str(explanation.detail.get("toss"))))
        return np.array(
            [float(stream.child(digest([list(c.tokens), list(c.marks)])).number % 2) for c in contexts], dtype=float
        )

    def fuzz(self, explanation: Explanation, contexts: Sequence[Context]) -> np.ndarray:
        return self.detect(explanation, contexts)
