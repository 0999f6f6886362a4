"""Explicitness: whether the values of a factor can be read off all codes together by a linear classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from unmix.core.errors import UsageError
from unmix.core.seeds import Stream, as_stream
from unmix.core.statistics import bootstrap_mean
from unmix.scores.base import Inputs, Outcome
from unmix.scores.disentanglement.data import COMPAT, Disentanglement, exact_labels, labels_of, paired, split
from unmix.scores.disentanglement.readout import logistic, one_against_rest, standardised


def explicitness(
    codes: Any,
    z: Any,
    factors: Sequence[Any] | None = None,
    group: Any = None,
    rng: int | Stream = 0,
    compat: COMPAT = None,
    bins: int = 10,
    rows: int = 6000,
) -> Outcome:
    """Mean over factors and their values of the one-against-rest AUC of logistic regression on all codes.

    Fitted on two thirds of at most `rows` rows, scored on the others; a sequence lies on one side. A factor with more
    than 64 values counts by `bins` bins of equal count; values that lack on the test side are left out.
    codes: [n, m]. z: [n, f]. factors: kinds. group: [n] sequences. Chance is .5, also for unrelated codes.
    compat: "disentanglement_lib" takes all rows and every value as a class. Its quirk: a value that lacks on one side
    is an error there (and here). A straight line cannot single out a middle value of an ordered factor: with one
    code for each factor, explicitness stays below 1.
    Detail: by_factor [f], left_out. Interval: over factors. Source: Ridgeway, Mozer 2018, arXiv 1802.05312.
    """
    pair, stream = paired(codes, z, factors, group, "explicitness"), as_stream(rng)
    labels = exact_labels(pair, "explicitness") if compat else labels_of(pair, bins)
    train, test = split(pair, stream)
    if not compat and len(train) + len(test) > rows:
        share = rows / (len(train) + len(test))
        draw = stream.child("rows").numpy()
        train, test = (np.sort(draw.choice(part, max(2, int(share * len(part))), False)) for part in (train, test))
    x, other = standardised(pair.codes[train], pair.codes[test])
    found = np.full(len(labels), 0.5)
    for j in np.flatnonzero(pair.varied):
        y = labels[j]
        if compat and set(y[train]) != set(y[test]):
            raise UsageError(
                f"explicitness: factor {pair.factors[j].name} has values on one side of the split only, where "
                f"compat={compat!r} fails; give more rows"
            )
        if len(np.unique(y[train])) > 1:
            model = logistic(x, y[train])
            scores = model.predict_proba(other)
            found[j] = one_against_rest(scores, np.searchsorted(model.classes_, y[test]))
    kept = found[pair.varied]
    detail = {"by_factor": found, "left_out": pair.left_out}
    return Outcome(float(kept.mean()), 0.5, 1.0, bootstrap_mean(kept, stream), detail)


class Explicitness(Disentanglement):
    """Area under the ROC curve of linear classifiers of each value of each factor, on all codes.

    compat: disentanglement_lib for that library's protocol. bins: classes of a factor that is a continuum. rows: at
    most so many are used.
    """

    name: ClassVar[str] = "explicitness"
    equation: ClassVar[str] = "mean_j mean_v AUC(p(z_j = v | codes), z_j = v)"
    reference: ClassVar[str] = "Ridgeway, Mozer 2018, arXiv 1802.05312"

    compat: COMPAT = None
    bins: int = Field(default=10, ge=2, le=64)
    rows: int = Field(default=6000, ge=12)

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        given = inputs.codes, inputs.z, inputs.factors, inputs.group
        return explicitness(*given, rng, self.compat, self.bins, self.rows)
