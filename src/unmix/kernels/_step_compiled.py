"""Compiled loops of a training step on sparse codes: reconstruction, slopes, lists by latent, Adam."""

from __future__ import annotations

import numpy as np

from unmix.kernels._compiled import compiled


@compiled(fastmath={"contract"})
def _combine(values: np.ndarray, indices: np.ndarray, atoms: np.ndarray, out: np.ndarray) -> None:
    """out += values @ atoms[indices], four atoms at a time."""
    k, d = len(values), atoms.shape[1]
    slot = 0
    while slot + 4 <= k:
        a0, a1, a2, a3 = values[slot], values[slot + 1], values[slot + 2], values[slot + 3]
        r0, r1 = atoms[indices[slot]], atoms[indices[slot + 1]]
        r2, r3 = atoms[indices[slot + 2]], atoms[indices[slot + 3]]
        for i in range(d):
            out[i] += a0 * r0[i] + a1 * r1[i] + a2 * r2[i] + a3 * r3[i]
        slot += 4
    while slot < k:
        a0, r0 = values[slot], atoms[indices[slot]]
        for i in range(d):
            out[i] += a0 * r0[i]
        slot += 1


@compiled(fastmath={"contract", "reassoc", "nsz"})
def _dot(a: np.ndarray, b: np.ndarray) -> float:
    total = a[0] * 0
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


