"""Which way to a network's Jacobians is right for it: each is set beside autograd on a few rows before it is used."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unmix.core.errors import UsageError
from unmix.regimes.jacobian import Forward, Layered, Rowwise, Transformed, learnt, outputs
from unmix.regimes.running import ROUNDING, first_line

Source = Layered | Transformed | Rowwise
SOURCES: dict[str, type[Source]] = {"layers": Layered, "contract": Transformed, "rows": Rowwise}
FEW = 4  # rows that a way is tried on


def chosen(model: nn.Module, forward: Forward | None, x: Tensor, method: str = "auto") -> Source:
    """The first way to Jacobians, or the one that is named, that agrees with autograd on a few rows of x [n, ...].

    Raises `UsageError` where the one that is named does not, where a sample's outputs depend on the others, or where
    autograd does not reach the parameters.
    """
    few = x[:: max(1, len(x) // FEW)][:FEW]
    true, v = _by_autograd(model, forward, few)
    for name, kind in SOURCES.items():
        if method not in ("auto", name):
            continue
        source = kind(model, forward)
        why = _unlike(source, few, true, v)
        if not why:
            return source
        if method == name:
            raise UsageError(f"method={name!r}: {why}; use another, or auto")
    raise UsageError(f"model: {why}, and in no other way")


def _by_autograd(model: nn.Module, forward: Forward | None, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """The gradients {name: shape} of a random mixture v [n, c] of outputs, from autograd itself."""
    held = learnt(model)
    try:
        made = outputs(model, x, forward)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"model: it cannot be run on x {tuple(x.shape)} ({first_line(error)})") from error
    if not made.requires_grad:
        raise UsageError("model: its outputs do not depend on parameters that take gradients")
    v = torch.randn(made.shape, generator=torch.Generator().manual_seed(0)).to(made)
    found = torch.autograd.grad((made * v).sum(), list(held.values()), allow_unused=True)
    true = {
        name: torch.zeros_like(p) if g is None else g.to_dense()
        for (name, p), g in zip(held.items(), found, strict=True)
    }
    # Outputs that vanish by cancellation have the size of what cancels.
    size = float(
        torch.stack([(g * p.detach()).norm() for g, p in zip(true.values(), held.values(), strict=True)]).max()
    )
    if not _apart(model, forward, x, made.detach(), size):
        raise UsageError(
            "model: what it gives for a sample depends on the others or on chance (batch statistics, rows on another "
            "axis); such a model has no kernel"
        )
    return true, v


def _apart(model: nn.Module, forward: Forward | None, x: Tensor, together: Tensor, size: float) -> bool:
    """Whether each sample's outputs are the same alone as together with others."""
    try:
        with torch.no_grad():
            alone = torch.cat([outputs(model, row, forward) for row in x.split(1)])
    except Exception:  # one sample is not enough for it
        return False
    finite = torch.isfinite(together)
    if alone.shape != together.shape or not bool((torch.isfinite(alone) == finite).all()):
        return False
    gap, largest = (alone - together)[finite].abs(), together[finite].abs()
    if not gap.numel():
        raise UsageError("model: its outputs are not finite")
    return bool(gap.max() <= ROUNDING.get(together.dtype, 1e-3) / 10 * (largest.max() + size))


def _unlike(source: Source, x: Tensor, true: dict[str, Tensor], v: Tensor) -> str:
    """Where a source's Jacobian differs from autograd's gradients, in words, or nothing."""
    if isinstance(source, Layered) and (why := source.unknown()):
        return why
    largest = max(float(g.abs().max()) for g in true.values() if g.numel())
    share = max(1e-3, 4 * torch.finfo(v.dtype).eps ** 0.5)
    for name, expected in true.items():
        try:
            own = torch.einsum("nc,nc...->...", v, source.jacobian(x, [name])[name].detach())
        except UsageError:
            raise
        except Exception as error:  # operations that torch cannot derive in this way
            return f"{name} cannot be derived by it ({first_line(error)})"
        if not float((own - expected).abs().max()) <= share * float(expected.abs().max()) + 1e-5 * largest:
            return f"{name} is used otherwise than by its own layer"
    return ""
