"""The linearised network: what training would give if the tangent kernel stayed as it is at the start."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unmix.core.errors import UsageError
from unmix.regimes.derivable import settle
from unmix.regimes.directional import Pushed, way_for
from unmix.regimes.jacobian import Forward, Transformed, frozen_copy, outputs


class Linearised(nn.Module):
    """f_lin(x) = f(x; theta_0) + J(x) (theta - theta_0) [n, c]: the lazy counterfactual of a network, to be trained.

    model: a network, copied in evaluation mode at theta_0 (dropout off, statistics fixed). The parameters are the
    moves theta - theta_0, zero at first, under the network's names with "." as "/". forward: called with (model, x)
    where that is not model(x). Source: Lee et al. 2019, arXiv 1902.06720.
    """

    _source: Transformed
    _way: str

    def __init__(self, model: nn.Module, forward: Forward | None = None) -> None:
        super().__init__()
        object.__setattr__(self, "_source", Transformed(frozen_copy(model), forward))
        self._way = ""
        self.moves = nn.ParameterDict(
            {name.replace(".", "/"): torch.zeros_like(p) for name, p in self._source.parameters.items()}
        )

    def forward(self, x: Tensor) -> Tensor:
        """Outputs [n, c] at x [n, ...]."""
        source = self._source
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            settle(source.model, x, source.forward)
            value = outputs(source.model, x, source.forward)
            self._way = self._way or way_for(source, x)
        along = {name: self.moves[name.replace(".", "/")] for name in source.parameters}
        change = Pushed(source, x, self._way)(along)
        return value + (change if torch.is_grad_enabled() else change.detach())


def lazy_outputs(times: Any, kernel: Any, start: Any, target: Any) -> np.ndarray:
    """Outputs [..., n] of gradient flow on 1/2 |f - y|^2 with a fixed kernel K [n, n]: y + exp(-K t) (f_0 - y).

    times [...]; start f_0 and target y [n]. Raises `UsageError` for shapes that do not fit.
    """
    K, f0, y = (np.asarray(v, float) for v in (kernel, start, target))
    if K.ndim != 2 or K.shape != (len(y), len(y)) or f0.shape != y.shape:
        raise UsageError(f"kernel {K.shape}, start {f0.shape}, target {y.shape}: expected [n, n], [n] and [n]")
    values, vectors = np.linalg.eigh(K)
    t = np.asarray(times, float)[..., None]
    return y + (np.exp(-t * np.maximum(values, 0)) * (vectors.T @ (f0 - y))) @ vectors.T
