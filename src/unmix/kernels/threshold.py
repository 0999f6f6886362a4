"""Encoding by thresholds: ragged codes of the pre-activations above them; the dense matrix is never held."""

from __future__ import annotations

import torch
from torch import Tensor

from unmix.core.errors import UsageError
from unmix.kernels._compiled import Backend, check_matrix, compiled_wanted, own_threads
from unmix.kernels._topk_plain import collect
from unmix.kernels.screen import PlainLists, Space, blocks_plain, collect_compiled, gather_compiled, slabs
from unmix.kernels.threshold_trainer import BatchTopKTrainer, JumpReLUTrainer

__all__ = ["BatchTopKTrainer", "JumpReLUTrainer", "encode_above"]


@torch.no_grad()
def encode_above(
    h: Tensor, weight: Tensor, bias: Tensor | None, threshold: Tensor, backend: Backend = "auto"
) -> tuple[Tensor, Tensor, Tensor]:
    """z = relu(a) [a > threshold] with a = h @ weight.T + bias, as ragged lists.

    h [n, d], weight [m, d], bias [m] or None, threshold [] or [m] -> values [nnz], indices [nnz] (int64, rising in a
    row), pointers [n + 1]. Whether an entry close to its threshold is above it is decided in float64, so that
    it does not depend on the other rows of the batch. Carries no gradient.
    Raises `UsageError` where shapes do not fit.
    """
    check_matrix("weight", weight)
    check_matrix("h", h, weight.shape[1])
    m = len(weight)
    shift = weight.new_zeros(m) if bias is None else bias
    for name, tensor, shapes in (("bias", shift, [(m,)]), ("threshold", threshold, [(), (m,)])):
        if tuple(tensor.shape) not in shapes:
            raise UsageError(f"{name}: must be one of {shapes}, got {list(tensor.shape)}")
        if tensor.dtype != weight.dtype:
            raise UsageError(f"{name}: must have the dtype of weight {weight.dtype}, got {tensor.dtype}")
    if h.dtype != weight.dtype:
        raise UsageError(f"h: must have the dtype of weight {weight.dtype}, got {h.dtype}")
    h, weight, shift = h.detach(), weight.detach(), shift.detach()
    level = threshold.detach().clamp_min(0).expand(m)
    margin = level * min(1000 * torch.finfo(h.dtype).eps, 0.05)
    floor = level - margin
    if not len(h):
        empty = torch.zeros(0, dtype=torch.int64, device=h.device)
        return h.new_empty(0), empty, empty.new_zeros(1)
    if compiled_wanted(backend, h, weight, shift, level):
        space, none = Space(), h.new_zeros(len(h))
        with own_threads():
            parts = [collect_compiled(h, s, weight, shift, shift - floor, none, space) for s in slabs(len(h), 0)]
            pointers, indices, values = gather_compiled(parts)
    else:
        lists = PlainLists([collect(before, floor) for _, before in blocks_plain(h, weight, shift)])
        pointers, indices, values = lists.gather()
    near = ((values - level[indices]).abs() <= margin[indices]).nonzero().squeeze(1)
    if len(near):
        rows = torch.searchsorted(pointers, near, right=True) - 1
        columns = indices[near]
        again = torch.linalg.vecdot(h[rows].double(), weight[columns].double()) + shift[columns].double()
        values[near] = torch.where(again > level[columns], again, 0).to(values.dtype)
    above = values > 0
    if not bool(above.all()):
        kept = torch.cat([pointers[:1], above.cumsum(0)])
        pointers, indices, values = kept[pointers], indices[above], values[above]
    return values, indices, pointers
