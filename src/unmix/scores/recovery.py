"""Recovery by frequency: whether rare latents are found as well as frequent ones."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from unmix.core.errors import UsageError
from unmix.core.seeds import Stream, as_stream
from unmix.core.statistics import bootstrap_mean
from unmix.scores.base import Inputs, Outcome, Score
from unmix.scores.matching import mcc
from unmix.scores.sparsity import as_codes


def by_rate(strength: Any, rates: Any, bins: int = 4, rng: int | Stream = 0) -> list[dict[str, Any]]:
    """Recovery of latents as a function of how often they fire: equally filled bins from rare to frequent.

    strength: [f] recovery of each latent, such as |correlation| or |cosine| of its match. rates: [f] firing rates.
    Each bin: low, high (rates), latents (how many), recovery (mean), interval (95 %, bootstrap over its latents).
    Latents that never fire are left out; there are fewer bins than asked for where there are fewer latents.
    Raises `UsageError` for unlike lengths or where no latent fires.
    """
    values, often = np.asarray(strength, dtype=np.float64), np.asarray(rates, dtype=np.float64)
    if values.shape != often.shape or values.ndim != 1:
        raise UsageError(f"by_rate: strength is {list(values.shape)}, rates {list(often.shape)}; both must be [f]")
    alive = np.flatnonzero(often > 0)
    if not len(alive):
        raise UsageError("by_rate: no latent fires")
    stream = as_stream(rng)
    parts = np.array_split(alive[np.argsort(often[alive], kind="stable")], min(bins, len(alive)))
    return [
        {
            "low": float(often[part[0]]),
            "high": float(often[part[-1]]),
            "latents": len(part),
            "recovery": float(values[part].mean()),
            "interval": bootstrap_mean(values[part], stream.child(number)),
        }
        for number, part in enumerate(parts)
    ]


class RareRecovery(Score):
    """Recovery of the latents that fire least: mean |correlation| of the rarest bin under the matching of `mcc`.

    bins: equally filled bins of firing rate; the detail has all of them, from rare to frequent. Latents that never
    fire in these rows are left out.
    """

    name: ClassVar[str] = "rare_recovery"
    equation: ClassVar[str] = "mean over the 1/bins of latents that fire least of |corr(z_j, code_pi(j))|"
    reference: ClassVar[str] = "arXiv 2602.14687"
    needs: ClassVar[frozenset[str]] = frozenset({"codes", "z"})

    bins: int = Field(default=4, ge=1)

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        z = as_codes(inputs.z)
        rates = z.firing().double().numpy() / max(1, len(z))
        matched = mcc(inputs.codes, inputs.z, rng)
        if not rates.any():
            return Outcome(math.nan, ceiling=1.0)
        found = by_rate(np.abs(matched.detail["correlations"]), rates, self.bins, rng)
        return Outcome(found[0]["recovery"], matched.chance, 1.0, found[0]["interval"], {"bins": found})
