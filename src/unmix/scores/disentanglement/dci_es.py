"""DCI-ES: explicitness by how much capacity a read-out needs, and size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from unmix.core.seeds import Stream, as_stream
from unmix.core.statistics import bootstrap_mean
from unmix.scores.base import Inputs, Outcome
from unmix.scores.disentanglement.data import Disentanglement, Paired, paired, split
from unmix.scores.disentanglement.readout import explained, standardised, targets_of

WIDTHS = (0, 16, 32, 64, 128, 256, 512)


def dci_es(
    codes: Any,
    z: Any,
    factors: Sequence[Any] | None = None,
    group: Any = None,
    rng: int | Stream = 0,
    rows: int = 6000,
) -> Outcome:
    """Explicitness: 1 where a linear read-out of the codes predicts the factors, less the more capacity it takes.

    E = mean_j (1 - 2 AULCC_j / (kappa_max - kappa_min)), AULCC_j the area under the running minimum of the loss of
    factor j (1 - R2 on rows not fitted on, at most 1) against capacity kappa, the log of the number of features of a
    ridge read-out: the codes alone, then with 16, 32, ... 512 random Fourier features of one code or all.
    1: linear from the start; 0: the loss falls in a straight line to none; -1: nothing is ever predicted.
    codes: [n, m]. z: [n, f]. factors: kinds (categories count by the squared error of their indicators). The paper
    leaves the family of read-outs open; this one has a closed form and no seed that matters. rows: at most so many.
    Detail: by_factor [f], loss [f, capacities], capacity, size (factors over codes that vary, the S of DCI-ES),
    left_out. Chance: unrelated codes get -1. Interval: over factors. Source: Eastwood et al. 2023, arXiv 2210.00364.
    """
    pair, stream = paired(codes, z, factors, group, "dci_es"), as_stream(rng)
    losses, capacity = _curve(pair, stream, rows)
    lowest = np.minimum.accumulate(np.clip(losses, 0, 1), axis=1)
    steps = np.diff(capacity)
    area = ((lowest[:, 1:] + lowest[:, :-1]) / 2 * steps).sum(1)
    single = np.where(pair.varied, 1 - 2 * area / (capacity[-1] - capacity[0]), -1.0)
    kept = single[pair.varied]
    detail = {
        "by_factor": single,
        "loss": losses,
        "capacity": capacity,
        "size": float(pair.varied.sum() / max(1, pair.live.sum())),
        "left_out": pair.left_out,
    }
    return Outcome(float(kept.mean()), -1.0, 1.0, bootstrap_mean(kept, stream), detail)


def _curve(pair: Paired, rng: Stream, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Loss [f, capacities] on the test rows and the capacities."""
    train, test = split(pair, rng)
    if len(train) + len(test) > most:
        share, draw = most / (len(train) + len(test)), rng.child("rows").numpy()
        train, test = (np.sort(draw.choice(part, max(2, int(share * len(part))), False)) for part in (train, test))
    x, other = standardised(pair.codes[train][:, pair.live], pair.codes[test][:, pair.live])
    m = x.shape[1]
    draw = rng.child("features").numpy()
    waves = draw.standard_normal((max(1, m), max(WIDTHS))) / np.sqrt(max(1, m))
    for place in range(0, max(WIDTHS), 2):
        code = place // 2 % max(1, m)
        alone = 3 * np.sqrt(max(1, m)) * waves[code, place]
        waves[:, place] = 0
        waves[code, place] = alone
    waves = waves[:m]
    phase = draw.uniform(0, 2 * np.pi, max(WIDTHS))
    one, two = (
        np.concatenate([part, np.ones((len(part), 1)), np.cos(part @ waves + phase)], 1) for part in (x, other)
    )
    losses = np.ones((len(pair.factors), len(WIDTHS)))
    for j in np.flatnonzero(pair.varied):
        y = targets_of(pair, j)
        for place, width in enumerate(WIDTHS):
            end = m + 1 + width
            losses[j, place] = 1 - explained(one[:, :end], y[train], two[:, :end], y[test])
    return losses, np.log(m + 1.0 + np.array(WIDTHS))


class DciEs(Disentanglement):
    """Explicitness of DCI-ES: how little capacity a read-out of the factors needs; size is in the detail.

    rows: at most so many are used.
    """

    name: ClassVar[str] = "dci_es"
    equation: ClassVar[str] = "mean_j (1 - 2 AULCC_j / ((kappa_max - kappa_min) loss of the mean))"
    reference: ClassVar[str] = "Eastwood et al. 2023, arXiv 2210.00364"

    rows: int = Field(default=6000, ge=12)

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        return dci_es(inputs.codes, inputs.z, inputs.factors, inputs.group, rng, self.rows)
