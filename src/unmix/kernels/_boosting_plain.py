"""Boosting in plain numpy, one node at a time: what the compiled version must equal."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from scipy import special

TIE = 1e-9

_Node: TypeAlias = "tuple[int, int, _Node, _Node] | tuple[None, float]"


def grow(
    bins: np.ndarray,
    goal: np.ndarray,
    classes: int,
    test_bins: np.ndarray,
    rounds: int,
    depth: int,
    rate: float,
    size: int,
    raw: np.ndarray,
    test_raw: np.ndarray,
    importances: np.ndarray,
) -> None:
    """Boost in place: raw [n, K], test_raw [n', K] and importances [m]."""
    trees = 0
    for _ in range(rounds):
        residual = _residuals(goal, classes, raw)
        for k in range(raw.shape[1]):
            values = residual[:, k]
            floor = 1e-12 * (values**2).sum()
            gained = np.zeros(bins.shape[1])
            tree = _Tree(bins, values, size, depth, floor, classes, raw.shape[1], rate, gained)
            raw[:, k] += tree.values(bins)
            test_raw[:, k] += tree.values(test_bins)
            if tree.root[0] is not None:
                trees += 1
                importances += gained / len(bins)
    importances /= max(1, trees)


class _Tree:
    """A tree as nested tuples (column, cut, left, right), or (None, value) for a leaf."""

    def __init__(
        self,
        bins: np.ndarray,
        values: np.ndarray,
        size: int,
        depth: int,
        floor: float,
        classes: int,
        width: int,
        rate: float,
        gained: np.ndarray,
    ) -> None:
        self.bins, self.residual, self.size, self.floor = bins, values, size, floor
        self.classes, self.width, self.rate, self.gained = classes, width, rate, gained
        self.root = self.node(np.arange(len(bins)), depth)

    def node(self, rows: np.ndarray, depth: int) -> _Node:
        values = self.residual[rows]
        best: tuple[float, int | None, int] = (0.0, None, 0)
        gains = np.zeros(self.bins.shape[1])
        if depth and len(rows) > 1:
            for j in range(self.bins.shape[1]):
                where = self.bins[rows, j]
                count = np.bincount(where, minlength=self.size).cumsum()[:-1].astype(float)
                left = np.bincount(where, values, self.size).cumsum()[:-1]
                rest = len(rows) - count
                with np.errstate(divide="ignore", invalid="ignore"):
                    gain = count * rest / len(rows) * (left / count - (values.sum() - left) / rest) ** 2
                gain[(count == 0) | (rest == 0)] = 0
                gains[j] = gain.max(initial=0)
                if gains[j] > best[0] * (1 + TIE):
                    best = (float(gains[j]), j, int((gain >= gains[j] * (1 - TIE)).argmax()))
        gain, column, cut = best
        if column is None or gain <= self.floor:
            bottom = len(rows) if self.classes == 0 else (np.abs(values) * (1 - np.abs(values))).sum()
            step = 0.0 if bottom < 1e-150 else values.sum() / bottom
            return None, self.rate * step * ((self.width - 1) / self.width if self.width > 1 else 1)
        # Columns that split as well share the credit, as they would over many random choices.
        tied = gains >= gain * (1 - TIE)
        self.gained[tied] += gain / tied.sum()
        goes_left = self.bins[rows, column] <= cut
        return column, cut, self.node(rows[goes_left], depth - 1), self.node(rows[~goes_left], depth - 1)

    def values(self, bins: np.ndarray) -> np.ndarray:
        out = np.zeros(len(bins))

        def walk(node: _Node, rows: np.ndarray) -> None:
            if node[0] is None:
                out[rows] = node[1]
                return
            goes_left = bins[rows, node[0]] <= node[1]
            walk(node[2], rows[goes_left])
            walk(node[3], rows[~goes_left])

        walk(self.root, np.arange(len(bins)))
        return out


def _residuals(goal: np.ndarray, classes: int, raw: np.ndarray) -> np.ndarray:
    if classes == 0:
        return goal[:, None] - raw
    if classes == 2:
        return goal[:, None] - special.expit(raw)
    return np.eye(classes)[goal.astype(int)] - special.softmax(raw, axis=1)
