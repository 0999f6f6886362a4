"""The one-neuron model f(x) = a w.x under gradient flow on whitened data: one closed form for every balance and sign.

Conventions: loss 1/2 |X beta - y|^2 with beta = a w and X^T X = I, target beta* = X^T y of length s; layer rates
eta_a (read-out) and eta_w (first layer). The conserved balance is delta = eta_w a^2 - eta_a |w|^2: positive is
upstream (the first layer is small and learns faster), zero balanced, negative downstream. Everything broadcasts like
numpy over leading axes: `times[:, None]` with `a0[None, :]` gives a table of times by starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from unmix.core.errors import UsageError

Array = np.ndarray
Rates = tuple[Any, Any]  # (eta_a, eta_w), numbers or arrays


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Where the neuron is: a [...], w [..., d], and the cosine phi [...] of w with the target; rates as given.

    phi is 0 where w or the target is zero.
    """

    a: Array
    w: Array
    phi: Array
    rates: Rates = (1.0, 1.0)

    @property
    def beta(self) -> Array:
        """The function a w [..., d]."""
        return self.a[..., None] * self.w

    @property
    def mu(self) -> Array:
        """Signed size a |w| [...]."""
        return self.a * np.linalg.norm(self.w, axis=-1)

    @property
    def kappa(self) -> Array:
        """eta_w a^2 + eta_a |w|^2 [...], the speed of the function; sqrt(delta^2 + 4 eta_a eta_w |beta|^2)."""
        return self.rates[1] * self.a**2 + self.rates[0] * np.square(self.w).sum(-1)

    @property
    def delta(self) -> Array:
        """The balance eta_w a^2 - eta_a |w|^2 [...]; the flow conserves it."""
        return balance(self.a, self.w, self.rates)


def balance(a: Any, w: Any, rates: Rates = (1.0, 1.0)) -> Array:
    """delta = eta_w a^2 - eta_a |w|^2 [...] of a [...] and w [..., d]."""
    return rates[1] * np.square(np.asarray(a, float)) - rates[0] * np.square(np.asarray(w, float)).sum(-1)


def initial(beta: Any, delta: Any, rates: Rates = (1.0, 1.0), sign: Any = 1.0) -> tuple[Array, Array]:
    """The start (a [...], w [..., d]) with a function beta [..., d], a balance delta [...] and the sign of a.

    a = sign sqrt((kappa + delta) / (2 eta_w)), w = beta / a. Raises `UsageError` for beta = 0 with delta < 0, where
    the direction of w is open.
    """
    beta, delta = np.asarray(beta, float), np.asarray(delta, float)
    size2 = np.square(beta).sum(-1)
    kappa = np.sqrt(delta**2 + 4 * rates[0] * rates[1] * size2)
    if np.any((size2 == 0) & (delta < 0)):
        raise UsageError("initial: beta = 0 with delta < 0 leaves the direction of w open; give a and w yourself")
    # kappa + delta loses all digits for delta << 0; the product of the two sums does not.
    above = np.where(delta >= 0, kappa + delta, 4 * rates[0] * rates[1] * size2 / _nonzero(kappa - delta))
    a = np.sign(sign) * np.sqrt(above / (2 * np.asarray(rates[1], float)))
    return a, beta / _nonzero(a)[..., None]


def rescale(a: Any, w: Any, delta: Any, rates: Rates = (1.0, 1.0)) -> Array:
    """The factor r [...] > 0 for which (r a, w / r) has balance delta and the same function; a [...], w [..., d].

    r^2 = [delta + sqrt(delta^2 + 4 eta_a eta_w a^2 |w|^2)] / (2 eta_w a^2). Raises `UsageError` where a unit with a
    zero weight cannot reach delta.
    """
    a2, w2 = np.square(np.asarray(a, float)), np.square(np.asarray(w, float)).sum(-1)
    return np.sqrt(rescale_squared(a2, w2, np.asarray(delta, float), rates))


def rescale_squared(a2: Array, w2: Array, delta: Array, rates: Rates = (1.0, 1.0)) -> Array:
    """r^2 of `rescale` from the squares a^2 and |w|^2, each [...]."""
    root = np.sqrt(delta**2 + 4 * rates[0] * rates[1] * a2 * w2)
    upper = (delta + root) / _nonzero(2 * rates[1] * a2)
    lower = 2 * rates[0] * w2 / _nonzero(root - delta)
    r2 = np.where(delta >= 0, upper, lower)
    if np.any((r2 <= 0) | ((a2 == 0) & (delta >= 0))):
        raise UsageError("rescale: a unit whose incoming or outgoing weights are zero cannot reach this balance")
    return r2


