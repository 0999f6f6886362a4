"""The empirical tangent kernel of any torch network: exact within a memory, by products, or sketched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from unmix.core.errors import Failure, UsageError
from unmix.core.seeds import Stream, as_stream
from unmix.regimes.choosing import Source, chosen
from unmix.regimes.derivable import settle
from unmix.regimes.directional import Pushed, pulled, way_for
from unmix.regimes.jacobian import Forward, Transformed, frozen_copy, outputs, outputs_of
from unmix.regimes.running import converted, undisturbed

Rates = Mapping[str, float] | Callable[[str], float] | None


@undisturbed
def tangent_kernel(
    model: nn.Module,
    x: Tensor,
    other: Tensor | None = None,
    *,
    method: Literal["auto", "layers", "contract", "rows", "products"] = "auto",
    reduce: Literal["full", "trace", "sum"] = "full",
    memory: int = 2**29,
    rates: Rates = None,
    dtype: torch.dtype | None = None,
    forward: Forward | None = None,
) -> Tensor:
    """The kernel of x [n, ...] with other [m, ...] (x itself without): [n, m, c, c], or [n, m] reduced.

    K_ij = sum_p eta_p (d f(x_i) / d theta_p) (d f(x_j) / d theta_p)^T over the parameters that take gradients, tied
    ones once, in evaluation mode; the model's weights, gradients, buffers, mode and the random state are left alone.
    Derivatives are those that autograd gives: none through the padding row of an embedding.
    method: layers (known layers only), contract (torch.func), rows (autograd, sample by sample: any module), auto
    (the first of these that agrees with autograd on a few rows), products (one backward pass and one derivative along
    a direction for each row; least memory). reduce: full; trace, the sum of the diagonal over outputs; sum, the
    kernel of the sum of outputs.
    memory: bound in bytes on what is held at a time beside the model, a copy of it and the result; more passes where
    it is small.
    rates: eta_p, by parameter name or by a function of it; 1 where not given. dtype: such as torch.float64.
    forward: called with (model, x) where that is not model(x), or gives more than one tensor.
    Raises `UsageError` for a method that is not right for the model, one whose outputs for a sample depend on the
    others (batch statistics), empty x, or memory for less than one sample.
    Source: Jacot, Gabriel, Hongler 2018, arXiv 1806.07572; Novak, Sohl-Dickstein, Schoenholz 2022, arXiv 2206.08720.
    """
    model, x, other = _prepared(model, x, other, dtype, forward)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        if method == "products":
            return _by_products(model, x, other, reduce, rates, forward)
        return _contracted(chosen(model, forward, x, method), x, other, reduce, memory, rates)


@dataclass(frozen=True)
class Sketch:
    """An estimate of a kernel [n, m] and the standard error [n, m] of its entries, from features [k, n + m, c]."""

    kernel: Tensor
    error: Tensor
    features: Tensor


@undisturbed
def sketched_kernel(
    model: nn.Module,
    x: Tensor,
    other: Tensor | None = None,
    *,
    draws: int = 256,
    rates: Rates = None,
    dtype: torch.dtype | None = None,
    forward: Forward | None = None,
    rng: int | Stream = 0,
) -> Sketch:
    """The trace kernel from `draws` random directions: E[(J v)(J v)^T] = J J^T for Gaussian v; no Jacobian is formed.

    Each direction costs one derivative along it on all of x; entries are unbiased, with the standard error of their
    mean over directions. Arguments as in `tangent_kernel`. Raises `UsageError` for fewer than 2 draws.
    """
    if draws < 2:
        raise UsageError(f"draws={draws}: at least 2, for a standard error")
    model, x, other = _prepared(model, x, other, dtype, forward)
    rows = x if other is None else torch.cat([x, other])
    source = Transformed(model, forward)
    scale = _scales(source.parameters, rates)
    features, generator = [], as_stream(rng).child("kernel sketch").torch()
    with torch.random.fork_rng(devices=[]):
        push = Pushed(source, rows, _checked(source, rows))
        for _ in range(draws):
            along = {n: scale[n] * torch.randn(p.shape, generator=generator).to(p) for n, p in push.values.items()}
            features.append(push(along).detach())
    phi = torch.stack(features)
    left, right = (phi, phi) if other is None else (phi[:, : len(x)], phi[:, len(x) :])
    mean = square = phi.new_zeros(())
    for a, b in zip(left, right, strict=True):
        product = a @ b.T
        mean, square = mean + product / draws, square + product**2 / draws
    return Sketch(mean, ((square - mean**2).clamp_min(0) / (draws - 1)).sqrt(), phi)


def sketched_distance(one: Sketch, two: Sketch) -> float:
    """S = 1 - <K1, K2> / (|K1| |K2|) of two sketched kernels of the same rows.

    Inner products come from halves of the directions that are independent, so that none of them is biased.
    """
    half = min(len(one.features), len(two.features)) // 2

    def kernels(sketch: Sketch) -> tuple[Tensor, Tensor]:
        parts = sketch.features[:half], sketch.features[half : 2 * half]
        return tuple(torch.einsum("kic,kjc->ij", p, p).double() / half for p in parts)  # type: ignore[return-value]

    (a, b), (c, d) = kernels(one), kernels(two)
    own, across = (a * b).sum() * (c * d).sum(), ((a * d).sum() + (b * c).sum()) / 2
    if own <= 0:
        raise Failure("sketched_distance: too few directions for these kernels; raise draws")
    return float(1 - across / own.sqrt())


@undisturbed
def kernel_times(
    model: nn.Module, x: Tensor, v: Tensor, *, rates: Rates = None, forward: Forward | None = None
) -> Tensor:
    """K v [n, c] for v [n, c] without forming K: one backward pass (J^T v), one derivative along it (J J^T v)."""
    model, x, _ = _prepared(model, x, None, None, forward)
    source = Transformed(model, forward)
    with torch.random.fork_rng(devices=[]):
        push = Pushed(source, x, _checked(source, x))
        return _product(push, _scales(source.parameters, rates), x, v.to(x.device))


def _product(push: Pushed, scale: dict[str, float], x: Tensor, v: Tensor) -> Tensor:
    """J(rows) eta J(x)^T v [len(rows), c], rows being those of `push`."""
    _, gradient = pulled(push.source, x, v)
    return push({name: scale[name] ** 2 * g for name, g in gradient.items()}).detach()


def _checked(source: Transformed, x: Tensor) -> str:
    """How to derive along directions, of a model whose samples are apart."""
    with torch.enable_grad():
        chosen(source.model, source.forward, x, "rows")
    return way_for(source, x)


def _by_products(
    model: nn.Module, x: Tensor, other: Tensor | None, reduce: str, rates: Rates, forward: Forward | None
) -> Tensor:
    source = Transformed(model, forward)
    scale, c = _scales(source.parameters, rates), outputs_of(source, x)
    rows = x if other is None else other
    push = Pushed(source, rows, _checked(source, x))
    shape = (len(x), len(rows), c, c) if reduce == "full" else (len(x), len(rows))
    kernel = None
    for i in range(len(x)):
        for o in range(1 if reduce == "sum" else c):
            v = torch.zeros(1, c, device=x.device)
            v[0, :] = 1.0 if reduce == "sum" else 0.0
            v[0, o] = 1.0
            found = _product(push, scale, x[i : i + 1], v)
            if kernel is None:
                kernel = found.new_zeros(shape)
            if reduce == "full":
                kernel[i, :, o, :] = found
            else:
                kernel[i] += found.sum(1) if reduce == "sum" else found[:, o]
    assert kernel is not None
    return kernel


def _contracted(source: Source, x: Tensor, other: Tensor | None, reduce: str, memory: int, rates: Rates) -> Tensor:
    rows = x if other is None else torch.cat([x, other])
    n, total = len(rows), reduce == "sum"
    c = 1 if total else outputs_of(source, x)
    scale, wide = _scales(source.parameters, rates), c if reduce == "full" else 1
    item = next(iter(source.parameters.values())).element_size()
    size = {name: p.numel() for name, p in source.parameters.items()}
    work = source.work(x, list(size))
    # Half of the bound for the Jacobian of all rows, the other half for making it block by block.
    half, largest = memory / 2 / item, max(size.values())
    columns = min(int(half / (n * c)), max(largest, int((half - work) / (2 * c))))
    block = int(half / (work + 2 * c * min(sum(size.values()), max(columns, largest))))
    if columns < 1 or block < 1:
        least = item * 2 * max(n * c, work + 2 * c * largest)
        raise UsageError(
            f"memory={memory}: these rows and outputs need {least} bytes at least; use method='products'"
        )
    left = len(x) * wide
    kernel = rows.new_zeros(left, (n if other is None else len(other)) * wide, dtype=_dtype(source))
    groups = _groups(size, columns)
    widths = [sum(end - begin for _, begin, end in group) for group in groups]
    buffer = kernel.new_empty(n * c * max(widths))  # one for all groups: a new one would lie beside the last
    for group, width in zip(groups, widths, strict=True):
        held = buffer[: n * c * width].view(n, c, width)
        names = list(dict.fromkeys(name for name, _, _ in group))
        for start in range(0, n, block):
            made = source.jacobian(rows[start : start + block], names, total)
            place = 0
            for name, begin, end in group:
                into = held[start : start + block, :, place : place + end - begin]
                part = made[name].detach().reshape(*made[name].shape[:2], -1)
                into.copy_(part[:, :, begin:end]).mul_(scale[name])
                place += end - begin
            del made, part
        flat = held.reshape(n * wide, -1)
        if other is not None:
            kernel.addmm_(flat[:left], flat[left:].T)
            continue
        stride = max(1, -(-left // 8))
        for start in range(0, left, stride):  # the upper triangle, in bands
            kernel[start : start + stride, start:].addmm_(flat[start : start + stride], flat[start:].T)
    if other is None:
        stride = max(1, -(-left // 8))
        for start in range(0, left, stride):
            stop = start + stride
            kernel[stop:, start:stop] = kernel[start:stop, stop:].T
    if reduce != "full":
        return kernel
    return kernel.reshape(len(x), c, -1, c).permute(0, 2, 1, 3)


def _groups(size: dict[str, int], columns: int) -> list[list[tuple[str, int, int]]]:
    """Columns of the Jacobian in groups of at most `columns`: parts (name, begin, end) of flat parameters."""
    groups: list[list[tuple[str, int, int]]] = [[]]
    free = columns
    for name, count in size.items():
        begin = 0
        while begin < count:
            if free == 0 or (begin == 0 and count > free and count <= columns and groups[-1]):
                groups.append([])
                free = columns
            end = min(count, begin + free)
            groups[-1].append((name, begin, end))
            free -= end - begin
            begin = end
    return [group for group in groups if group]


def _prepared(
    model: nn.Module, x: Tensor, other: Tensor | None, dtype: torch.dtype | None, forward: Forward | None
) -> tuple[nn.Module, Tensor, Tensor | None]:
    if len(x) == 0 or (other is not None and len(other) == 0):
        raise UsageError("x: no rows; give at least one")
    twin = frozen_copy(model, dtype)
    x, other = converted(x, None), converted(other, None)
    if dtype is not None:
        x = x.to(dtype) if x.is_floating_point() else x
        other = other.to(dtype) if other is not None and other.is_floating_point() else other
    if x.is_floating_point() and not bool(torch.isfinite(x).all()):
        raise UsageError("x: must be finite")
    with torch.random.fork_rng(devices=[]):
        settle(twin, x if other is None else torch.cat([x, other]), forward)
    return twin, x, other


def _scales(parameters: Mapping[str, Tensor], rates: Rates) -> dict[str, float]:
    if rates is None:
        return dict.fromkeys(parameters, 1.0)
    if not callable(rates) and (unknown := sorted(set(rates) - set(parameters))):
        raise UsageError(f"rates: no parameter {unknown[0]!r}; known: {', '.join(list(parameters)[:12])}")
    given = {name: float(rates(name) if callable(rates) else rates.get(name, 1.0)) for name in parameters}
    if bad := [name for name, rate in given.items() if not rate >= 0]:
        raise UsageError(f"rates: {bad[0]}={given[bad[0]]}: must be at least 0")
    return {name: rate**0.5 for name, rate in given.items()}


def _dtype(source: Source) -> torch.dtype:
    return next(iter(source.parameters.values())).dtype


def flat_outputs(model: nn.Module, x: Tensor, forward: Forward | None = None) -> Tensor:
    """The network's outputs [n, c] in evaluation mode, without gradient; the model is left alone."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        return outputs(frozen_copy(model), x, forward)
