"""Compiled loops of the TopK encoder: selection by block maxima, decoding, and the fused training pass."""

from __future__ import annotations

import numpy as np

from unmix.kernels._compiled import compiled

BLOCK = 16  # neighbouring columns of which one maximum is taken
GROUP = 4  # neighbouring blocks of which one maximum is taken


@compiled(fastmath={"nnan", "nsz", "reassoc"})
def _block_maxima(row, bias, maxima):
    for block in range(len(maxima)):
        start = block * BLOCK
        best = row[start] + bias[start]
        for column in range(start + 1, start + BLOCK):
            best = max(best, row[column] + bias[column])
        maxima[block] = best


@compiled()
def _kth_largest(work, count, k):
    """The k-th largest of work[:count] (1 <= k <= count); reorders work."""
    low, high, target = 0, count - 1, k - 1
    while low < high:
        middle = (low + high) >> 1
        a, b, c = work[low], work[middle], work[high]
        pivot = max(min(a, b), min(max(a, b), c))
        i, j = low, high
        while i <= j:
            while work[i] > pivot:
                i += 1
            while work[j] < pivot:
                j -= 1
            if i <= j:
                work[i], work[j] = work[j], work[i]
                i += 1
                j -= 1
        if target <= j:
            high = j
        elif target >= i:
            low = i
        else:
            break
    return work[target]


@compiled()
def _lower_bound(maxima, k, work):
    """The k-th largest of the maxima; a bound from maxima of groups leaves few of them to look at."""
    groups, count = len(maxima) // GROUP, 0
    least = maxima[0] - np.inf
    if groups >= 2 * k:
        for group in range(groups):
            best = maxima[group * GROUP]
            for place in range(group * GROUP + 1, (group + 1) * GROUP):
                best = max(best, maxima[place])
            work[group] = best
        least = _kth_largest(work, groups, k)
    for place in range(len(maxima)):
        work[count] = maxima[place]
        count += maxima[place] >= least
    return _kth_largest(work, count, k)


@compiled()
def _collect(row, bias, floor, start, end, candidates, work, found):
    for column in range(start, end):
        # Written always and counted when wanted: a branch here would be guessed wrong as often as right.
        value = row[column] + bias[column]
        candidates[found] = column
        work[found] = value
        found += (value > 0) & (value >= floor)
    return found


@compiled()
def _select(row, bias, k, maxima, work, kept, candidates, values, indices):
    """Top k of relu(row + bias): values and column numbers in rising order of column, ties to the lowest column."""
    width = len(row)
    if np.isnan(row[0] + bias[0]):
        for slot in range(k):
            values[slot] = np.nan
            indices[slot] = slot
        return
    zero = row[0] * 0
    floor, found, scanned = zero, 0, 0
    if len(maxima) >= 2 * k:
        # k blocks have a maximum of at least the k-th largest maximum, so k values do: nothing smaller is needed.
        _block_maxima(row, bias, maxima)
        floor = max(floor, _lower_bound(maxima, k, work))
        for block in range(len(maxima)):
            if maxima[block] >= floor:
                start = block * BLOCK
                found = _collect(row, bias, floor, start, start + BLOCK, candidates, kept, found)
        scanned = len(maxima) * BLOCK
    found = _collect(row, bias, floor, scanned, width, candidates, kept, found)
    if found > k:
        for place in range(found):
            work[place] = kept[place]
        least = _kth_largest(work, found, k)
        equal = k
        for place in range(found):
            equal -= kept[place] > least
        slot = 0
        for place in range(found):
            value = kept[place]
            if value > least or (value == least and equal > 0):
                equal -= value == least
                values[slot] = value
                indices[slot] = candidates[place]
                slot += 1
        return
    # Fewer than k are positive: the lowest columns that are not fill the other slots with zeros.
    spare = k - found
    place = slot = column = 0
    while slot < k:
        if place < found and candidates[place] == column:
            values[slot] = kept[place]
            indices[slot] = column
            slot += 1
            place += 1
        elif spare > 0:
            values[slot] = zero
            indices[slot] = column
            slot += 1
            spare -= 1
        elif place < found:
            column = candidates[place]
            continue
        column += 1