def flow(times: Any, a0: Any, w0: Any, target: Any, rates: Rates = (1.0, 1.0)) -> Trajectory:
    """The neuron at `times`, exactly, for every balance (zero too), layer rates and sign of a.

    a' = eta_a (w.beta* - a |w|^2), w' = eta_w (a beta* - a^2 w).
    v = w / a obeys a Riccati equation, so that (P, q) with w = c P, a = c q moves linearly:
    P_par = U + V E, q = R + S E, P_perp = exp(-(om + delta) t / 2) w_perp with E = exp(-om t),
    om^2 = delta^2 + 4 eta_a eta_w s^2, and 1 / c^2 is a sum of integrals of these exponentials.
    times [...], a0 [...], w0 [..., d], target beta* [..., d], rates (eta_a, eta_w) each [...]: broadcast. A saddle
    stays where it is. Raises `UsageError` for negative times or rates, NaN, or vectors of unlike length.
    Source: Kunin et al. 2024, arXiv 2406.06158, section 3 (the same flow by cases).
    """
    t, m = _checked_times(times), _Modes.of(a0, w0, target, rates)
    # On the stable manifold of a saddle the growing mode is absent: what decays slowest sets the scale instead.
    g = np.where(m.U == 0, np.minimum(m.lm, m.lp), 0.0)
    fall = np.exp(-(m.om - g / 2) * t)
    across = np.exp(-(m.lp - g) * t / 2)
    along, q = m.U + m.V * fall, m.R + m.S * fall
    inverse = (
        np.exp(-(m.lm - g) * t)
        + 2 * m.eta_a * np.where(m.U == 0, 0.0, m.U**2 * _between(m.lm, 0.0, t, 0.0))
        + 4 * m.eta_a * m.U * m.V * _between(m.lm, m.om, t, g)
        + 2 * m.eta_a * m.V**2 * _between(m.lm, 2 * m.om, t, g)
        + 2 * m.eta_a * np.square(m.wp).sum(-1) * _between(m.lm, m.lp, t, g)
    )
    c = 1 / np.sqrt(inverse)
    P = along[..., None] * m.b + across[..., None] * m.wp
    size = np.linalg.norm(P, axis=-1)
    phi = np.where(size > 0, along / _nonzero(size), 0.0)
    return Trajectory(c * q, c[..., None] * P, np.clip(phi, -1.0, 1.0), rates)


def basin(a0: Any, w0: Any, target: Any, rates: Rates = (1.0, 1.0)) -> Array:
    """The sign of a in the end [...]: 1 for w -> +beta*, -1 for w -> -beta*, 0 exactly on the separatrix.

    sgn(a0) for delta >= 0; sgn(w0.beta* + (a0 / 2 eta_a)(delta + om)) in general. Arguments as in `flow`.
    """
    m = _Modes.of(a0, w0, target, rates)
    return np.sign(np.where(m.s > 0, m.U, m.a0))


def limit(a0: Any, w0: Any, target: Any, rates: Rates = (1.0, 1.0)) -> Trajectory:
    """Where the flow ends: |a|^2 = (om + delta) / (2 eta_w), |w|^2 = (om - delta) / (2 eta_a), w along +-beta*.

    On the separatrix it ends in the saddle a = 0, w orthogonal to beta*. Arguments as in `flow`.
    """
    m = _Modes.of(a0, w0, target, rates)
    sign = np.sign(np.where(m.s > 0, m.U, m.a0))
    across = np.linalg.norm(m.wp, axis=-1)
    size = np.sqrt(np.maximum(m.lm, 0) / (2 * m.eta_a))
    at_saddle = np.sqrt(np.maximum(m.lm - m.lp, 0) / (2 * m.eta_a)) / _nonzero(across)
    saddle = ((m.s > 0) & (m.U == 0)) | (m.s == 0)
    w = np.where(saddle[..., None], at_saddle[..., None] * m.wp, (sign * size)[..., None] * m.b)
    a = np.where((m.s > 0) | (m.lp > m.lm), sign * np.sqrt(m.lp / (2 * m.eta_w)), 0.0)
    return Trajectory(a, w, np.where(saddle, 0.0, sign), rates)


