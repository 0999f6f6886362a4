"""Matched sparsity: the same encoder with the option that makes its codes as sparse as wanted."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from torch import Tensor

from unmix.core.errors import Failure, UsageError, notice
from unmix.core.rows import as_rows, gather
from unmix.core.seeds import Stream, as_stream
from unmix.encoders.base import BoundEncoder, Dictionary, Encoder
from unmix.encoders.composed import Thresholded


def at_sparsity(
    encoder: Encoder,
    features: Dictionary,
    rows: Any,
    l0: float,
    rng: int | Stream = 0,
    relative: float = 0.02,
) -> Encoder:
    """The recipe with its sparsity field set so that the mean L0 on `rows` is `l0`.

    A count (k, active) is set at once; a threshold is read off the sorted codes of at most 2,048 rows; a penalty is
    found by bisection on its logarithm over such rows, to `relative` accuracy. Composed encoders pass it on to the
    part that sets how many codes are active. Raises `UsageError` for an encoder without such a field and `Failure`
    where no value gives that many active codes.
    """
    if encoder.sparsity is None:
        raise UsageError(f"{encoder.kind} has no option that sets how many codes are active")
    if encoder.counted:
        whole = encoder.sparsity.rpartition(".")[2] == "k"
        return encoder.with_sparsity(max(1, round(l0) if whole else l0))
    sample = gather(as_rows(rows), 2048, as_stream(rng).child("matched sparsity"))
    if isinstance(encoder, Thresholded):
        codes = _bound(encoder.base, features, rows, rng)(sample)
        return encoder.with_sparsity(
            _threshold(encoder, codes.nonzero()[2].abs(), round(l0 * len(sample)), len(sample))
        )
    reduced = encoder._reduced()
    bound = _bound(reduced, features, rows, rng)
    x = (sample.to(features.bias.device) - features.bias).to(features.atoms)
    most = high = (x @ features.atoms.T).abs().max().item()

    def active(penalty: float) -> float:
        tried = dataclasses.replace(bound, recipe=reduced.with_sparsity(penalty))
        return tried(sample).l0().double().mean().item()

    # From above, because a small penalty makes dense codes, and those take long to solve for.
    low = high / 2
    while (found := active(low)) < l0 * (1 - relative):
        if low <= 1e-6 * most:
            raise Failure(
                f"{encoder.kind}: even a penalty of {low:.3g} gives {found:.3g} active codes a row, "
                f"{l0:.3g} were asked for; ask for fewer or use more atoms"
            )
        high, low = low, low / 2
    for _ in range(30):
        if abs(found - l0) <= relative * l0:
            return encoder.with_sparsity(low)
        middle = math.sqrt(low * high)
        if (between := active(middle)) >= l0 * (1 - relative):
            low, found = middle, between
        else:
            high = middle
    notice(
        f"{encoder.kind}: {found:.3g} active codes a row where {l0:.3g} were asked for; no {encoder.sparsity} gives "
        "fewer without falling below"
    )
    return encoder.with_sparsity(low)


def _bound(encoder: Encoder, features: Dictionary, rows: Any, rng: int | Stream) -> BoundEncoder:
    """The encoder as it will be used: with the read-out that the features have, or fitted on the rows."""
    present = getattr(features, "encoder", None)
    if encoder.needs_rows and present is not None and (kept := encoder.keep(present)) is not None:
        return kept
    return encoder.bind(features, rows if encoder.needs_rows else None, rng)


def _threshold(encoder: Encoder, sizes: Tensor, wanted: int, rows: int) -> float:
    """The threshold that leaves `wanted` of the codes of these sizes."""
    if wanted > len(sizes):
        raise Failure(
            f"{encoder.kind}: its base has {len(sizes) / rows:.3g} active codes a row and no threshold makes them "
            f"{wanted / rows:.3g}; ask for fewer"
        )
    if wanted == len(sizes):
        return 0.0
    return sizes.kthvalue(len(sizes) - wanted).values.item()
