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
from unmix.core.rows import as_tensor, require_finite
from unmix.core.seeds import Stream, as_stream
from unmix.core.statistics import bootstrap_mean
from unmix.scores.base import Inputs, Outcome, Score


def mcc(codes: Codes | Any, latents: Any, rng: int | Stream = 0, draws: int = 1) -> Outcome:
    """Mean correlation coefficient: |Pearson| between codes and latents, averaged over a best one-to-one matching.

    MCC = (1/f) sum_j |corr(z_j, code_pi(j))|, pi the assignment that maximises the sum; a constant column has
    correlation 0, and a latent left over (fewer codes than latents) counts 0.
    codes: `Codes` or [n, m]. latents: [n, f]. draws: shuffles of the rows for the chance level.
    Detail: pairs [f] (code of each latent, -1 for none), correlations [f] (signed).
    Raises `UsageError` for unlike row counts or fewer than 3 rows. Source: Hyvarinen, Morioka 2016.
    """
    given, truth = _columns(codes, "codes"), _columns(latents, "latents")
    if len(given) != len(truth):
        raise UsageError(f"mcc: codes have {len(given)} rows, latents {len(truth)}")
    if len(given) < 3:
        raise UsageError(f"mcc: needs at least 3 rows, got {len(given)}")
    stream = as_stream(rng)
    a, b = _standardised(given), _standardised(truth)
    correlation = a.T @ b / len(a)
    pairs, matched = _assign(correlation)
    chances = []
    for draw in range(draws):
        order = torch.from_numpy(stream.child(f"shuffle {draw}").numpy().permutation(len(a)))
        chances.append(float(np.abs(_assign(a[order].T @ b / len(a))[1]).mean()))
    strength = np.abs(matched)
    interval = bootstrap_mean(strength, stream)
    detail = {"pairs": pairs, "correlations": matched}
    return Outcome(float(strength.mean()), _mean(chances), 1.0, interval, detail)


def dictionary_mcc(atoms: Any, truth: Any, rng: int | Stream = 0, draws: int = 2, signed: bool = False) -> Outcome:
    """Mean |cosine| between true atoms and found atoms under a best one-to-one matching.

    (1/f) sum_j |cos(t_j, d_pi(j))|; a zero atom has cosine 0, a true atom left over counts 0.
    atoms: [m, d]. truth: [f, d]. signed: cosines instead of their absolute values.
    draws: pairs of Gaussian dictionaries of these sizes for the chance level.
    Detail: pairs [f], cosines [f] (signed).
    """
    found, true = _directions(atoms, "atoms"), _directions(truth, "truth")
    if found.shape[1] != true.shape[1]:
        raise UsageError(f"dictionary_mcc: atoms have width {found.shape[1]}, truth {true.shape[1]}")
    stream = as_stream(rng)
    pairs, cosines = _assign(found @ true.T, signed)
    strength = cosines if signed else np.abs(cosines)
    chance = dictionary_chance(len(found), len(true), found.shape[1], stream, draws, signed)
    return Outcome(
        float(strength.mean()),
        chance,
        1.0,
        bootstrap_mean(strength, stream),
        {"pairs": pairs, "cosines": cosines},
    )


def dictionary_chance(m: int, f: int, d: int, rng: int | Stream = 0, draws: int = 2, signed: bool = False) -> float:
    """Expected `dictionary_mcc` of two independent Gaussian dictionaries with m and f atoms of width d."""
    stream = as_stream(rng).child("chance")
    values = []
    for draw in range(draws):
        generator = stream.child(str(draw)).torch()
        one, two = (
            torch.nn.functional.normalize(torch.randn(size, d, generator=generator, dtype=torch.float64))
            for size in (m, f)
        )
        cosines = _assign(one @ two.T, signed)[1]
        values.append(float((cosines if signed else np.abs(cosines)).mean()))
    return _mean(values)


class Mcc(Score):
    """Codes against true latents, matched one to one by |correlation|."""

    name: ClassVar[str] = "mcc"
    equation: ClassVar[str] = "(1/f) sum_j |corr(z_j, code_pi(j))|"
    reference: ClassVar[str] = "Hyvarinen, Morioka 2016, arXiv 1605.06336"
    needs: ClassVar[frozenset[str]] = frozenset({"codes", "z"})

    draws: int = Field(1, ge=1)

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        return mcc(inputs.codes, inputs.z, rng, self.draws)


class DictionaryMcc(Score):
    """Found atoms against true atoms, matched one to one by |cosine|."""

    name: ClassVar[str] = "dictionary_mcc"
    equation: ClassVar[str] = "(1/f) sum_j |cos(t_j, d_pi(j))|"
    reference: ClassVar[str] = "Sharkey, Braun, Millidge 2022; O'Neill et al. 2024, arXiv 2411.13117"
    needs: ClassVar[frozenset[str]] = frozenset({"atoms", "truth"})

    draws: int = Field(2, ge=1)
    signed: bool = False

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        return dictionary_mcc(inputs.atoms, inputs.truth, rng, self.draws, self.signed)


class Found(Score):
    """Share of the true atoms that have a found atom of their own with |cosine| above a threshold."""

    name: ClassVar[str] = "found"
    equation: ClassVar[str] = "(1/f) sum_j [|cos(t_j, d_pi(j))| > threshold]"
    reference: ClassVar[str] = "recall of the matching in arXiv 2411.13117"
    needs: ClassVar[frozenset[str]] = frozenset({"atoms", "truth"})

    threshold: float = Field(0.9, ge=0, lt=1)

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


def _columns(values: Any, name: str) -> Tensor:
    matrix = (values.dense() if isinstance(values, Codes) else as_tensor(values)).double()
    if matrix.ndim != 2 or not matrix.shape[1]:
        raise UsageError(f"{name}: expected [n, columns], got {list(matrix.shape)}")
    require_finite(matrix, name)
    return matrix


def _directions(values: Any, name: str) -> Tensor:
    matrix = _columns(values, name)
    if not len(matrix):
        raise UsageError(f"{name}: no atoms")
    return torch.nn.functional.normalize(matrix)


def _standardised(columns: Tensor) -> Tensor:
    centred = columns - columns.mean(0)
    deviation = centred.square().mean(0).sqrt()
    constant = deviation <= 1e-10 * (columns.abs().amax(0) + 1e-300)
    return torch.where(constant, torch.zeros_like(centred), centred / deviation.clamp_min(1e-300))


def _assign(similarity: Tensor, signed: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """For every column the row matched to it (-1 for none), and the similarity of the pair (0 for none)."""
    from scipy.optimize import linear_sum_assignment

    matrix = similarity.numpy()
    rows, columns = linear_sum_assignment(matrix if signed else np.abs(matrix), maximize=True)
    pairs, matched = np.full(matrix.shape[1], -1), np.zeros(matrix.shape[1])
    pairs[columns], matched[columns] = rows, matrix[rows, columns]
    return pairs, matched


def _mean(values: list[float]) -> float:
    return float(np.mean(values))