@compiled(fastmath={"contract", "reassoc", "nsz"})
def _two_dots(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> tuple[float, float]:
    first, second = a[0] * 0, a[0] * 0
    for i in range(len(a)):
        first += a[i] * b[i]
        second += a[i] * c[i]
    return first, second


@compiled(fastmath={"contract", "reassoc", "nsz"})
def _square_about(a: np.ndarray, centre: np.ndarray) -> float:
    total = a[0] * 0
    for i in range(len(a)):
        total += (a[i] - centre[i]) * (a[i] - centre[i])
    return total


@compiled()
def decode_rows(
    part: int,
    parts: int,
    values: np.ndarray,
    indices: np.ndarray,
    atoms: np.ndarray,
    bias: np.ndarray,
    out: np.ndarray,
) -> None:
    """out[i] = values[i] @ atoms[indices[i]] + bias."""
    n = len(values)
    for row in range(part * n // parts, (part + 1) * n // parts):
        for i in range(len(bias)):
            out[row, i] = bias[i]
        _combine(values[row], indices[row], atoms, out[row])


@compiled()
def centre_rows(
    part: int, parts: int, x: np.ndarray, shift: np.ndarray, inputs: np.ndarray, norms: np.ndarray
) -> None:
    """inputs = x - shift; norms[i] = |inputs[i]|."""
    n = len(x)
    for row in range(part * n // parts, (part + 1) * n // parts):
        for i in range(len(shift)):
            inputs[row, i] = x[row, i] - shift[i]
        norms[row] = np.sqrt(_dot(inputs[row], inputs[row]))


@compiled()
def reconstruct_rows(
    part: int,
    parts: int,
    pointers: np.ndarray,
    indices: np.ndarray,
    values: np.ndarray,
    atoms: np.ndarray,
    base: np.ndarray,
    sign: float,
    slopes: np.ndarray,
    error: np.ndarray,
    losses: np.ndarray,
    totals: np.ndarray,
) -> None:
    """Reconstruct rows from their codes and take the gradient of the codes.

    error[i] = z_i @ atoms + sign base[i]; losses[i] = |error[i]|^2; slopes[s] = <error[i], atoms[indices[s]]> for
    every slot s of row i; totals[part] += the sum of the errors (float64).
    """
    n, total = len(error), totals[part]
    for row in range(part * n // parts, (part + 1) * n // parts):
        start, end = pointers[row], pointers[row + 1]
        chosen, residual = indices[start:end], error[row]
        for i in range(len(residual)):
            residual[i] = sign * base[row, i]
        _combine(values[start:end], chosen, atoms, residual)
        losses[row] = _dot(residual, residual)
        for i in range(len(residual)):
            total[i] += residual[i]
        slope, count = slopes[start:end], end - start
        for slot in range(0, count - 1, 2):
            slope[slot], slope[slot + 1] = _two_dots(residual, atoms[chosen[slot]], atoms[chosen[slot + 1]])
        if count % 2:
            slope[count - 1] = _dot(residual, atoms[chosen[count - 1]])


@compiled()
def spread_rows(part: int, parts: int, rows: np.ndarray, centre: np.ndarray, spread: np.ndarray) -> None:
    """spread[i] = |rows[i] - centre|^2."""
    n = len(rows)
    for row in range(part * n // parts, (part + 1) * n // parts):
        spread[row] = _square_about(rows[row], centre)


@compiled()
def count_latents(values: np.ndarray, indices: np.ndarray, counts: np.ndarray, fired: np.ndarray) -> None:
    """counts[j + 1] += number of active codes of latent j, and fired[j] = True where there are any."""
    for slot in range(len(values)):
        if values[slot] != 0:
            counts[indices[slot] + 1] += 1
            fired[indices[slot]] = True


@compiled()
def sort_by_latent(
    pointers: np.ndarray,
    values: np.ndarray,
    indices: np.ndarray,
    slopes: np.ndarray,
    scale: float,
    offset: int,
    places: np.ndarray,
    rows: np.ndarray,
    code: np.ndarray,
    slope: np.ndarray,
    bias_slope: np.ndarray,
) -> None:
    """Put every active code into the list of its latent: its row + offset, and code and slope times scale [nnz].

    places [m + 1] holds the start of each list, and its end afterwards. bias_slope [m] grows by the slopes.
    """
    for row in range(len(pointers) - 1):
        for slot in range(pointers[row], pointers[row + 1]):
            value = values[slot]
            if value != 0:
                latent = indices[slot]
                place = places[latent]
                places[latent] = place + 1
                rows[place] = row + offset
                code[place] = value * scale
                slope[place] = slopes[slot] * scale
                bias_slope[latent] += slopes[slot] * scale


@compiled(fastmath={"contract"})
def _adam(
    parameter: np.ndarray,
    gradient: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    beta1: float,
    beta2: float,
    rate: float,
    scale: float,
    eps: float,
) -> None:
    for i in range(len(parameter)):
        g = gradient[i]
        m = first[i] + (g - first[i]) * (1 - beta1)
        v = beta2 * second[i] + (1 - beta2) * g * g
        first[i] = m
        second[i] = v
        parameter[i] -= rate * m / (np.sqrt(v) * scale + eps)


@compiled()
def update_bias(
    parameter: np.ndarray, first: np.ndarray, second: np.ndarray, gradient: np.ndarray, settings: np.ndarray
) -> None:
    """One Adam step of a vector; settings as in `update_latents`."""
    _adam(parameter, gradient, first, second, settings[0], settings[1], settings[2], settings[3], settings[4])


@compiled(fastmath={"contract"})
def _gather_two(
    start: int,
    end: int,
    rows: np.ndarray,
    period: int,
    slope: np.ndarray,
    inputs: np.ndarray,
    gradient: np.ndarray,
    code: np.ndarray,
    errors: np.ndarray,
    other: np.ndarray,
) -> None:
    """gradient += slope @ inputs[rows % period], other += code @ errors[rows], two entries at a time."""
    d = len(gradient)
    place = start
    while place + 2 <= end:
        x0, x1 = inputs[rows[place] % period], inputs[rows[place + 1] % period]
        e0, e1 = errors[rows[place]], errors[rows[place + 1]]
        s0, s1, z0, z1 = slope[place], slope[place + 1], code[place], code[place + 1]
        for i in range(d):
            gradient[i] += s0 * x0[i] + s1 * x1[i]
        for i in range(d):
            other[i] += z0 * e0[i] + z1 * e1[i]
        place += 2
    if place < end:
        x0, e0, s0, z0 = inputs[rows[place] % period], errors[rows[place]], slope[place], code[place]
        for i in range(d):
            gradient[i] += s0 * x0[i]
        for i in range(d):
            other[i] += z0 * e0[i]


@compiled(fastmath={"contract"})
def update_latents(
    part: int,
    parts: int,
    starts: np.ndarray,
    rows: np.ndarray,
    code: np.ndarray,
    slope: np.ndarray,
    inputs: np.ndarray,
    errors: np.ndarray,
    bounds: np.ndarray,
    orthogonal: bool,
    settings: np.ndarray,
    bias_slope: np.ndarray,
    own_slope: np.ndarray,
    pulls: np.ndarray,
    weight: np.ndarray,
    weight1: np.ndarray,
    weight2: np.ndarray,
    atoms: np.ndarray,
    atoms1: np.ndarray,
    atoms2: np.ndarray,
    bias: np.ndarray,
    bias1: np.ndarray,
    bias2: np.ndarray,
) -> None:
    """Gradients of each latent's two rows and their Adam step in one pass; the atoms end with unit norm.

    The list of latent j is [starts[j], starts[j + 1]); its entries point to rows of errors [p b, d] and, modulo b,
    of inputs [b, d]. settings = beta1, beta2, rate, scale, eps; bounds [parts + 1] cuts the latents into parts.
    pulls[part] += own_slope @ weight as it was (float64).
    """
    d = weight.shape[1]
    beta1, beta2, rate, scale, eps = settings[0], settings[1], settings[2], settings[3], settings[4]
    gradient = np.empty(d, weight.dtype)
    other = np.empty(d, weight.dtype)
    low, high, pull = bounds[part], bounds[part + 1], pulls[part]
    for latent in range(low, high):
        for i in range(d):
            gradient[i] = 0
            other[i] = 0
        _gather_two(
            starts[latent], starts[latent + 1], rows, len(inputs), slope, inputs, gradient, code, errors, other
        )
        atom, row, share = atoms[latent], weight[latent], own_slope[latent]
        for i in range(d):
            pull[i] += share * row[i]
        if orthogonal:
            share = _dot(other, atom)
            for i in range(d):
                other[i] -= share * atom[i]
        _adam(weight[latent], gradient, weight1[latent], weight2[latent], beta1, beta2, rate, scale, eps)
        _adam(atom, other, atoms1[latent], atoms2[latent], beta1, beta2, rate, scale, eps)
        norm = np.sqrt(_dot(atom, atom))
        if norm > 0:
            for i in range(d):
                atom[i] /= norm
    one, two = bias1[low:high], bias2[low:high]
    _adam(bias[low:high], bias_slope[low:high], one, two, beta1, beta2, rate, scale, eps)
