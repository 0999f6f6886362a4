"""Codes beside true factors: what every disentanglement score starts from, in an order that no result depends on."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from unmix.core.errors import UsageError
from unmix.core.factors import Factor
from unmix.core.scale import near_one
from unmix.core.seeds import Stream
from unmix.core.statistics import members
from unmix.scores.base import Inputs, Score
from unmix.scores.pairing import columns_of

COMPAT = Literal["disentanglement_lib"] | None
MOST_VALUES = 64  # a column with more values than this is a continuum
MOST_CLASSES = 1024


@dataclass(frozen=True, eq=False)
class Paired:
    """Codes [n, m] and factors z [n, f] of the same rows, float64, rows and code columns in a canonical order.

    factors: [f] what each column of z is. group: [n] numbers of sequences, or None. columns: [m] where each column
    stood. live: [m] codes that vary. varied: [f] factors that vary. single: codes came as float32 or less. rows: [n]
    where each row stood.
    """

    codes: np.ndarray
    z: np.ndarray
    factors: tuple[Factor, ...]
    group: np.ndarray | None
    columns: np.ndarray
    live: np.ndarray
    varied: np.ndarray
    single: bool
    rows: np.ndarray

    def only(self, kept: np.ndarray) -> Paired:
        """Some of the rows [k]."""
        codes, z = self.codes[kept], self.z[kept]
        live, varied = np.ptp(codes, axis=0) > 0, np.ptp(z, axis=0) > 0
        group = None if self.group is None else np.unique(self.group[kept], return_inverse=True)[1]
        return replace(self, codes=codes, z=z, group=group, live=live, varied=varied, rows=self.rows[kept])

    @property
    def arrays(self) -> dict[str, Tensor]:
        """Codes, their columns as they were given, and factors, those that are no numbers as 0."""
        numbers = [factor.kind in ("continuous", "ordinal") for factor in self.factors]
        z = np.where(numbers, self.z, 0.0)
        return {"codes": torch.from_numpy(self.back(self.codes.T).T), "z": torch.from_numpy(z)}

    def back(self, by_code: np.ndarray) -> np.ndarray:
        """Values for each code [m, ...] in the order in which the codes were given."""
        out = np.empty_like(by_code)
        out[self.columns] = by_code
        return out

    @property
    def left_out(self) -> list[str]:
        """Names of the factors that do not vary."""
        return [factor.name for factor, varies in zip(self.factors, self.varied, strict=True) if not varies]

    def key(self, *settings: Any) -> str:
        """A digest of everything a result depends on."""
        digest = hashlib.blake2b(digest_size=16)
        for part in (self.codes, self.z, self.group):
            digest.update(b"none" if part is None else np.ascontiguousarray(part).tobytes())
        digest.update(repr((self.codes.shape, self.factors, self.columns.tolist(), self.single, settings)).encode())
        return digest.hexdigest()


def paired(
    codes: Any, z: Any, factors: Sequence[Factor] | None = None, group: Any = None, name: str = "score"
) -> Paired:
    """Check and order codes [n, m] and factors [n, f].

    factors: kinds of the columns of z; None takes all for continuous. A column that is constant up to rounding is
    constant. Rows are sorted by z, then by the values of
    their codes, code columns by a digest, so that no split or draw depends on the order in which they were given.
    Raises `UsageError` for NaN (with its row and column), unlike rows, fewer than 4 rows, factors that do not fit z,
    or where no factor varies.
    """
    given, truth = near_one(columns_of(codes, "codes")), columns_of(z, "z")
    if len(given) != len(truth):
        raise UsageError(f"{name}: codes have {len(given)} rows, z {len(truth)} rows")
    if len(given) < 4:
        raise UsageError(f"{name}: needs at least 4 rows, got {len(given)}")
    h, values = given.numpy(), truth.numpy()
    if factors is None:
        factors = [Factor(f"z{j}") for j in range(values.shape[1])]
    if len(factors) != values.shape[1]:
        raise UsageError(f"{name}: {len(factors)} factors for the {values.shape[1]} columns of z")
    # Squares of numbers of any size are held; what is measured against a range of its own keeps its units.
    plain = np.array([factor.kind in ("continuous", "ordinal") and factor.low is None for factor in factors])
    values = np.where(plain, near_one(truth).numpy(), values)
    varied = np.ptp(values, axis=0) > 0
    if not varied.any():
        raise UsageError(f"{name}: no factor varies in these {len(values)} rows, so there is nothing to find")
    within = np.sort(h, axis=1)
    keys = [within.sum(1), within[:, h.shape[1] // 2], within[:, -1], within[:, 0], *values.T[::-1]]
    rows = np.lexsort(keys)
    h, values = h[rows], values[rows]
    marks = [hashlib.blake2b(np.ascontiguousarray(column).tobytes(), digest_size=16).digest() for column in h.T]
    columns = np.array(sorted(range(len(marks)), key=marks.__getitem__), dtype=np.int64)
    h = np.ascontiguousarray(h[:, columns])
    live = np.ptp(h, axis=0) > 0
    sequence = None if group is None else members(group, len(rows), f"{name}: group")[rows]
    dtype = str(getattr(getattr(codes, "values", codes), "dtype", "float32"))
    return Paired(h, values, tuple(factors), sequence, columns, live, varied, "64" not in dtype, rows)


def split(pair: Paired, rng: Stream, share: float = 1 / 3) -> tuple[np.ndarray, np.ndarray]:
    """Rows to fit on and rows to test on, `share` of them; a sequence lies on one side."""
    member = np.arange(len(pair.codes)) if pair.group is None else pair.group
    count = int(member.max()) + 1
    if count < 2:
        raise UsageError("group: all rows are of one sequence; a split needs two")
    test = np.zeros(count, bool)
    test[rng.child("split").numpy().permutation(count)[: min(count - 1, max(1, round(share * count)))]] = True
    return np.flatnonzero(~test[member]), np.flatnonzero(test[member])


def reweighted(pair: Paired, rng: Stream, draws: int) -> np.ndarray:
    """Bootstrap: how often each row counts in each draw, [draws, n] int32; whole sequences where there are any."""
    member = np.arange(len(pair.codes)) if pair.group is None else pair.group
    count = int(member.max()) + 1
    drawn = rng.child("bootstrap").numpy().multinomial(count, np.full(count, 1 / count), draws)
    return drawn[:, member].astype(np.int32)


def around(value: float, drawn: np.ndarray, low: float = 0.0, high: float = 1.0) -> tuple[float, float]:
    """95 % interval: quantiles of the draws less their mean, about the value, within [low, high].

    Draws of a bootstrap repeat rows, which shifts counts of cells and maxima; only their spread is taken.
    """
    if len(drawn) < 2:
        return float("nan"), float("nan")
    ends = value + np.quantile(drawn - drawn.mean(), [0.025, 0.975])
    return min(value, max(low, float(ends[0]))), max(value, min(high, float(ends[1])))


def labels_of(pair: Paired, bins: int = 20) -> np.ndarray:
    """Each factor as whole numbers from 0, [f, n]: its values where they are few, else `bins` bins of equal count."""
    return np.stack([_labels(column, factor, bins) for column, factor in zip(pair.z.T, pair.factors, strict=True)])


def exact_labels(pair: Paired, name: str) -> np.ndarray:
    """Each factor as whole numbers from 0 by its values, [f, n]; raises `UsageError` where these are too many."""
    out = []
    for j, column in enumerate(pair.z.T):
        values, label = np.unique(column, return_inverse=True)
        if len(values) > MOST_CLASSES or len(values) > len(column) // 2:
            raise UsageError(
                f"{name}: factor {pair.factors[j].name} has {len(values)} values in {len(column)} rows; "
                "compat='disentanglement_lib' is for discrete factors"
            )
        out.append(label)
    return np.stack(out)


def rank_bins(column: np.ndarray, bins: int) -> np.ndarray:
    """Numbers of bins of equal count by mean rank; equal values share a bin, and a flip only turns the numbers."""
    return np.minimum((2 * mean_ranks(column) + 1) * bins // (2 * len(column)), bins - 1).astype(np.int64)


def mean_ranks(column: np.ndarray) -> np.ndarray:
    """Ranks from 0, ties at their mean."""
    from scipy.stats import rankdata

    return rankdata(column) - 1


def angle(column: np.ndarray, factor: Factor) -> np.ndarray:
    """A circular factor in radians, times its symmetry: what the observation can tell of it."""
    low, high = float(factor.low or 0.0), float(factor.high if factor.high is not None else 1.0)
    return 2 * np.pi * (column - low) / (high - low) * factor.symmetry


def _labels(column: np.ndarray, factor: Factor, bins: int) -> np.ndarray:
    if factor.kind == "circular" and factor.symmetry > 1:
        column = np.round(np.mod(angle(column, factor), 2 * np.pi), 6)
    values, label = np.unique(column, return_inverse=True)
    most = MOST_CLASSES if factor.kind == "categorical" else MOST_VALUES
    if len(values) > most and factor.kind == "categorical":
        raise UsageError(f"factor {factor.name}: {len(values)} categories; at most {most}")
    return label if len(values) <= most else rank_bins(column, bins)


_results: OrderedDict[str, Any] = OrderedDict()


def once(key: str, make: Callable[[], Any]) -> Any:
    """The result of `make`, kept for the next few that ask for the same: several scores read one fit."""
    if key not in _results:
        _results[key] = make()
        while len(_results) > 4:
            _results.popitem(last=False)
    return _results[key]


class Disentanglement(Score):
    """A score of codes against true factors; kinds of factors and sequences are used where they are given."""

    needs: ClassVar[frozenset[str]] = frozenset({"codes", "z"})

    def paired(self, inputs: Inputs) -> Paired:
        """The inputs, checked and in canonical order."""
        return paired(inputs.codes, inputs.z, inputs.factors, inputs.group, self.name)


def shared(rng: Stream) -> Stream:
    """The stream above a score's own, so that scores that read one fit ask for the same."""
    return Stream(rng.seed, rng.path[:-1]).child("disentanglement")
