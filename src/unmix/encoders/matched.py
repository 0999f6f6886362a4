"""Matched sparsity: the same encoder with the option that makes its codes as sparse as wanted."""

from __future__ import annotations

import math
from typing import Any

from unmix.core.errors import Failure, UsageError
from unmix.core.rows import as_rows, gather
from unmix.core.seeds import Stream, as_stream
from unmix.encoders.base import Dictionary, Encoder


def at_sparsity(
    encoder: Encoder,
    features: Dictionary,
    rows: Any,
    l0: float,
    rng: int | Stream = 0,
    relative: float = 0.02,
) -> Encoder:
    """The recipe with its sparsity field set so that the mean L0 on `rows` is `l0`.

    A count (k, active) is set at once; a penalty is found by bisection on its logarithm over at most 2,048 rows,
    to `relative` accuracy. Raises `UsageError` for an encoder without such a field and `Failure` where no penalty
    gives that many active codes.
    """
    if encoder.sparsity is None:
        raise UsageError(f"{encoder.kind} has no option that sets how many codes are active")
    if encoder.counted:
        count = round(l0) if encoder.sparsity == "k" else l0
        return encoder.but(**{encoder.sparsity: max(1, count)})
    sample = gather(as_rows(rows), 2048, as_stream(rng).child("matched sparsity"))
    x = sample.to(features.atoms) - features.bias
    most = high = (x @ features.atoms.T).abs().max().item()

    def active(penalty: float) -> float:
        bound = encoder.but(**{encoder.sparsity: penalty}).bind(features)  # type: ignore[dict-item]
        return bound(sample).l0().double().mean().item()

    # From above, because a small penalty makes dense codes, and those take long to solve for.
    low = high / 2
    while (found := active(low)) < l0 * (1 - relative):
        if low < 1e-6 * most:
            raise Failure(
                f"{encoder.kind}: even a penalty of {low:.3g} gives {found:.3g} active codes a row, "
                f"{l0:.3g} were asked for; ask for fewer or use more atoms"
            )
        high, low = low, low / 2
    for _ in range(30):
        if abs(found - l0) <= relative * l0:
            return encoder.but(**{encoder.sparsity: low})
        middle = math.sqrt(low * high)
        if (between := active(middle)) >= l0 * (1 - relative):
            low, found = middle, between
        else:
            high = middle
    return encoder.but(**{encoder.sparsity: low})
