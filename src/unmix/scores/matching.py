"""Matching scores: codes with latents by correlation (mcc), atoms with atoms by cosine (dictionary_mcc)."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from unmix.core.codes import Codes
from unmix.core.errors import UsageError
from unmix.core.scale import centred, near_one, unit
from unmix.core.seeds import Stream, as_stream
from unmix.core.statistics import bootstrap_mean
from unmix.scores.base import Inputs, Outcome, Score
from unmix.scores.influence import tell_of_rows
from unmix.scores.pairing import COMPAT, Matching, Pairing, columns_of, standardised


def mcc(
    codes: Codes | Any,
    latents: Any,
    rng: int | Stream = 0,
    draws: int | None = None,
    signed: bool = False,
    compat: COMPAT = None,
) -> Outcome:
    """Mean correlation coefficient: |Pearson| between codes and latents, averaged over a best one-to-one matching.

    MCC = (1/f) sum_j |corr(z_j, code_pi(j))|, pi the assignment that maximises the sum; a constant column has
    correlation 0, and a latent left over (fewer codes than latents) counts 0.
    codes: `Codes` or [n, m]. latents: `Codes` or [n, f]. signed: correlations instead of their absolute values.
    draws: shuffles of the rows for the chance level; None takes 16 where they are cheap, else 1.
    compat: "greedy-pearson" matches and averages as the code of arXiv 2411.13117 does: columns are paired greedily
    and then assigned among those taken, and latents left over do not count, so that fewer codes may score higher.
    Detail: pairs [f] (code of each latent, -1 for none), correlations [f] (signed).
    Raises `UsageError` for unlike row counts or fewer than 3 rows. Source: Hyvarinen, Morioka 2016.
    """
    given, truth = columns_of(codes, "codes"), columns_of(latents, "latents")
    if len(given) != len(truth):
        raise UsageError(f"mcc: codes have {len(given)} rows, latents {len(truth)}")
    if len(given) < 3:
        raise UsageError(f"mcc: needs at least 3 rows, got {len(given)}")
    stream, rule = as_stream(rng), Matching(signed, compat)
    a, b = standardised(given), standardised(truth)
    matched = rule(a.T @ b / len(a))
    cheap = a.shape[1] * b.shape[1] <= 1 << 14 and a.numel() * b.shape[1] <= 1 << 28
    unrelated = []
    for draw in range(draws or (16 if cheap else 1)):
        order = torch.from_numpy(stream.child(f"shuffle {draw}").numpy().permutation(len(a)))
        unrelated.append(rule(a[order].T @ b / len(a)))

    def again(kept: np.ndarray) -> float:
        one, two = (standardised(part[torch.from_numpy(kept)]) for part in (given, truth))
        return rule(one.T @ two / len(kept)).value

    tell_of_rows("mcc", matched.value, {"codes": given, "latents": truth}, again)
    return _outcome(matched, unrelated, stream, "correlations")


def dictionary_mcc(
    atoms: Any,
    truth: Any,
    rng: int | Stream = 0,
    draws: int | None = None,
    signed: bool = False,
    compat: COMPAT = None,
) -> Outcome:
    """Mean |cosine| between true atoms and found atoms under a best one-to-one matching.

    (1/f) sum_j |cos(t_j, d_pi(j))|; a zero atom has cosine 0, a true atom left over counts 0.
    atoms: [m, d]. truth: [f, d]. signed: cosines instead of their absolute values.
    draws: pairs of Gaussian dictionaries of these sizes for the chance level; None takes 16 where they are cheap,
    else 2. compat: "greedy-pearson" is the dictionary MCC in the code of arXiv 2411.13117: Pearson correlation over
    the d coordinates, which takes the mean off each atom, greedily paired as in `mcc`.
    Detail: pairs [f], cosines [f] (signed; correlations with `compat`).
    """
    found, true = (_directions(part, name, compat) for part, name in ((atoms, "atoms"), (truth, "truth")))
    if found.shape[1] != true.shape[1]:
        raise UsageError(f"dictionary_mcc: atoms have width {found.shape[1]}, truth {true.shape[1]}")
    stream, rule = as_stream(rng), Matching(signed, compat)
    unrelated = _unrelated(len(found), len(true), found.shape[1], stream, draws, rule)
    return _outcome(rule(found @ true.T), unrelated, stream, "cosines")


def dictionary_chance(
    m: int,
    f: int,
    d: int,
    rng: int | Stream = 0,
    draws: int | None = None,
    signed: bool = False,
    compat: COMPAT = None,
) -> float:
    """Expected `dictionary_mcc` of two independent Gaussian dictionaries with m and f atoms of width d."""
    return _mean([pairing.value for pairing in _unrelated(m, f, d, as_stream(rng), draws, Matching(signed, compat))])


def beside_chance(
    value: float, m: int, f: int, d: int, rng: int | Stream = 0, signed: bool = False, compat: COMPAT = None
) -> Outcome:
    """A published dictionary MCC of m found and f true atoms of width d with its chance level; see `at_chance`."""
    rule = Matching(signed, compat)
    unrelated = _unrelated(m, f, d, as_stream(rng), None, rule)
    chance, around = _chance(unrelated)
    return Outcome(value, chance, 1.0, chance_interval=around)


class Mcc(Score):
    """Codes against true latents, matched one to one by |correlation|.

    draws: shuffles for the chance level. signed: correlations with their sign. compat: as the paper's code does it.
    """

    name: ClassVar[str] = "mcc"
    equation: ClassVar[str] = "(1/f) sum_j |corr(z_j, code_pi(j))|"
    reference: ClassVar[str] = "Hyvarinen, Morioka 2016, arXiv 1605.06336"
    needs: ClassVar[frozenset[str]] = frozenset({"codes", "z"})

    draws: int | None = Field(default=None, ge=1)
    signed: bool = False
    compat: COMPAT = None

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        return mcc(inputs.codes, inputs.z, rng, self.draws, self.signed, self.compat)


class DictionaryMcc(Score):
    """Found atoms against true atoms, matched one to one by |cosine|.

    draws: pairs of random dictionaries for the chance level. signed: cosines with their sign. compat: as the paper's
    code does it.
    """

    name: ClassVar[str] = "dictionary_mcc"
    equation: ClassVar[str] = "(1/f) sum_j |cos(t_j, d_pi(j))|"
    reference: ClassVar[str] = "Sharkey, Braun, Millidge 2022; O'Neill et al. 2024, arXiv 2411.13117"
    needs: ClassVar[frozenset[str]] = frozenset({"atoms", "truth"})

    draws: int | None = Field(default=None, ge=1)
    signed: bool = False
    compat: COMPAT = None

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        return dictionary_mcc(inputs.atoms, inputs.truth, rng, self.draws, self.signed, self.compat)


class Found(Score):
    """Share of the true atoms that have a found atom of their own with |cosine| above a threshold."""

    name: ClassVar[str] = "found"
    equation: ClassVar[str] = "(1/f) sum_j [|cos(t_j, d_pi(j))| > threshold]"
    reference: ClassVar[str] = "recall of the matching in arXiv 2411.13117"
    needs: ClassVar[frozenset[str]] = frozenset({"atoms", "truth"})

    threshold: float = Field(default=0.9, ge=0, lt=1)

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        matched = dictionary_mcc(inputs.atoms, inputs.truth, rng, draws=1)
        hits = np.abs(matched.detail["cosines"]) > self.threshold
        return Outcome(float(hits.mean()), math.nan, 1.0, bootstrap_mean(hits, rng))


class Agreement(Score):
    """Atoms of two seeds matched one to one by |cosine|: what another run would find again."""

    name: ClassVar[str] = "agreement"
    equation: ClassVar[str] = "(1/m) sum_j |cos(d_j, d'_pi(j))|"
    reference: ClassVar[str] = "Paulo, Belrose 2025, arXiv 2501.16615; arXiv 2505.20254"
    needs: ClassVar[frozenset[str]] = frozenset({"atoms", "other"})

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        return dictionary_mcc(inputs.other, inputs.atoms, rng)


def _unrelated(m: int, f: int, d: int, rng: Stream, draws: int | None, rule: Matching) -> list[Pairing]:
    """Matchings of pairs of independent Gaussian dictionaries."""
    stream = rng.child("chance")
    pairings = []
    for draw in range(draws or (16 if m * f <= 1 << 14 else 2)):
        generator = stream.child(str(draw)).torch()
        one, two = (
            _directions(torch.randn(size, d, generator=generator, dtype=torch.float64), "atoms", rule.compat)
            for size in (m, f)
        )
        pairings.append(rule(one @ two.T))
    return pairings


def _chance(unrelated: list[Pairing]) -> tuple[float, tuple[float, float]]:
    """Mean of unrelated results and where 95 % of them lie.

    From few draws the spread is taken from the strengths within them as if these were independent, which is too wide.
    """
    values = [pairing.value for pairing in unrelated]
    within = [pairing.strength.std() * math.sqrt(len(pairing.strength)) / pairing.count for pairing in unrelated]
    spread = float(np.std(values, ddof=1)) if len(values) >= 8 else _mean(within)
    chance = _mean(values)
    return chance, (chance - 1.96 * spread, chance + 1.96 * spread)


def _outcome(matched: Pairing, unrelated: list[Pairing], rng: Stream, name: str) -> Outcome:
    chance, around = _chance(unrelated)
    scale = len(matched.strength) / matched.count
    low, high = bootstrap_mean(matched.strength, rng)
    detail = {"pairs": matched.pairs, name: matched.similarity}
    return Outcome(matched.value, chance, 1.0, (low * scale, high * scale), detail, around)


def _directions(values: Any, name: str, compat: COMPAT = None) -> Tensor:
    matrix = columns_of(values, name)
    if not len(matrix):
        raise UsageError(f"{name}: no atoms")
    return unit(centred(near_one(matrix.T)).T if compat else matrix)


def _mean(values: list[float]) -> float:
    return float(np.mean(values))
