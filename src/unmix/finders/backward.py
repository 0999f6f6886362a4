"""The gradient of a plain autoencoder under l1, written out; in small worlds building a graph would cost more."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from unmix.encoders.amortised import MLP, Amortised, Linear

LAYERS: dict[type[Amortised], tuple[tuple[str, str], ...]] = {
    Linear: (("weight", "shift"),),
    MLP: (("weight", "shift"), ("out", "out_shift")),
}


@torch.no_grad()
def l1_gradients(encoder: Amortised, tensors: Mapping[str, Tensor], x: Tensor, weight: float) -> Tensor:
    """Fill the `grad` of those of `tensors` that have one; returns the codes [b, m].

    loss = mean_i 1/2 |x_i - z_i D|^2 + weight |z_i|_1 with z = relu(.. relu(x W' + c) ..), layers as in `LAYERS`, and
    x [b, d] the rows less the bias. The bias enters target and encoder; rows are summed before they meet a matrix.
    """
    atoms, layers = tensors["atoms"], LAYERS[type(encoder)]
    inputs, codes = [], x
    for matrix, shift in layers:
        inputs.append(codes)
        codes = torch.addmm(tensors[shift], codes, tensors[matrix].T).relu_()
    error = torch.addmm(x, codes, atoms, beta=-1).mul_(1 / len(x))
    # With many rows and few columns the product of the transposes is several times faster.
    if atoms.grad is not None:
        atoms.grad.copy_(torch.mm(error.T, codes).T)
    slope = _through_relu(torch.mm(error, atoms.T).add_(weight / len(x)), codes)
    for (matrix, shift), given in zip(reversed(layers), reversed(inputs), strict=True):
        gradient = tensors[matrix].grad
        assert gradient is not None
        gradient.copy_(torch.mm(given.T, slope).T)
        if tensors[shift].grad is not None:
            torch.sum(slope, 0, out=tensors[shift].grad)
        if given is not x:
            slope = _through_relu(torch.mm(slope, tensors[matrix]), given)
    if tensors["bias"].grad is not None:
        first = tensors[layers[0][0]]
        torch.sub(error.sum(0), slope.sum(0) @ first, out=tensors["bias"].grad)
    return codes


def _through_relu(slope: Tensor, after: Tensor) -> Tensor:
    """The slope [n, m] where relu has given something, 0 elsewhere."""
    return torch.ops.aten.threshold_backward(slope, after, 0)
