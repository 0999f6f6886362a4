"""The plain torch reference of the selection of codes, on any device."""

from __future__ import annotations

from torch import Tensor


def select(before: Tensor, k: int, exact: bool = True) -> tuple[Tensor, Tensor]:
    """The k largest of each row of relu(before) [n, m] in rising order of index: values, indices [n, k].

    exact: ties go to the lowest index (this looks at the result, so it waits for a GPU); otherwise torch decides.
    `before` is rectified in place.
    """
    codes = before.relu_()
    values, indices = codes.topk(k, dim=1, sorted=True)
    if exact and k < codes.shape[1]:
        least = values[:, -1:]
        tied = (codes == least).sum(1) > (values == least).sum(1)
        rows = tied.nonzero().squeeze(1)
        if len(rows):
            found = codes[rows].sort(dim=1, descending=True, stable=True)
            values[rows], indices[rows] = found.values[:, :k], found.indices[:, :k]
    indices, order = indices.sort(dim=1)
    return values.gather(1, order), indices


def collect(before: Tensor, floor: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The entries of before [n, m] above floor [m]: number in each row [n], columns and values [nnz]."""
    above = before > floor
    rows, columns = above.nonzero(as_tuple=True)
    return above.sum(1), columns, before[rows, columns]
