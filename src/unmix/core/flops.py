"""Floating-point operations, counted as multiply and add apart; per sample unless said.

Matrix products are counted exactly; elementwise work, small beside them, is counted once for each operation that a
formula needs, and Adam as 12 operations on a parameter. What the authors of arXiv 2411.13117 counted is in
`core.paper_flops`, under its own name.
"""

from __future__ import annotations


def product(rows: float, inner: float, columns: float) -> float:
    """A matrix product [rows, inner] @ [inner, columns]: 2 rows inner columns."""
    return 2.0 * rows * inner * columns


def linear_code(atoms: int, width: int) -> float:
    """One linear-nonlinear encoding of a sample: the product, the bias, the nonlinearity."""
    return product(1, width, atoms) + 2.0 * atoms


def mlp_code(atoms: int, hidden: int, width: int) -> float:
    """Encoding of a sample through one hidden layer: two products, each with its bias and nonlinearity."""
    return linear_code(hidden, width) + linear_code(atoms, hidden)


def decode(atoms: int, width: int, active: float | None = None) -> float:
    """Reconstruction of a sample from dense codes, or from `active` codes where they are kept sparse."""
    return product(1, atoms if active is None else active, width)


def adam(parameters: float) -> float:
    """One Adam step: about 12 operations on each parameter."""
    return 12.0 * parameters


def topk_step(batch: int, atoms: int, width: int, active: int) -> float:
    """One training step of a TopK autoencoder with sparse decode and sparse gradients (arXiv 2406.04093)."""
    return product(batch, width, atoms) + 8.0 * batch * active * width + adam(2.0 * atoms * width)


def dense_step(batch: int, atoms: int, width: int) -> float:
    """One training step of a dense autoencoder: two products forward, three backward, Adam."""
    return 5 * product(batch, width, atoms) + adam(2.0 * atoms * width)


def autoencoder_step(
    batch: int, atoms: int, width: int, hidden: int | None = None, frozen: bool = False, unit: bool = True
) -> float:
    """One training step of an autoencoder with dense codes: forward, backward, unit atoms, Adam; for the batch.

    The first layer needs the gradient of its weights only (2 products), every other layer that of its input too (3).
    hidden: units of a hidden layer between input and codes; None encodes linearly. frozen: the dictionary is not
    learned (its layer has 2 products). unit: atoms are brought to unit norm, once for each step, not for each sample.
    """
    first, second = (atoms, 0) if hidden is None else (hidden, atoms)
    products = 2 * product(batch, width, first) + 3 * product(batch, first if second else 0, second)
    products += (2 if frozen else 3) * product(batch, atoms, width)
    elementwise = batch * (4.0 * (first + second) + 2.0 * atoms + 3.0 * width)
    weights = width * first + first + (first * second + second) + (0 if frozen else atoms * width)
    return products + elementwise + adam(weights) + (3.0 * atoms * width if unit and not frozen else 0.0)


def code_step(batch: int, atoms: int, width: int) -> float:
    """One step of Adam on the codes of a batch with the dictionary frozen, z = exp(s): 2 products; for the batch.

    Inference-time optimisation as in arXiv 2411.13117: z D and the gradient by D'; exp, l1 and chain rule on the
    codes (3 N a row), the residual and its scale (2 M), Adam on the codes (12 N).
    """
    return 2 * product(batch, atoms, width) + batch * (3.0 * atoms + 2.0 * width) + adam(float(batch * atoms))


def sparse_coding_step(batch: int, atoms: int, width: int) -> float:
    """One step of Adam on codes and dictionary together: a `code_step`, the gradient of D, unit atoms; for the batch.

    What belongs to the dictionary (its norms, its Adam) is paid once for each step, not once for each sample.
    """
    return code_step(batch, atoms, width) + product(batch, atoms, width) + 15.0 * atoms * width


def pursuit(atoms: int, width: int, active: int) -> float:
    """Orthogonal matching pursuit of one sample by Gram: D x, then k steps of Gram rows and a triangular solve."""
    return product(1, width, atoms) + atoms * active * (active + 1.0) + active**3.0
