"""Warps: codes with latents matched by rank correlation, which no monotone change of a coordinate moves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from pydantic import Field
from torch import Tensor

from unmix.core.codes import Codes
from unmix.core.seeds import Stream
from unmix.scores.base import Inputs, Outcome, Score
from unmix.scores.identifiability.explained import baselines
from unmix.scores.matching import mcc
from unmix.scores.pairing import columns_of


def mcc_spearman(
    codes: Codes | Any,
    latents: Any,
    rng: int | Stream = 0,
    draws: int | None = None,
    signed: bool = False,
    x: Any = None,
    untrained: Any = None,
) -> Outcome:
    """Mean |Spearman| rank correlation between codes and latents over a best one-to-one matching.

    The `mcc` of the columns' ranks, ties at their mean; its arguments, its treatment of constant columns (0) and of
    latents left over (0), and its errors. x: [n, ...] raw observations, untrained: [n, d'], for baselines.
    Detail: as `mcc`, and baselines (value and smallest |correlation| each).
    Source: Spearman in place of Pearson as in arXiv 2007.10930.
    """
    from scipy.stats import rankdata

    def ranks(values: Any, name: str) -> Any:
        return rankdata(columns_of(values, name).cpu().numpy(), axis=0)

    truth = ranks(latents, "latents")

    def beside(source: Tensor) -> dict[str, float]:
        other = mcc(ranks(source, "codes"), truth, rng, 1, signed)
        return {"value": other.value, "minimum": float(np.abs(other.detail["correlations"]).min())}

    found = mcc(ranks(codes, "codes"), truth, rng, draws, signed)
    others = baselines("mcc_spearman", latents, beside, x=x, untrained=untrained)
    return replace(found, detail={**found.detail, "baselines": others})


class MccSpearman(Score):
    """Codes against true latents, matched one to one by |rank correlation|.

    draws: shuffles for the chance level. signed: correlations with their sign.
    """

    name: ClassVar[str] = "mcc_spearman"
    equation: ClassVar[str] = "(1/f) sum_j |corr(rank z_j, rank code_pi(j))|"
    reference: ClassVar[str] = "Klindt et al. 2021, arXiv 2007.10930"
    needs: ClassVar[frozenset[str]] = frozenset({"codes", "z"})

    draws: int | None = Field(default=None, ge=1)
    signed: bool = False

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        return mcc_spearman(inputs.codes, inputs.z, rng, self.draws, self.signed, inputs.x, inputs.untrained)
