"""The scores of interpretability as recipes: codes on images that are given as raw observations."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from unmix.core.copies import contents
from unmix.core.errors import UsageError
from unmix.core.seeds import Stream
from unmix.scores.base import Inputs, Outcome, Score
from unmix.scores.interpretability.base import Judged
from unmix.scores.interpretability.sets import clarity, interpretability_index, label_purity
from unmix.scores.interpretability.trials import intruder, machine_interpretability, two_choices
from unmix.scores.interpretability.weighted import monosemanticity
from unmix.scores.similarity import SIMILARITIES
from unmix.scores.similarity.base import Alike, Similarity


class _OfImages(Score):
    """Shared by the scores that compare images: the similarity, and how many chance features make the null."""

    needs: ClassVar[frozenset[str]] = frozenset({"codes", "x"})

    similarity: Annotated[Any, BeforeValidator(SIMILARITIES.make)] = "OrientedEnergy"

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        recipe: Similarity = self.similarity
        return self._judge(inputs.codes, recipe.bind(inputs.x), rng).outcome(rng)

    @abstractmethod
    def _judge(self, codes: Any, alike: Alike, rng: Stream) -> Judged: ...


class InterpretabilityIndex(_OfImages):
    """Mean pairwise similarity of each feature's most exciting images; chance are random sets of images.

    similarity: how images are compared. count: images of a feature.
    """

    name: ClassVar[str] = "interpretability_index"
    equation: ClassVar[str] = "(1/m) sum_u 2 / (M (M - 1)) sum_(i<j) s(x_i, x_j) over the M most exciting images of u"
    reference: ClassVar[str] = "Klindt et al. 2023, arXiv 2310.11431"

    count: int = Field(default=5, ge=2)

    def _judge(self, codes: Any, alike: Alike, rng: Stream) -> Judged:
        return interpretability_index(codes, alike, self.count, rng)


class Clarity(_OfImages):
    """Length of the mean of the unit vectors of each feature's most exciting images; the index with a cosine.

    similarity: how images are compared, a cosine. count: images of a feature.
    """

    name: ClassVar[str] = "clarity"
    equation: ClassVar[str] = "(1/m) sum_u (|mean e|^2 - 1/M) M / (M - 1)"
    reference: ClassVar[str] = "Dreyer et al. 2025, arXiv 2501.05398"

    count: int = Field(default=5, ge=2)

    def _judge(self, codes: Any, alike: Alike, rng: Stream) -> Judged:
        return clarity(codes, alike, self.count, rng)


class Monosemanticity(_OfImages):
    """Similarity of all pairs of images weighted by both activations; chance is the same on shuffled images.

    similarity: how images are compared, a cosine. draws: shuffles.
    """

    name: ClassVar[str] = "monosemanticity"
    equation: ClassVar[str] = "(1/m) sum_u sum_(i<j) a_i a_j s_ij / sum_(i<j) a_i a_j"
    reference: ClassVar[str] = "Pach et al. 2025, arXiv 2504.02821; linear time: arXiv 2602.12403"

    draws: int = Field(default=20, ge=2)

    def _judge(self, codes: Any, alike: Alike, rng: Stream) -> Judged:
        return monosemanticity(codes, alike, rng, self.draws, errors=False)


class MachineInterpretability(_OfImages):
    """How surely a judge tells a most from a least exciting image, given references of both; chance 1/2.

    similarity: how images are compared. trials, references, quantile: of the choices. alpha: sensitivity of the
    judge; None counts the trials it gets right.
    """

    name: ClassVar[str] = "machine_interpretability"
    equation: ClassVar[str] = "(1/N) sum_n sigmoid(alpha (D(q+_n) - D(q-_n))),  D(q) = s(q, E+) - s(q, E-)"
    reference: ClassVar[str] = "Zimmermann, Klindt, Brendel 2024"

    trials: int = Field(default=20, ge=1)
    references: int = Field(default=9, ge=1)
    quantile: float = Field(default=0.25, gt=0, le=0.5)
    alpha: float | None = Field(default=0.16, gt=0)

    def _judge(self, codes: Any, alike: Alike, rng: Stream) -> Judged:
        return machine_interpretability(
            codes, alike, self.trials, self.references, self.alpha, self.quantile, rng=rng
        )


class TwoChoices(_OfImages):
    """Is an exciting image nearer to other exciting images than a random one is? Chance 1/2.

    similarity: how images are compared. trials, references, pool: of the choices.
    """

    name: ClassVar[str] = "two_choices"
    equation: ClassVar[str] = "(1/N) sum_n [s(q+_n, E+) > s(q_n, E+)], q_n a random image"
    reference: ClassVar[str] = "Borowski et al. 2021, arXiv 2010.12606; Klindt et al. 2023, arXiv 2310.11431"

    trials: int = Field(default=20, ge=1)
    references: int = Field(default=9, ge=1)
    pool: int = Field(default=20, ge=2)

    def _judge(self, codes: Any, alike: Alike, rng: Stream) -> Judged:
        return two_choices(codes, alike, self.trials, self.references, self.pool, rng)


class Intruder(_OfImages):
    """Is the one image that does not excite the feature the least similar to the others? Chance 1 / (count + 1).

    similarity: how images are compared. count, trials, pool: of the sets shown.
    """

    name: ClassVar[str] = "intruder"
    equation: ClassVar[str] = "(1/N) sum_n [argmin_i sum_j s(x_i, x_j) is the intruder]"
    reference: ClassVar[str] = "Chang et al. 2009; Klindt et al. 2025, arXiv 2503.01824"

    count: int = Field(default=5, ge=2)
    trials: int = Field(default=20, ge=1)
    pool: int = Field(default=10, ge=2)

    def _judge(self, codes: Any, alike: Alike, rng: Stream) -> Judged:
        return intruder(codes, alike, self.count, self.trials, self.pool, rng)


class LabelPurity(Score):
    """Share of the most frequent label among each feature's most exciting images; chance are random sets.

    count: images of a feature.
    """

    name: ClassVar[str] = "label_purity"
    equation: ClassVar[str] = "(1/m) sum_u max_c p_c over the labels of the most exciting images of u"
    reference: ClassVar[str] = "Klindt et al. 2023, arXiv 2310.11431"
    needs: ClassVar[frozenset[str]] = frozenset({"codes", "items"})

    count: int = Field(default=20, ge=1)

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        labels = getattr(inputs.items, "labels", None)
        if labels is None:
            raise UsageError("label_purity: the items have no labels")
        images = getattr(inputs.items, "images", None)
        if images is not None and not contents(images).any():
            images = None  # all alike, as where there was nothing to show
        found = label_purity(inputs.codes, labels, self.count, rng, images=images)
        outcome = found.outcome(rng)
        entropy = found.detail["negative_entropy"][found.counted]
        outcome.detail["mean_negative_entropy"] = float(entropy.mean()) if len(entropy) else math.nan
        return outcome
