"""Tracks: latents of real things over time, the differences between consecutive frames, and laws fitted to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from unmix.core.array_files import array_names, read_arrays
from unmix.core.errors import UsageError
from unmix.core.rows import as_array
from unmix.core.tables import is_table, open_table

COLUMNS = ("source", "sequence", "object", "frame", "x", "y", "area")
LOWEST, HIGHEST = 0.05, 20.0
SPIKE = 0.1  # share of equal differences from which on they are no draw of a density
QUIET = 0.1
CHI_SQUARE = 3.841458820694124  # 95 % point, one degree of freedom


@dataclass(frozen=True)
class Tracks:
    """Latents over time. values: [n, f] float64. names: of the latents. group: [n] which track. time: [n] frames.

    source: [n] where a track is from. Rows are ordered by group, then time.
    """

    values: np.ndarray
    names: tuple[str, ...]
    group: np.ndarray
    time: np.ndarray
    source: np.ndarray

    def steps(self) -> np.ndarray:
        """Numbers of the rows whose next row is the next frame of the same track."""
        return np.flatnonzero((np.diff(self.group) == 0) & (np.diff(self.time) == 1))

    def differences(self) -> np.ndarray:
        """values(t + 1) - values(t), consecutive frames only: [steps, f]."""
        rows = self.steps()
        return self.values[rows + 1] - self.values[rows]

    def of(self, source: str) -> Tracks:
        """The tracks of one source. Raises `UsageError` where there are none."""
        keep = self.source == source
        if not keep.any():
            raise UsageError(f"source={source}: not there; known: {', '.join(map(str, self.sources))}")
        return Tracks(self.values[keep], self.names, self.group[keep], self.time[keep], self.source[keep])

    @property
    def sources(self) -> list[str]:
        """Names of the sources, in the order of their first row."""
        return list(dict.fromkeys(map(str, self.source)))


@dataclass(frozen=True)
class Fit:
    """What was fitted to the differences d of one latent.

    alpha, centre, scale: of the generalised Laplace law p(d) ~ exp(-(|d - centre| / scale)^alpha). low, high: 95 %
    interval of alpha by the likelihood ratio, as if differences were independent. likelihood: log-likelihood under
    "generalised Laplace", "Laplace" and "Gaussian". kurtosis: excess, 0 for a Gaussian. still: share of differences
    that are exactly 0. moves: share that is larger than a tenth of the standard deviation. common, spike: the
    commonest difference, and the share that is exactly that.
    """

    name: str
    count: int
    alpha: float
    centre: float
    scale: float
    low: float
    high: float
    likelihood: dict[str, float]
    kurtosis: float
    still: float
    moves: float
    common: float
    spike: float

    @property
    def best(self) -> str:
        """The law with the largest likelihood."""
        return max(self.likelihood, key=lambda law: self.likelihood[law])

    @property
    def holds(self) -> bool | None:
        """Whether alpha < 2, as SlowVAE's theorem asks; None where the interval has 2 in it."""
        return True if self.high < 2 else False if self.low > 2 else None

    @property
    def caution(self) -> str | None:
        """Why alpha is no estimate, or a bad one: the search ended there, or a spike is no part of such a law."""
        spike = ""
        if self.spike >= SPIKE and self.spike * self.count >= 8:
            spike = f"{self.spike:.0%} of the differences are exactly {self.common:g}, a spike that no density has"
        for bound in (LOWEST, HIGHEST):
            if abs(np.log(self.alpha / bound)) < 1e-3:
                return f"alpha is at {bound:g}, the bound of its search, and no estimate" + (spike and f": {spike}")
        if self.low == LOWEST or self.high == HIGHEST:
            spike = f"the interval ends at a bound of the search{spike and '; '}{spike}"
        return spike or None