def separatrix(a0: Any, delta: Any, target: Any, rates: Rates = (1.0, 1.0)) -> Array:
    """The component of w0 along beta* [...] that parts the two basins at read-out a0: -a0 (om + delta) / (2 eta_a s).

    a0 [...], delta [...], target [..., d].
    """
    s = np.linalg.norm(np.asarray(target, float), axis=-1)
    _, lp, _ = _speeds(np.asarray(delta, float), s, rates)
    return -np.asarray(a0, float) * lp / (2 * rates[0] * s)


def alignment_time(level: Any, a0: Any, w0: Any, target: Any, rates: Rates = (1.0, 1.0)) -> Array:
    """The last time [...] at which |phi| passes `level` (below 1) on its way to 1; 0 if it is always above.

    Infinite on the separatrix and for a target of length 0. Arguments as in `flow`.
    """
    level = np.asarray(level, float)
    if np.any((level <= 0) | (level >= 1)):
        raise UsageError(f"alignment_time: level={level}: must lie between 0 and 1")
    m = _Modes.of(a0, w0, target, rates)
    sign = np.sign(m.U)
    wanted = level / np.sqrt(1 - level**2) * np.linalg.norm(m.wp, axis=-1)
    grow, fall = np.abs(m.U), sign * m.V
    with np.errstate(divide="ignore", invalid="ignore"):
        # tan of the angle, times |w_perp|: grow e^{lp t/2} + fall e^{-lm t/2}; it rises from its only turn on.
        turn = np.where(fall > 0, np.log(fall * m.lm / (grow * m.lp)) / m.om, 0.0)
        low = np.maximum(np.nan_to_num(turn), 0.0)
        high = np.maximum(np.log((wanted + np.abs(fall)) / grow) * 2 / m.lp, low)
    open_ended = ~np.isfinite(high) | (grow == 0)
    low, high, wanted = np.broadcast_arrays(low, np.where(open_ended, 0.0, high), wanted)
    low, high = low.copy(), high.copy()

    def height(t: Array) -> Array:
        return grow * np.exp(m.lp * t / 2) + fall * np.exp(-m.lm * t / 2)

    above = height(low) >= wanted
    high = np.where(above, low, high)
    for _ in range(200):
        middle = (low + high) / 2
        passed = height(middle) >= wanted
        low, high = np.where(passed, low, middle), np.where(passed, middle, high)
    # Above the level at the turn already: then it was never below since the start, or it fell through it only once.
    return np.where(open_ended, np.inf, np.where(above, 0.0, high))


def delayed_time(level: Any, phi0: Any, delta: Any, length: Any, rates: Rates = (1.0, 1.0)) -> Array:
    """When a far downstream neuron (delta << 0) that starts at cosine phi0 > 0 reaches `level`, in the limit.

    phi' = eta_a eta_w s^2 / |delta| phi (1 - phi^2), hence t = |delta| / (eta_a eta_w s^2) [l(level) - l(phi0)] with
    l(p) = ln(p / sqrt(1 - p^2)). level, phi0, delta, length s of the target: [...], broadcast.
    """

    def lift(p: Any) -> Array:
        p = np.asarray(p, float)
        if np.any((p <= 0) | (p >= 1)):
            raise UsageError("delayed_time: level and phi0 must lie between 0 and 1")
        return np.log(p) - np.log1p(-(p**2)) / 2

    return np.abs(delta) / (rates[0] * rates[1] * np.square(length)) * (lift(level) - lift(phi0))


def metric(trajectory: Trajectory) -> Array:
    """M = eta_w a^2 I + eta_a w w^T [..., d, d]: beta' = -M X^T (X beta - y), and the tangent kernel is X M X^T."""
    a, w, (eta_a, eta_w) = trajectory.a, trajectory.w, trajectory.rates
    eye = np.eye(w.shape[-1])
    scale = np.asarray(eta_w * a**2)[..., None, None]
    return scale * eye + np.asarray(eta_a)[..., None, None] * w[..., :, None] * w[..., None, :]


def tangent_kernel(trajectory: Trajectory, x: Any) -> Array:
    """K = X M X^T [..., n, n] for observations x [n, d]."""
    x = np.asarray(x, float)
    return x @ metric(trajectory) @ x.T


