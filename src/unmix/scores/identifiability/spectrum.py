"""Spectrum: whether the map from latents to a representation stretches all directions alike, and by how much."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from unmix.core.errors import UsageError
from unmix.core.factors import Factor
from unmix.core.seeds import Stream, as_stream
from unmix.core.statistics import members, percentiles
from unmix.scores.base import Inputs, Outcome, Score
from unmix.scores.identifiability.explained import CHANCE_DRAWS, baselines, chance_of, moderate, shuffle
from unmix.scores.identifiability.kinds import require_numbers
from unmix.scores.identifiability.maps import linear_map, resampled, widened


def singular_values(
    h: Any,
    latents: Any,
    constant: float,
    rng: int | Stream = 0,
    intercept: bool = False,
    group: Any = None,
    factors: Sequence[Factor] | None = None,
    x: Any = None,
    untrained: Any = None,
) -> Outcome:
    """Largest relative error of the singular values of the map from z to h against a constant: max_i |s_i / c - 1|.

    The map is least squares over all rows, without offset as the theory of the sphere has it. A representation with
    fewer columns than latents has singular values of 0. An absolute error would say nothing without its scale.
    h: [n, d]. latents: [n, f]. constant: what all should be, kappa / beta where features are free and weights unit.
    x: [n, ...] raw observations, untrained: [n, d'], for baselines: neither has a temperature, so that each has the
    constant that suits it best, and the error (s_max - s_min) / (s_max + s_min).
    Detail: values [f], mean (of the relative errors), low and high [f] (95 %), baselines. Chance is 1: unrelated rows
    have a map of 0.
    Raises `UsageError` for a constant that is not positive, fewer than f + 2 rows, latents that depend linearly on
    one another, or that are no numbers.
    """
    if not constant > 0 or not math.isfinite(constant):
        raise UsageError(f"singular_values: constant={constant}: must be positive")
    values, drawn = _values("singular_values", h, latents, rng, intercept, group, factors)

    def beside(source: Tensor) -> dict[str, float]:
        singular = _values("singular_values", source, latents, None, intercept, group, factors)[0]
        return {"value": float(1 - 2 * singular.min() / max(singular.max() + singular.min(), 1e-300))}

    errors = np.abs(values / constant - 1)
    interval = percentiles(np.abs(drawn / constant - 1).max(1))
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    detail = {"values": values, "constant": constant, "mean": float(errors.mean()), "low": low, "high": high}
    detail["baselines"] = baselines("singular_values", latents, beside, x=x, untrained=untrained)
    return Outcome(float(errors.max()), 1.0, 0.0, widened(interval, float(errors.max())), detail)


def isotropy(
    h: Any,
    latents: Any,
    rng: int | Stream = 0,
    intercept: bool = True,
    group: Any = None,
    factors: Sequence[Factor] | None = None,
    x: Any = None,
    untrained: Any = None,
) -> Outcome:
    """Smallest over largest singular value of the map from z to h: 1 for a rotation at any scale.

    0 where a direction is lost. Arguments and errors as `singular_values`, but the fit has an offset, and x and
    untrained have their own ratios. Detail: values [f], baselines. Chance: the latents in another order of rows,
    which is not 0, for a map of noise has no direction that is lost altogether.
    """
    values, drawn = _values("isotropy", h, latents, rng, intercept, group, factors)

    def ratio(singular: np.ndarray) -> np.ndarray:
        return singular.min(-1) / np.maximum(singular.max(-1), 1e-300)

    def of(source: Any, truth: Any) -> float:
        return float(ratio(_values("isotropy", source, truth, None, intercept, group, factors)[0]))

    a, z = moderate("isotropy", 4, h=h, latents=latents)
    stream = as_stream(rng)
    orders = [stream.child(f"shuffle {draw}").numpy().permutation(len(z)) for draw in range(CHANCE_DRAWS)]
    chance, around = chance_of([of(a, shuffle(z, order)) for order in orders])
    beside = baselines("isotropy", latents, lambda source: {"value": of(source, z)}, x=x, untrained=untrained)
    value, interval = float(ratio(values)), percentiles(ratio(drawn))
    return Outcome(value, chance, 1.0, widened(interval, value), {"values": values, "baselines": beside}, around)


class SingularValues(Score):
    """Largest relative error of the singular values of the map from z to h against concentration / beta.

    intercept: fits an offset as well.
    """

    name: ClassVar[str] = "singular_values"
    better: ClassVar[str] = "lower"
    equation: ClassVar[str] = "max_i |s_i(A) beta / kappa - 1|, h ~ A z"
    reference: ClassVar[str] = "arXiv 2410.21869, theorem on C3, as a relative error"
    needs: ClassVar[frozenset[str]] = frozenset({"h", "z", "beta", "concentration"})

    intercept: bool = False

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        constant = float(inputs.concentration) / positive(inputs.beta, "beta")  # type: ignore[arg-type]
        rest = (self.intercept, inputs.group, inputs.factors, inputs.x, inputs.untrained)
        return singular_values(inputs.h, inputs.z, constant, rng, *rest)


class Isotropy(Score):
    """Smallest over largest singular value of the map from z to h: 1 for a rotation at any scale.

    intercept: fits an offset as well.
    """

    name: ClassVar[str] = "isotropy"
    equation: ClassVar[str] = "min_i s_i(A) / max_i s_i(A), h ~ A z + b"
    reference: ClassVar[str] = "arXiv 2410.21869, theorem on C1 to C3"
    needs: ClassVar[frozenset[str]] = frozenset({"h", "z"})

    intercept: bool = True

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        rest = (self.intercept, inputs.group, inputs.factors, inputs.x, inputs.untrained)
        return isotropy(inputs.h, inputs.z, rng, *rest)


def positive(value: Any, name: str) -> float:
    """One positive number; raises `UsageError` for anything else."""
    number = float(value)
    if not number > 0 or not math.isfinite(number):
        raise UsageError(f"{name}={number:g}: must be positive")
    return number


def _values(
    name: str,
    h: Any,
    latents: Any,
    rng: int | Stream | None,
    intercept: bool,
    group: Any,
    factors: Sequence[Factor] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Singular values [f] from the largest, zeros where d < f, and their resamples [draws, f], none without rng."""
    require_numbers(name, factors)
    a, z = moderate(name, 4, h=h, latents=latents)

    def spectrum(mapped: Tensor) -> np.ndarray:
        singular = torch.linalg.svdvals(mapped).numpy()
        return np.pad(singular, (0, z.shape[1] - len(singular)))

    values = spectrum(linear_map(z, a, intercept, name))
    if rng is None:
        return values, values[None][:0]
    return values, resampled(z, a, intercept, members(group, len(a)), as_stream(rng), spectrum)
