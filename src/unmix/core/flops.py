"""Floating-point operations, counted as multiply and add apart; per sample unless said."""

from __future__ import annotations


def product(rows: float, inner: float, columns: float) -> float:
    """A matrix product [rows, inner] @ [inner, columns]: 2 rows inner columns."""
    return 2.0 * rows * inner * columns


def linear_code(atoms: int, width: int) -> float:
    """One linear-nonlinear encoding of a sample: the product, the bias, the nonlinearity."""
    return product(1, width, atoms) + 2.0 * atoms


def adam(parameters: float) -> float:
    """One Adam step: about 12 operations on each parameter."""
    return 12.0 * parameters


def topk_step(batch: int, atoms: int, width: int, active: int) -> float:
    """One training step of a TopK autoencoder with sparse decode and sparse gradients (arXiv 2406.04093)."""
    return product(batch, width, atoms) + 8.0 * batch * active * width + adam(2.0 * atoms * width)


def dense_step(batch: int, atoms: int, width: int) -> float:
    """One training step of a dense autoencoder: two products forward, three backward, Adam."""
    return 5 * product(batch, width, atoms) + adam(2.0 * atoms * width)


def pursuit(atoms: int, width: int, active: int) -> float:
    """Orthogonal matching pursuit of one sample by Gram: D x, then k steps of Gram rows and a triangular solve."""
    return product(1, width, atoms) + atoms * active * (active + 1.0) + active**3.0