@compiled()
def select_rows(part, parts, block, bias, k, values, indices):
    """Top k of relu(block + bias) of each row: block [n, m], bias [m], values and indices [n, k] are filled."""
    n, width = block.shape
    maxima = np.empty(width // BLOCK, block.dtype)
    work = np.empty(width, block.dtype)
    kept = np.empty(width + 1, block.dtype)
    candidates = np.empty(width + 1, np.int64)
    for row in range(part * n // parts, (part + 1) * n // parts):
        _select(block[row], bias, k, maxima, work, kept, candidates, values[row], indices[row])


@compiled(fastmath={"contract"})
def _combine(values, indices, atoms, out):
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
def _dot(a, b):
    total = a[0] * 0
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


@compiled(fastmath={"contract", "reassoc", "nsz"})
def _two_dots(a, b, c):
    first, second = a[0] * 0, a[0] * 0
    for i in range(len(a)):
        first += a[i] * b[i]
        second += a[i] * c[i]
    return first, second


@compiled(fastmath={"contract", "reassoc", "nsz"})
def _square_about(a, centre):
    total = a[0] * 0
    for i in range(len(a)):
        total += (a[i] - centre[i]) * (a[i] - centre[i])
    return total


@compiled()
def decode_rows(part, parts, values, indices, atoms, bias, out):
    """out[i] = values[i] @ atoms[indices[i]] + bias."""
    n = len(values)
    for row in range(part * n // parts, (part + 1) * n // parts):
        for i in range(len(bias)):
            out[row, i] = bias[i]
        _combine(values[row], indices[row], atoms, out[row])


@compiled()
def select_and_decode(
    part, parts, block, bias, k, atoms, target, centre, values, indices, slopes, error, losses, spread
):
    """One pass over rows of pre-activations: select, reconstruct, and take the gradient of the values.

    error[i] = values[i] @ atoms[indices[i]] - target[i]; losses[i] = |error[i]|^2;
    slopes[i, s] = <error[i], atoms[indices[i, s]]> where values[i, s] > 0, else 0;
    spread[i] = |target[i] - centre|^2.
    """
    n, width = block.shape
    maxima = np.empty(width // BLOCK, block.dtype)
    work = np.empty(width, block.dtype)
    kept = np.empty(width + 1, block.dtype)
    candidates = np.empty(width + 1, np.int64)
    for row in range(part * n // parts, (part + 1) * n // parts):
        _select(block[row], bias, k, maxima, work, kept, candidates, values[row], indices[row])
        residual, chosen, slope = error[row], indices[row], slopes[row]
        for i in range(len(residual)):
            residual[i] = -target[row, i]
        _combine(values[row], chosen, atoms, residual)
        losses[row] = _dot(residual, residual)
        spread[row] = _square_about(target[row], centre)
        for slot in range(0, k - 1, 2):
            slope[slot], slope[slot + 1] = _two_dots(residual, atoms[chosen[slot]], atoms[chosen[slot + 1]])
        if k % 2:
            slope[k - 1] = _dot(residual, atoms[chosen[k - 1]])
        for slot in range(k):
            if values[row, slot] == 0:
                slope[slot] = 0


@compiled()
def count_latents(values, indices, counts, fired):
    """counts[j + 1] += number of active codes of latent j, and fired[j] = True where there are any."""
    n, k = values.shape
    for row in range(n):
        for slot in range(k):
            if values[row, slot] != 0:
                counts[indices[row, slot] + 1] += 1
                fired[indices[row, slot]] = True


@compiled()
def sort_by_latent(values, indices, slopes, scale, offset, places, rows, code, slope, bias_slope):
    """Put every active code into the list of its latent: its row + offset, and code and slope times scale [nnz].

    places [m + 1] holds the start of each list, and its end afterwards. bias_slope [m] grows by the slopes.
    """
    n, k = values.shape
    for row in range(n):
        for slot in range(k):
            value = values[row, slot]
            if value != 0:
                latent = indices[row, slot]
                place = places[latent]
                places[latent] = place + 1
                rows[place] = row + offset
                code[place] = value * scale
                slope[place] = slopes[row, slot] * scale
                bias_slope[latent] += slopes[row, slot] * scale


@compiled(fastmath={"contract"})
def _adam(parameter, gradient, first, second, beta1, beta2, rate, scale, eps):
    for i in range(len(parameter)):
        g = gradient[i]
        m = first[i] + (g - first[i]) * (1 - beta1)
        v = beta2 * second[i] + (1 - beta2) * g * g
        first[i] = m
        second[i] = v
        parameter[i] -= rate * m / (np.sqrt(v) * scale + eps)


@compiled()
def update_bias(parameter, first, second, gradient, settings):
    """One Adam step of a vector; settings as in `update_latents`."""
    _adam(parameter, gradient, first, second, settings[0], settings[1], settings[2], settings[3], settings[4])


@compiled(fastmath={"contract"})
def _gather_two(start, end, rows, period, slope, inputs, gradient, code, errors, other):
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
    part,
    parts,
    starts,
    rows,
    code,
    slope,
    inputs,
    errors,
    bounds,
    orthogonal,
    settings,
    bias_slope,
    weight,
    weight1,
    weight2,
    atoms,
    atoms1,
    atoms2,
    bias,
    bias1,
    bias2,
):
    """Gradients of each latent's two rows and their Adam step in one pass; the atoms end with unit norm.

    The list of latent j is [starts[j], starts[j + 1]); its entries point to rows of errors [p b, d] and, modulo b,
    of inputs [b, d]. settings = beta1, beta2, rate, scale, eps; bounds [parts + 1] cuts the latents into parts.
    """
    d = weight.shape[1]
    beta1, beta2, rate, scale, eps = settings[0], settings[1], settings[2], settings[3], settings[4]
    gradient = np.empty(d, weight.dtype)
    other = np.empty(d, weight.dtype)
    low, high = bounds[part], bounds[part + 1]
    for latent in range(low, high):
        for i in range(d):
            gradient[i] = 0
            other[i] = 0
        _gather_two(
            starts[latent], starts[latent + 1], rows, len(inputs), slope, inputs, gradient, code, errors, other
        )
        atom = atoms[latent]
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
