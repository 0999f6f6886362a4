"""Conditionals: how latents scatter around a class vector or around the latent before, on a sphere, a box or R^d."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

from unmix.core.errors import UsageError
from unmix.worlds import sphere
from unmix.worlds.anisotropic import anisotropic, log_normaliser

ON_SPHERE = (
    "vmf",
    "laplace",
    "generalised-normal",
    "projected-normal",
    "projected-laplace",
    "projected-generalised-normal",
    "anisotropic",
)
FLAT = ("normal", "laplace", "generalised-normal")
CAPPED = ("vmf", "laplace", "generalised-normal")
BLOCK = 1 << 22


@dataclass(frozen=True)
class Conditional:
    """p(z | v), v a class vector or an earlier latent. Every density below is up to a constant; k = concentration.

    name, space: on the sphere (with respect to its area)
      vmf                    exp(k <v, z>)
      laplace                exp(-k |z - v|), |.| the chord length
      generalised-normal     exp(-k |z - v|^shape)
      projected-...          z = (v + e) / |v + e|, e as in R^d below
      anisotropic            exp(-sum_i r_i (z_i - v_i)^2), r_i = k / 2 times powers from anisotropy^-1/2 to
                             anisotropy^1/2; anisotropy 1 is vmf
    and in R^d, or the box [-1, 1]^d where the same density is cut off at the walls
      normal                 exp(-k / 2 sum_i e_i^2), e = z - v
      laplace                exp(-k sum_i |e_i|)
      generalised-normal     exp(-k sum_i |e_i|^shape)
    cap: largest angle between z and v in radians for vmf, laplace and generalised-normal on the sphere.
    """

    name: str
    space: str = "sphere"
    concentration: float = 10.0
    shape: float = 1.5
    anisotropy: float = 4.0
    cap: float | None = None

    def __post_init__(self) -> None:
        known = ON_SPHERE if self.space == "sphere" else FLAT
        if self.name not in known:
            raise UsageError(
                f"conditional={self.name} with space={self.space}: there are {', '.join(known)} on this space"
            )
        if self.cap is not None and (self.space != "sphere" or self.name not in CAPPED):
            raise UsageError(
                f"cap={self.cap}: only for {', '.join(CAPPED)} on the sphere, not {self.name} on the {self.space}"
            )

    @property
    def power(self) -> float:
        """Exponent of the distance."""
        name = self.name.removeprefix("projected-")
        return {"vmf": 2.0, "normal": 2.0, "laplace": 1.0, "anisotropic": 2.0}.get(name, self.shape)

    @property
    def rate(self) -> float:
        """Factor of the distance^power in the exponent."""
        halved = self.name in ("vmf", "normal", "projected-normal")
        return self.concentration / 2 if halved else self.concentration

    @property
    def variance(self) -> float:
        """Variance of each independent entry of e in R^d."""
        inverse = 1 / self.power
        return math.exp(math.lgamma(3 * inverse) - math.lgamma(inverse)) * self.rate ** (-2 * inverse)

    def rates(self, d: int) -> np.ndarray:
        """Factors of the squared distances of the anisotropic distribution [d]; their geometric mean is k / 2."""
        return self.concentration / 2 * self.anisotropy ** np.linspace(-0.5, 0.5, d)

    def sample(self, means: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        """One latent around each row of `means` [n, d]: [n, d] float64."""
        if self.space == "box":
            return self._in_box(means, draw)
        if self.space == "euclidean":
            return means + self._noise(means.shape, draw)
        if self.name.startswith("projected-"):
            z = means + self._noise(means.shape, draw)
            return z / np.sqrt(np.einsum("ij,ij->i", z, z))[:, None]
        if self.name == "anisotropic":
            return anisotropic(means, self.rates(means.shape[1]), draw)
        if self.name == "vmf" and self.cap is None:
            return sphere.vmf(means, self.concentration, draw)
        return sphere.by_distance(means, self.rate, self.power, draw, self.cap)

    def log_density(self, z: np.ndarray, means: np.ndarray) -> np.ndarray:
        """log p(z | v) for every latent [n, d] and every row of `means` [C, d]: [n, C].

        Up to a constant that is the same for all; -inf outside the support.
        """
        if self.space != "sphere":
            log = -self.rate * _distances(z, means, self.power)
            return log if self.space == "euclidean" else log - self._log_inside(means)
        if self.name == "anisotropic":
            root = np.sqrt(self.rates(means.shape[1]))
            return -_distances(z * root, means * root, 2.0) - log_normaliser(means, root**2)
        if self.name.startswith("projected-"):
            return self._projected(z, means)
        cosines = np.clip(z @ means.T, -1, 1)
        if self.name == "vmf":
            log = self.concentration * cosines
        else:
            log = -self.rate * (2 - 2 * cosines) ** (self.power / 2)
        # z may be rounded to single precision: a latent on the rim of the cap is inside.
        return log if self.cap is None else np.where(cosines >= math.cos(self.cap) - 1e-6, log, -np.inf)

    def _noise(self, shape: tuple[int, ...], draw: np.random.Generator) -> np.ndarray:
        """Independent entries with density exp(-rate |e|^power)."""
        if self.power == 2:
            return draw.standard_normal(shape) / math.sqrt(2 * self.rate)
        if self.power == 1:
            return draw.laplace(0, 1 / self.rate, shape)
        size = (draw.standard_gamma(1 / self.power, shape) / self.rate) ** (1 / self.power)
        return np.where(draw.random(shape) < 0.5, -size, size)

    def _in_box(self, means: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        """The same noise given that no coordinate leaves the box: by the inverse of the distribution function."""
        below, above = self._half(-1 - means), self._half(1 - means)
        share = below + (above - below) * draw.random(means.shape)  # 0 at the mean, between -1 and 1
        size = np.abs(share).clip(max=1 - 1e-16)
        if self.power == 1:
            size = -np.log1p(-size) / self.rate
        elif self.power == 2:
            size = special.erfinv(size) / math.sqrt(self.rate)
        else:
            size = (special.gammaincinv(1 / self.power, size) / self.rate) ** (1 / self.power)
        return np.clip(means + np.sign(share) * size, -1, 1)

    def _half(self, e: np.ndarray) -> np.ndarray:
        """2 F(e) - 1, F the distribution function of the noise."""
        return np.sign(e) * special.gammainc(1 / self.power, self.rate * np.abs(e) ** self.power)

    def _log_inside(self, means: np.ndarray) -> np.ndarray:
        """log of the probability that the noise stays in the box: [C]."""
        return np.log((self._half(1 - means) - self._half(-1 - means)) / 2).sum(1)

    def _projected(self, z: np.ndarray, means: np.ndarray) -> np.ndarray:
        """log of the integral over r of r^{d-1} exp(-rate sum_i |r z_i - v_i|^power), by the trapezoid rule."""
        n, d = z.shape
        scale = self.rate ** (-1 / self.power)
        longest = float((np.abs(means) ** self.power).sum(1).max() ** (1 / self.power))
        reach = longest + scale
        for _ in range(50):
            reach = longest + scale * (40 + (d - 1) * math.log(max(2, reach / min(1, scale)))) ** (1 / self.power)
        nodes = int(np.clip(24 * reach / min(scale, 1), 256, 8192))
        radii = np.linspace(0, reach, nodes + 1)[1:]
        out = np.empty((n, len(means)))
        if self.power == 2:
            cosines, norms = z @ means.T, (means * means).sum(1)
        step = max(1, BLOCK // (len(means) * nodes))
        for start in range(0, n, step):
            rows = slice(start, start + step)
            if self.power == 2:
                distance = radii**2 - 2 * radii * cosines[rows, :, None] + norms[:, None]
            else:
                distance = np.zeros((len(z[rows]), len(means), nodes))
                for j in range(d):
                    part = np.abs(radii * z[rows, j, None, None] - means[:, j, None])
                    distance += part if self.power == 1 else part**self.power
            out[rows] = special.logsumexp((d - 1) * np.log(radii) - self.rate * distance, axis=2)
        return out


def _distances(z: np.ndarray, means: np.ndarray, power: float) -> np.ndarray:
    """sum_i |z_i - v_i|^power for every pair: [n, C]."""
    if power == 2:
        return np.maximum((z * z).sum(1)[:, None] - 2 * z @ means.T + (means * means).sum(1), 0)
    total = np.zeros((len(z), len(means)))
    for j in range(z.shape[1]):
        total += np.abs(z[:, j, None] - means[:, j]) ** power
    return total
