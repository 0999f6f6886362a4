"""The TopK encoder and its decoder on sparse codes; the dense code matrix is never held."""

from __future__ import annotations

import torch
from torch import Tensor

from unmix.core.errors import UsageError
from unmix.kernels._compiled import (
    Backend,
    array,
    check_matrix,
    compiled_wanted,
    own_threads,
    parts_for,
    run_parts,
    run_queue,
)
from unmix.kernels._topk_plain import select
from unmix.kernels.topk_trainer import TopKTrainer

__all__ = ["TopKTrainer", "decode", "encode_topk"]

BLOCK_BYTES = 32 << 20  # most pre-activations that one thread holds at once
COLUMNS = 16384
DEVICE_BLOCK_BYTES = 256 << 20


@torch.no_grad()
def encode_topk(
    h: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    k: int,
    *,
    block_rows: int | None = None,
    block_columns: int | None = None,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """The k largest of each row of relu(h @ weight.T + bias).

    h [n, d], weight [m, d], bias [m] or None -> values [n, k], indices [n, k] (int64). A row's slots are in rising
    order of index, all indices of a row differ, ties go to the lowest index, and a slot that is not active has
    value 0. Carries no gradient. At most block_rows x block_columns pre-activations are held at once. A row with a
    NaN has NaN values. Raises `UsageError` where k is not in 1..m or shapes do not fit.
    """
    n, m = _check(h, weight, bias, k)
    h, weight = h.detach(), weight.detach()  # grad mode is a thread's own, and the work below is in several
    values = h.new_empty(n, k)
    indices = torch.empty(n, k, dtype=torch.int64, device=h.device)
    on_cpu = compiled_wanted(backend, h, weight, bias)
    columns = min(m, block_columns or max(k, COLUMNS))
    budget = (BLOCK_BYTES if h.device.type == "cpu" else DEVICE_BLOCK_BYTES) // (h.element_size() * columns)
    shift = weight.new_zeros(m) if bias is None else bias

    def work(slot: int, rows: slice) -> None:
        best: tuple[Tensor, Tensor] | None = None
        for left in range(0, m, columns):
            part, offset = weight[left : left + columns], shift[left : left + columns]
            kept = min(k, len(part))
            if on_cpu:
                space = buffers[slot, : (rows.stop - rows.start) * len(part)].view(-1, len(part))
                found = _select_compiled(torch.mm(h[rows], part.T, out=space), offset, kept)
            else:
                found = select(torch.addmm(offset, h[rows], part.T), kept)
            found = (found[0], found[1] + left) if left else found
            best = found if best is None else _merge(best, found, k)
        assert best is not None
        values[rows], indices[rows] = best

    if on_cpu:
        with own_threads():
            parts = parts_for(n, 64)
            height = min(-(-n // parts), block_rows or max(64, min(512, budget)))
            buffers = h.new_empty(parts, height * columns)
            run_queue(work, _slices(n, height), parts)
    else:
        for rows in _slices(n, block_rows or max(1, budget)):
            work(0, rows)
    return values, indices


def _slices(n: int, height: int) -> list[slice]:
    return [slice(start, min(n, start + height)) for start in range(0, n, max(1, height))]


def decode(
    values: Tensor, indices: Tensor, atoms: Tensor, bias: Tensor | None = None, backend: Backend = "auto"
) -> Tensor:
    """Reconstruction out[i] = sum_s values[i, s] atoms[indices[i, s]] + bias.

    values [n, k], indices [n, k] (int32 or int64), atoms [m, d], bias [d] or None -> [n, d]. Differentiable (torch
    does it where a gradient is wanted). Raises `UsageError` where shapes do not fit or an index is not in 0..m-1.
    """
    check_matrix("atoms", atoms)
    if values.ndim != 2 or values.shape != indices.shape:
        raise UsageError(f"indices: must be {list(values.shape)} like values [n, k], got {list(indices.shape)}")
    m, d = atoms.shape
    values = values.to(atoms.dtype)
    if not values.numel():
        return atoms.new_zeros(len(values), d) + (0 if bias is None else bias)
    learns = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (values, atoms, bias))
    if not learns and compiled_wanted(backend, values, atoms, bias):
        from unmix.kernels._step_compiled import decode_rows

        low, high = torch.aminmax(indices)
        if low < 0 or high >= m:
            raise UsageError(f"indices: must be in 0..{m - 1}, got {int(low)}..{int(high)}")
        out = atoms.new_empty(len(values), d)
        shift = atoms.new_zeros(d) if bias is None else bias
        given = (array(values), array(indices), array(atoms), array(shift))
        run_parts(decode_rows, parts_for(len(values)), *given, out.numpy())
        return out
    out = torch.nn.functional.embedding_bag(indices, atoms, mode="sum", per_sample_weights=values)
    return out if bias is None else out + bias


def _select_compiled(block: Tensor, bias: Tensor, k: int) -> tuple[Tensor, Tensor]:
    from unmix.kernels._topk_compiled import select_rows

    values = block.new_empty(len(block), k)
    indices = torch.empty(len(block), k, dtype=torch.int64)
    select_rows(0, 1, block.numpy(), array(bias), k, values.numpy(), indices.numpy())
    return values, indices


def _merge(best: tuple[Tensor, Tensor], found: tuple[Tensor, Tensor], k: int) -> tuple[Tensor, Tensor]:
    """Top k of two lists, the second of higher indices: a stable sort leaves ties to the lowest index."""
    values, indices = torch.cat([best[0], found[0]], 1), torch.cat([best[1], found[1]], 1)
    order = values.sort(dim=1, descending=True, stable=True).indices[:, :k].sort(dim=1).values
    return values.gather(1, order), indices.gather(1, order)


def _check(h: Tensor, weight: Tensor, bias: Tensor | None, k: int) -> tuple[int, int]:
    check_matrix("weight", weight)
    check_matrix("h", h, weight.shape[1])
    m = len(weight)
    if not 1 <= k <= m:
        raise UsageError(f"k: must be between 1 and the number of latents {m}, got {k}")
    if bias is not None and bias.shape != (m,):
        raise UsageError(f"bias: must be [{m}], got {list(bias.shape)}")
    if h.dtype != weight.dtype or (bias is not None and bias.dtype != h.dtype):
        raise UsageError(f"h: must have the dtype of weight and bias, got {h.dtype} and {weight.dtype}")
    return len(h), m