def read_tracks(path: str | Path) -> Tracks:
    """Tracks from a table or arrays.

    path: a table (.csv, .csv.gz, .parquet) with columns source, sequence, object, frame, x, y, area (source may be
    absent); or arrays (.npz, .safetensors) z [n, f] (or latents), group [n] and time [n]; or masks, as `MaskWorld`
    takes them, whose latents are then x, y, area. Raises `UsageError` for a missing file, columns, or values that are
    not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    if not is_table(path):
        return _of_arrays(path)
    table = open_table(path, "tracks")
    if missing := [name for name in COLUMNS[1:] if name not in table.names]:
        raise UsageError(f"{path}: no column {missing[0]}; a table of tracks has {', '.join(COLUMNS)}")
    values = _numbers(path, table.columns(["x", "y", "area"]))
    named = "source" in table.names
    source = table.column("source").astype(str) if named else np.full(len(values), path.name.split(".")[0])
    keys = np.array(
        ["/".join(key) for key in zip(source, *(table.column(n).astype(str) for n in COLUMNS[1:3]), strict=True)]
    )
    return _ordered(path, values, ("x", "y", "area"), keys, table.columns(["frame"])[:, 0], source)


def track_of(path: Path, found: Any, values: np.ndarray, names: tuple[str, ...], keys: Sequence[str]) -> Tracks:
    """Tracks whose rows are named by arrays: found[keys[:-1]] say which track, found[keys[-1]] which frame."""
    track = np.array(["/".join(map(str, row)) for row in zip(*(found[key] for key in keys[:-1]), strict=True)])
    return _ordered(path, values, names, track, found[keys[-1]], np.full(len(values), path.name.split(".")[0]))


def fit_transitions(
    differences: np.ndarray, names: Sequence[str] = (), solver: Literal["exact", "scipy"] = "exact"
) -> list[Fit]:
    """Generalised Laplace (three parameters, maximum likelihood), Laplace and Gaussian, latent by latent.

        log p(d) = log(alpha) - log(2 scale Gamma(1 / alpha)) - (|d - centre| / scale)^alpha

    differences: [n, f], n >= 8. names: of the latents. The scale is solved for exactly, alpha by a bounded search in
    [.05, 20], the centre among the differences themselves where the law has a cusp (alpha <= 1), else by a search.
    solver: exact, or scipy for `scipy.stats.gennorm.fit`, whose simplex published numbers come from: it may stop
    before the maximum.
    Raises `UsageError` for values that are not finite, too few rows, or a latent that never moves.
    """
    d = np.asarray(differences, dtype=np.float64)
    d = d[:, None] if d.ndim == 1 else d
    if d.ndim != 2 or len(d) < 8:
        raise UsageError(f"differences: must be [n, f] with at least 8 rows, got {list(d.shape)}")
    if not np.isfinite(d).all():
        raise UsageError("differences: has values that are not finite")
    names = tuple(names) or tuple(f"z{i}" for i in range(d.shape[1]))
    if len(names) != d.shape[1]:
        raise UsageError(f"names: {len(names)} for {d.shape[1]} latents")
    for name, column in zip(names, d.T, strict=True):
        if np.ptp(column) <= 1e-13 * np.abs(column).max():
            raise UsageError(f"{name}: all differences are {column[0]:g}; a latent that never moves has no law")
    return [_fit(name, column, solver) for name, column in zip(names, d.T, strict=True)]


def moving(differences: np.ndarray) -> np.ndarray:
    """How many latents move by more than a tenth of their standard deviation: share of rows with 0 .. f, [f + 1]."""
    d = np.asarray(differences, dtype=np.float64)
    count = (np.abs(d) > QUIET * d.std(0)).sum(1)
    return np.bincount(count, minlength=d.shape[1] + 1) / len(d)


def check_tracks(path: str | Path) -> str:
    """What `unmix check` says of tracks: fits of every source and latent, and whether SlowVAE's assumption holds.

    Raises as `read_tracks` and `fit_transitions`.
    """
    tracks = read_tracks(path)
    parts = [_check(tracks.of(source), source) for source in tracks.sources]
    note = (
        "SlowVAE's theorem (Klindt et al. 2021, arXiv 2007.10930) asks for generalised Laplace transitions with\n"
        "alpha < 2, the same law for every factor, independent of each other. A Gaussian has alpha = 2 and leaves\n"
        "rotations open. Intervals take differences as independent; within a track they are not, so they\n"
        "are too short."
    )
    return "\n\n".join([*parts, note])


def _check(tracks: Tracks, source: str) -> str:
    rows = tracks.steps()
    count = len(np.unique(tracks.group))
    head = f"{source}: {count:,} tracks, {len(tracks.values):,} frames, {len(rows):,} pairs of consecutive frames"
    if len(rows) < 8:
        return f"{head}\n  too few pairs of consecutive frames to fit a law to (8 at least)"
    d = tracks.differences()
    moves = np.ptp(d, axis=0) > 1e-13 * np.abs(tracks.values).max(0)
    fits = (
        fit_transitions(d[:, moves], [n for n, m in zip(tracks.names, moves, strict=True) if m]) if any(moves) else []
    )
    lines = [
        head,
        f"  {'latent':<12} {'alpha':>6} {'95 %':>14} {'kurtosis':>9} {'still':>6} {'moves':>6}"
        f"   log-likelihood a pair: gen. Laplace, Laplace, Gaussian",
    ]
    for fit in fits:
        each = "  ".join(f"{value / fit.count:8.3f}" for value in fit.likelihood.values())
        interval = f"{fit.low:.3f} - {fit.high:.3f}"
        lines.append(
            f"  {fit.name:<12} {fit.alpha:6.3f} {interval:>14} {fit.kurtosis:9.1f} {fit.still:6.1%} {fit.moves:6.1%}"
            f"   {each}"
        )
        if fit.caution:
            lines.append(f"  {'':<12} {fit.caution}")
    if len(tracks.names) > 1:
        shares = ", ".join(f"{i}: {share:.0%}" for i, share in enumerate(moving(d)))
        lines.append(f"  latents that move by more than a tenth of their deviation at once: {shares}")
    still = [f"{n} (never moves: no law)" for n, m in zip(tracks.names, moves, strict=True) if not m]
    said = {True: "holds for", False: "does not hold for", None: "cannot be told for"}
    verdicts = []
    for value, words in said.items():
        if found := [fit.name for fit in fits if fit.holds is value]:
            verdicts.append(f"{words} {', '.join(found)}")
    if still:
        verdicts.append(f"cannot be told for {', '.join(still)}")
    lines.append(f"  sparse transitions (alpha < 2): {'; '.join(verdicts)}")
    return "\n".join(lines)


def _fit(name: str, d: np.ndarray, solver: str) -> Fit:
    from scipy import stats

    unit = float(d.std())
    shift, middle = len(d) * np.log(unit), np.median(d / unit)
    if solver == "scipy":
        alpha, centre, scale = map(float, stats.gennorm.fit(d))
        best = float(stats.gennorm.logpdf(d, alpha, centre, scale).sum()) + shift
        away = np.abs(d - centre) / unit
    else:
        alpha, centre = _most_likely(d / unit)
        away = np.abs(d / unit - centre)
        best = _profile(alpha, away)
        centre, scale = centre * unit, float((alpha * np.mean(away**alpha)) ** (1 / alpha)) * unit
    low, high = (_bound(away, alpha, best, end) for end in (LOWEST, HIGHEST))
    likelihood = {
        "generalised Laplace": best - shift,
        "Laplace": _profile(1.0, np.abs(d / unit - middle)) - shift,
        "Gaussian": _profile(2.0, np.abs(d - d.mean()) / unit) - shift,
    }
    return Fit(
        name=name,
        count=len(d),
        alpha=alpha,
        centre=centre,
        scale=scale,
        low=low,
        high=high,
        likelihood={law: float(v) for law, v in likelihood.items()},
        kurtosis=float(stats.kurtosis(d)),
        still=float(np.mean(d == 0)),
        moves=float(np.mean(np.abs(d) > QUIET * unit)),
        common=(common := _commonest(d)),
        spike=float(np.mean(d == common)),
    )


def _most_likely(d: np.ndarray) -> tuple[float, float]:
    """alpha and centre in turn until the likelihood stops rising."""
    from scipy import optimize

    bounds = (np.log(LOWEST), np.log(HIGHEST))
    alpha, centre, value = 1.0, float(np.median(d)), -np.inf
    while True:
        away = np.abs(d - centre)
        alpha = float(
            np.exp(optimize.minimize_scalar(lambda a: -_profile(np.exp(a), away), bounds=bounds, method="bounded").x)  # noqa: B023
        )
        moved = _centre(d, alpha, centre)
        found = _profile(alpha, np.abs(d - moved))
        if found <= value + 1e-9 * len(d):
            return alpha, centre
        centre, value = moved, found


def _profile(alpha: float, away: np.ndarray) -> float:
    """Log-likelihood of |d - centre| at the best scale, scale^alpha = alpha mean |d - centre|^alpha."""
    from scipy.special import gammaln

    log_scale = np.log(max(alpha * float(np.mean(away**alpha)), 1e-300)) / alpha
    return float(len(away) * (np.log(alpha) - np.log(2) - gammaln(1 / alpha) - log_scale - 1 / alpha))


def _centre(d: np.ndarray, alpha: float, before: float) -> float:
    """The centre with the smallest sum |d - c|^alpha: below alpha = 1 it is one of the differences."""
    from scipy import optimize

    def cost(centre: float) -> float:
        return float(np.mean(np.abs(d - centre) ** alpha))

    if alpha > 1:
        low, high = np.quantile(d, [0.02, 0.98])
        return float(optimize.minimize_scalar(cost, bounds=(low, high), method="bounded").x)
    ordered = np.unique(d)
    middle = np.searchsorted(ordered, np.quantile(d, np.linspace(0.1, 0.9, 81)))
    tried = np.unique(np.clip(middle, 0, len(ordered) - 1))
    best = int(min(tried, key=lambda i: cost(float(ordered[i]))))
    for width in (256, 64, 16, 4, 1):
        near = np.unique(np.clip(best + width * np.arange(-8, 9), 0, len(ordered) - 1))
        best = int(min(near, key=lambda i: cost(float(ordered[i]))))
    common = _commonest(d)
    return min((float(ordered[best]), before, common), key=cost)


def _commonest(d: np.ndarray) -> float:
    values, counts = np.unique(d, return_counts=True)
    return float(values[counts.argmax()])


def _bound(away: np.ndarray, alpha: float, best: float, end: float) -> float:
    """Where the likelihood, going from alpha towards `end`, has fallen by half the 95 % point of chi-square."""
    from scipy import optimize

    def left(log_alpha: float) -> float:
        return 2 * (best - _profile(np.exp(log_alpha), away)) - CHI_SQUARE

    if left(np.log(end)) <= 0:
        return end
    return float(np.exp(optimize.brentq(left, np.log(alpha), np.log(end), xtol=1e-5)))


def _of_arrays(path: Path) -> Tracks:
    names = set(array_names(path, "tracks"))
    if "masks" in names:
        from unmix.worlds.masks import latents_of, read_masks

        masks = read_masks(path)
        return track_of(path, masks, latents_of(masks["masks"]), ("x", "y", "area"), ("track", "frame"))
    latents = next((name for name in ("z", "latents") if name in names), None)
    if latents is None or not {"group", "time"} <= names:
        raise UsageError(
            f"{path}: has {', '.join(sorted(names)) or 'no arrays'}; tracks need z [n, f], group [n] and time [n], "
            "or masks with sequence and frame"
        )
    found = read_arrays(path, {"group": True, "time": True, latents: True, "names": False})
    arrays = {"group": found["group"], "time": found["time"]}
    z = np.asarray(as_array(found[latents], f"{path}: {latents}"), dtype=np.float64)
    told = tuple(map(str, found.get("names", ())))
    if z.ndim != 2 or any(len(value) != len(z) for value in arrays.values()):
        raise UsageError(f"{path}: z must be [n, f], group and time [n], got {list(z.shape)}")
    told = told if len(told) == z.shape[1] else tuple(f"z{i}" for i in range(z.shape[1]))
    return track_of(path, arrays, _numbers(path, z), told, ("group", "time"))


def _ordered(path: Path, values: np.ndarray, names: tuple[str, ...], track: Any, frame: Any, source: Any) -> Tracks:
    frame = np.asarray(frame)
    if not np.issubdtype(frame.dtype, np.number) or not np.isfinite(frame).all():
        raise UsageError(f"{path}: frames (or times) must be finite numbers")
    group = np.unique(np.asarray(track).astype(str), return_inverse=True)[1]
    order = np.lexsort((frame, group))
    repeated = (np.diff(group[order]) == 0) & (np.diff(frame[order]) == 0)
    if repeated.any():
        raise UsageError(f"{path}: {int(repeated.sum())} rows repeat a frame of the same track")
    return Tracks(values[order], names, group[order], frame[order], np.asarray(source).astype(str)[order])


def _numbers(path: Path, values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if not np.isfinite(values).all():
        raise UsageError(f"{path}: has latents that are not finite numbers")
    return values