def kernel_distance(one: Trajectory, two: Trajectory, gram: Any = None) -> Array:
    """S = 1 - <K1, K2> / (|K1| |K2|) [...] of the tangent kernels of two moments of one flow; gram = X^T X [d, d].

    Without gram the data are whitened. 0 where the kernels are proportional, 1 where they are orthogonal.
    """
    gram = np.eye(one.w.shape[-1]) if gram is None else np.asarray(gram, float)

    def inner(p: Trajectory, q: Trajectory) -> Array:
        eta_a, eta_w = one.rates
        pw, qw = p.w @ gram, q.w @ gram
        own = p.a**2 * np.square(qw).sum(-1) + q.a**2 * np.square(pw).sum(-1)
        return (
            eta_w**2 * p.a**2 * q.a**2 * np.square(gram).sum()
            + eta_a * eta_w * own
            + eta_a**2 * (pw * q.w).sum(-1) ** 2
        )

    return 1 - inner(one, two) / np.sqrt(inner(one, one) * inner(two, two))


@dataclass(frozen=True)
class _Modes:
    """Coefficients of the linear motion of (P, q): see `flow`."""

    a0: Array
    s: Array
    b: Array
    wp: Array
    om: Array
    lm: Array  # om - delta
    lp: Array  # om + delta
    U: Array
    V: Array
    R: Array
    S: Array
    eta_a: Array
    eta_w: Array

    @staticmethod
    def of(a0: Any, w0: Any, target: Any, rates: Rates) -> _Modes:
        a0, w0, target = (np.asarray(v, float) for v in (a0, w0, target))
        eta_a, eta_w = (np.asarray(v, float) for v in rates)
        if w0.ndim < 1 or target.ndim < 1 or w0.shape[-1] != target.shape[-1]:
            raise UsageError(f"w0 {w0.shape} and target {target.shape} must end in the same number of dimensions d")
        if not all(np.isfinite(v).all() for v in (a0, w0, target)):
            raise UsageError("a0, w0 and target must be finite numbers")
        if np.any(eta_a <= 0) or np.any(eta_w <= 0):
            raise UsageError(f"rates={rates}: both must be positive")
        s = np.linalg.norm(target, axis=-1)
        b = target / _nonzero(s)[..., None]
        A = (w0 * b).sum(-1)
        wp = w0 - A[..., None] * b
        delta = eta_w * a0**2 - eta_a * np.square(w0).sum(-1)
        lm, lp, om = _speeds(delta, s, (eta_a, eta_w))
        twice = _nonzero(2 * om)
        U = (lm * A + 2 * eta_w * s * a0) / twice
        V = (lp * A - 2 * eta_w * s * a0) / twice
        S = np.where(om > 0, (lm * a0 - 2 * eta_a * s * A) / twice, a0 / 2)
        R = np.where(s > 0, U * lp / _nonzero(2 * eta_w * s), np.where(om > 0, lp * a0 / twice, a0 / 2))
        return _Modes(a0, s, b, wp, om, lm, lp, U, V, R, S, eta_a, eta_w)


def _speeds(delta: Array, s: Array, rates: Rates) -> tuple[Array, Array, Array]:
    """om - delta, om + delta and om, without cancellation."""
    cross = 4 * rates[0] * rates[1] * s**2
    om = np.sqrt(delta**2 + cross)
    large = _nonzero(om + np.abs(delta))
    small = cross / large
    return np.where(delta >= 0, small, om - delta), np.where(delta >= 0, om + delta, small), om


def _between(x: Array, y: Any, t: Array, g: Any) -> Array:
    """exp(g t) (exp(-y t) - exp(-x t)) / (x - y); t exp((g - x) t) where x = y."""
    low, gap = np.minimum(x, y), np.abs(x - y)
    return np.exp(-(low - g) * t) * np.where(gap * t > 0, -np.expm1(-gap * t) / _nonzero(gap), t)


def _nonzero(value: Any) -> Array:
    value = np.asarray(value, float)
    return np.where(value == 0, 1.0, value)


def _checked_times(times: Any) -> Array:
    t = np.asarray(times, float)
    if np.any(~(t >= 0)) or np.any(np.isinf(t)):
        raise UsageError("times must be finite and at least 0; `limit` gives the end")
    return t
