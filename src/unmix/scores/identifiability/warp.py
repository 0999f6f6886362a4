"""Warps: codes with latents matched by rank correlation, which no monotone change of a coordinate moves."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from unmix.core.codes import Codes
from unmix.core.seeds import Stream
from unmix.scores.base import Inputs, Outcome, Score
from unmix.scores.matching import mcc
from unmix.scores.pairing import columns_of


def mcc_spearman(
    codes: Codes | Any, latents: Any, rng: int | Stream = 0, draws: int | None = None, signed: bool = False
) -> Outcome:
    """Mean |Spearman| rank correlation between codes and latents over a best one-to-one matching.

    The `mcc` of the columns' ranks, ties at their mean; its arguments, its treatment of constant columns (0) and of
    latents left over (0), and its errors. Source: Spearman in place of Pearson as in arXiv 2007.10930.
    """
    from scipy.stats import rankdata

    ranks = [rankdata(columns_of(v, k).cpu().numpy(), axis=0) for v, k in ((codes, "codes"), (latents, "latents"))]
    return mcc(*ranks, rng, draws, signed)


class MccSpearman(Score):
    """Codes against true latents, matched one to one by |rank correlation|.

    draws: shuffles for the chance level. signed: correlations with their sign.
    """

    name: ClassVar[str] = "mcc_spearman"
    equation: ClassVar[str] = "(1/f) sum_j |corr(rank z_j, rank code_pi(j))|"
    reference: ClassVar[str] = "Klindt et al. 2021, arXiv 2007.10930"
    needs: ClassVar[frozenset[str]] = frozenset({"codes", "z"})

    draws: int | None = Field(None, ge=1)
    signed: bool = False

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        return mcc_spearman(inputs.codes, inputs.z, rng, self.draws, self.signed)
