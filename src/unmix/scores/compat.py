"""Scores as others compute them, under names of their own."""

from __future__ import annotations

from typing import ClassVar

from unmix.scores.matching import DictionaryMcc
from unmix.scores.pairing import COMPAT


class PaperDictionaryMcc(DictionaryMcc):
    """Found atoms against true atoms as the amortisation-gap paper's code scores them; see `dictionary_mcc`."""

    name: ClassVar[str] = "dictionary_mcc_paper"
    equation: ClassVar[str] = "mean |corr(t_j, d_pi(j))| over coordinates, pi chosen greedily"
    reference: ClassVar[str] = "the code of O'Neill, Gumran, Klindt 2024, arXiv 2411.13117"

    compat: COMPAT = "greedy-pearson"
