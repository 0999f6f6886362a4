"""Distributions on the unit sphere S^{d-1}, exact and vectorised: uniform, von Mises-Fisher, by distance."""

from __future__ import annotations

import functools
import math

import numpy as np

from unmix.core.errors import UsageError

FINE, COARSE = 2048, 64


def uniform(n: int, d: int, draw: np.random.Generator) -> np.ndarray:
    """n rows [n, d] drawn uniformly from S^{d-1}."""
    return _unit(draw.standard_normal((n, d)))


def vmf(means: np.ndarray, concentration: float, draw: np.random.Generator) -> np.ndarray:
    """One von Mises-Fisher draw around each row of `means`: p(z | v) ~ exp(concentration <v, z>).

    means: [n, d], unit norm, d >= 2. concentration: > 0. Returns [n, d], unit norm, float64. The cosine is drawn by
    rejection from a transformed Beta variable (Wood 1994, Simulation of the von Mises Fisher distribution; Ulrich
    1984), written in 1 - cosine so that no digits are lost where the concentration is large.
    Raises `UsageError` for d < 2 or a concentration that is not positive.
    """
    n, d = _checked(means, concentration)
    return around(means, _vmf_gaps(n, d, float(concentration), draw), draw)


def around(means: np.ndarray, gaps: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Rows at cosine 1 - gaps [n] to the rows of `means` [n, d], in a direction that is uniform: [n, d]."""
    tangent = draw.standard_normal(means.shape)
    tangent -= np.einsum("ij,ij->i", tangent, means)[:, None] * means
    norms = np.sqrt(np.einsum("ij,ij->i", tangent, tangent))
    sines = np.sqrt(gaps * (2 - gaps))
    return means - gaps[:, None] * means + (sines / np.maximum(norms, 1e-300))[:, None] * tangent


def mean_cosine(d: int, concentration: float) -> float:
    """E<v, z> = I_{d/2}(k) / I_{d/2-1}(k) of von Mises-Fisher on S^{d-1} (modified Bessel functions).

    Evaluated by the continued fraction of the ratio, whose terms are all positive: nothing overflows or cancels.
    """
    order, k = d / 2 - 1, float(concentration)
    terms = 64 + int(2 * k)
    last = order + terms
    ratio = k / (last + 0.5 + math.sqrt((last + 1.5) ** 2 + k * k))  # Amos 1974, a lower bound that is nearly exact
    for step in range(terms, 0, -1):
        ratio = 1 / (2 * (order + step) / k + ratio)
    return ratio


def by_distance(
    means: np.ndarray, rate: float, power: float, draw: np.random.Generator, cap: float | None = None
) -> np.ndarray:
    """One draw around each row of `means` with density exp(-rate |z - v|^power) on the sphere, |.| the chord length.

    means: [n, d], unit norm, d >= 2. power 2 is von Mises-Fisher with concentration 2 rate, power 1 a Laplace
    distribution on the sphere. cap: largest angle to the mean in radians; None is the whole sphere.
    Returns [n, d] float64. Exact: the angle is drawn by rejection under a piecewise constant envelope.
    """
    n, d = _checked(means, rate)
    angles = _Angles.of(d, float(rate), float(power), math.pi if cap is None else float(cap)).draw(n, draw)
    return around(means, 2 * np.sin(angles / 2) ** 2, draw)


class _Angles:
    """Angles with density sin^{d-2}(t) exp(-rate (2 sin(t/2))^power) on [0, cap].

    This density rises to one mode and falls after it, for every power > 0: with the mode among the edges of the
    cells, the larger of a cell's two ends bounds it from above.
    """

    def __init__(self, d: int, rate: float, power: float, cap: float) -> None:
        self.d, self.rate, self.power = d, rate, power
        mode = self._mode(cap)
        best = self.log(mode)
        scan = np.union1d(np.geomspace(1e-12 * cap, cap, 4096), np.linspace(0, cap, 4096))
        bulk = scan[self.log(scan) > best - 30]
        low, high = (bulk.min(), bulk.max()) if len(bulk) else (0.0, cap)
        edges = np.unique(np.r_[np.linspace(low, high, FINE), np.linspace(0, cap, COARSE), mode])
        heights = self.log(edges) - best
        self.tops = np.maximum(heights[:-1], heights[1:])
        self.best, self.starts, self.widths = best, edges[:-1], np.diff(edges)
        self.edges = np.cumsum(self.widths * np.exp(self.tops))

    @classmethod
    @functools.lru_cache(maxsize=32)
    def of(cls, d: int, rate: float, power: float, cap: float) -> _Angles:
        """The table of these settings, made once."""
        return cls(d, rate, power, cap)

    def log(self, angles: np.ndarray | float) -> np.ndarray:
        """Logarithm of the density, up to a constant."""
        with np.errstate(divide="ignore"):
            sines = (self.d - 2) * np.log(np.sin(angles)) if self.d > 2 else 0.0
        return sines - self.rate * (2 * np.sin(np.asarray(angles) / 2)) ** self.power

    def _mode(self, cap: float) -> float:
        """Where the density is largest: (d - 2) (1 - tan^2 h) = rate power 2^power sin^power(h), h half the angle."""
        if self.d == 2:
            return 0.0
        low, high = 0.0, math.pi / 4
        for _ in range(200):
            half = (low + high) / 2
            rise = (self.d - 2) * (1 - math.tan(half) ** 2)
            fall = self.rate * self.power * (2 * math.sin(half)) ** self.power
            low, high = (half, high) if rise > fall else (low, half)
        return min(2 * low, cap)

    def draw(self, n: int, draw: np.random.Generator) -> np.ndarray:
        """n angles [n]."""
        angles = np.empty(n)
        todo = np.arange(n)
        while len(todo):
            cells = np.searchsorted(self.edges, draw.random(len(todo)) * self.edges[-1], side="right")
            cells = np.minimum(cells, len(self.edges) - 1)
            found = self.starts[cells] + draw.random(len(todo)) * self.widths[cells]
            kept = -draw.standard_exponential(len(todo)) < self.log(found) - self.best - self.tops[cells]
            angles[todo[kept]] = found[kept]
            todo = todo[~kept]
        return angles


def _vmf_gaps(n: int, d: int, k: float, draw: np.random.Generator) -> np.ndarray:
    """1 - cosine of n draws [n]."""
    m = d - 1
    b = m / (2 * k + math.sqrt(4 * k * k + m * m))
    rest = 2 * b / (1 + b)  # 1 - x0
    x0 = 1 - rest
    offset = math.log(4 * b / (1 + b) ** 2)
    gaps = np.empty(n)
    todo = np.arange(n)
    while len(todo):
        beta = draw.beta(m / 2, m / 2, len(todo))
        gap = 2 * b * beta / (1 - (1 - b) * beta)
        kept = k * (rest - gap) + m * (np.log(rest + x0 * gap) - offset) > -draw.standard_exponential(len(todo))
        if len(todo) == n and kept.all():
            return gap
        gaps[todo[kept]] = gap[kept]
        todo = todo[~kept]
    return gaps


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.sqrt(np.einsum("ij,ij->i", rows, rows)), 1e-300)[:, None]


def _checked(means: np.ndarray, concentration: float) -> tuple[int, int]:
    if means.ndim != 2 or means.shape[1] < 2:
        raise UsageError(f"means: expected [n, d] with d at least 2, got shape {list(means.shape)}")
    if not concentration > 0 or not math.isfinite(concentration):
        raise UsageError(f"concentration={concentration}: must be positive and finite")
    return means.shape
