"""The theorem in numbers: what one linear-nonlinear pass can reach, and a solver on the same dictionary."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unmix.core.loop import warm_then_decay
from unmix.core.seeds import Stream, as_stream
from unmix.encoders import ENCODERS
from unmix.encoders.iterative import Fista
from unmix.finders.features import assemble
from unmix.scores.ceiling import linear_ceiling, linear_map
from unmix.scores.matching import mcc
from unmix.worlds.sparse import SparseWorld

BASE = SparseWorld(latents=16, width=8, active=3)


Objective = Callable[[Tensor, Any], Tensor]


def trained_codes(
    x: Tensor,
    test: Tensor,
    latents: int,
    hidden: int | None,
    objective: Objective,
    steps: int,
    lr: float = 1e-3,
    batch: int | None = None,
    bias: bool = True,
    decay: bool = False,
    first: Tensor | None = None,
    rng: int | Stream = 0,
) -> Tensor:
    """Codes [n', N] of test rows [n', M] by relu(W x + c), or relu(V relu(W x + c) + e) with `hidden` units.

    x [n, M] are trained on by Adam, all rows in a step or `batch` of them; objective(codes, rows) gives the loss of
    the codes of those rows (a slice or row numbers). bias: c and e are learnt; else 0. decay: of the learning
    rate. first: weights [M, N] to begin from, where nothing is hidden; else they are drawn.
    """
    stream = as_stream(rng).child("trained codes")
    draw = stream.child("weights").torch()
    sizes = [x.shape[1], latents] if hidden is None else [x.shape[1], hidden, latents]
    weights: list[Tensor] = []
    for inside, outside in itertools.pairwise(sizes):
        # torch.nn.Linear's own start: uniform within 1 / sqrt(fan in).
        drawn = [(torch.rand(s, generator=draw) * 2 - 1) / math.sqrt(inside) for s in ((inside, outside), (outside,))]
        if first is not None and hidden is None:
            drawn[0] = first.clone()
        weights += [drawn[0].requires_grad_(), drawn[1].requires_grad_() if bias else torch.zeros(outside)]
    optimiser = torch.optim.Adam([w for w in weights if w.requires_grad], lr=lr, fused=True)
    order = stream.child("batches").numpy()
    for step in range(steps):
        rows = slice(None) if batch is None else torch.from_numpy(order.integers(len(x), size=batch))
        value = objective(_network(x[rows], weights), rows)
        if decay:
            optimiser.param_groups[0]["lr"] = lr * warm_then_decay(step, steps)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
    with torch.no_grad():
        return _network(test, weights)


def _network(x: Tensor, weights: Sequence[Tensor]) -> Tensor:
    for weight, shift in zip(weights[::2], weights[1::2], strict=True):
        x = torch.addmm(shift, x, weight).relu()
    return x


def index_correlation(codes: Tensor, latents: Tensor) -> float:
    """Mean over latents of the signed correlation of code j with latent j (0 for a constant column): no matching."""
    a, b = (t.double() - t.double().mean(0) for t in (codes, latents))
    size = a.norm(dim=0) * b.norm(dim=0)
    return float(torch.where(size > 0, (a * b).sum(0) / size.clamp_min(1e-300), 0).mean())


def known_codes(seed: int, hidden: int | None, steps: int) -> dict[str, float]:
    """The paper's first setting at (16, 8, 3): an encoder trained on the true codes of 1,024 rows, read on 1,024.

    The loss is minus the cosine of every latent across the rows, averaged over latents.
    """
    train, test = _halves(BASE, seed)

    def objective(codes: Tensor, rows: Any) -> Tensor:
        return -torch.nn.functional.cosine_similarity(codes, train.z[rows], dim=0).mean()

    codes = trained_codes(train.x, test.x, BASE.latents, hidden, objective, steps, rng=seed)
    return {"correlation": index_correlation(codes, test.z), "mcc": mcc(codes, test.z).value}


def known_dictionary(
    seed: int, hidden: int | None, steps: int, weight: float = 0.01, dictionary: int = 0
) -> dict[str, float]:
    """The second setting: an encoder trained without its codes while the dictionary is the true one.

    The loss is the paper's, mean (x - z D)^2 + w mean |z|; encoders have no biases. dictionary: seed of another one.
    """
    world = BASE.but(seed=dictionary)
    train, test = _halves(world, seed)
    atoms = world.atoms

    def objective(codes: Tensor, rows: Any) -> Tensor:
        return (train.x[rows] - codes @ atoms).square().mean() + weight * codes.mean()

    codes = trained_codes(train.x, test.x, world.latents, hidden, objective, steps, bias=False, rng=seed)
    return {"mcc": mcc(codes, test.z).value}


def known_dictionary_solved(seed: int, encoder: Any) -> dict[str, float]:
    """Codes of the test rows by an iterative or greedy encoder on the true dictionary, and what a row cost."""
    _, test = _halves(BASE, seed)
    features = assemble(BASE.atoms, torch.zeros(BASE.width), ENCODERS.make(encoder))
    codes = features.encode(test.x, cost=True)
    exact = ((codes.dense() > 1e-6) == (test.z > 0)).all(1).double().mean()
    return {"mcc": mcc(codes, test.z).value, "exact support": float(exact), "flops": float(codes.cost.mean())}  # type: ignore[union-attr]


def _halves(world: SparseWorld, seed: int, rows: int = 1024) -> tuple[Any, Any]:
    return world.sample(rows, Stream(seed).child("train")), world.sample(1024, Stream(seed).child("test"))


def ceiling(
    seed: int, latents: int, width: int, active: int, rows: int, steps: int, orthogonal: bool
) -> dict[str, Any]:
    """One dictionary: a supervised linear-nonlinear encoder trained on `rows` rows beside the exact lasso on it.

    mcc of each on 2,048 new rows, and R2 of the best linear decoder of z from x beside width / latents.
    """
    kind: Any = "orthogonal" if orthogonal else "gaussian"
    world = SparseWorld(latents=latents, width=width, active=active, dictionary=kind, seed=seed)
    train, test = world.sample(rows, Stream(seed).child("train")), world.sample(2048, Stream(seed).child("test"))

    def objective(codes: Tensor, chosen: Any) -> Tensor:
        return (codes - train.z[chosen]).square().mean()

    batch = min(rows, 4096)
    # From the pseudo-inverse no unit begins silent, which a random start can leave for good.
    first = torch.linalg.pinv(world.atoms)
    codes = trained_codes(
        train.x, test.x, latents, None, objective, steps, 3e-3, batch, decay=True, first=first, rng=seed
    )
    truth = assemble(world.atoms, torch.zeros(width), Fista(penalty=1e-3))
    return {
        "encoder": mcc(codes, test.z).value,
        "lasso": mcc(truth.encode(test.x), test.z).value,
        "linear_r2": linear_ceiling(train.x, train.z, seed).value,
        "share": width / latents,
    }


def transition(width: int, latents: int, counts: Sequence[int], trials: int, seed: int = 0) -> list[dict[str, float]]:
    """Share of K-sparse non-negative codes that basis pursuit (min sum z, z D = x, z >= 0) gives back, for every K.

    A code counts as given back when its relative error is below 1e-3. A fresh Gaussian dictionary in every trial.
    """
    from scipy.optimize import linprog

    found = []
    for active in counts:
        hits = 0
        for trial in range(trials):
            draw = Stream(seed).child(f"{width} {active} {trial}").numpy()
            atoms = draw.standard_normal((latents, width))
            atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
            z = np.zeros(latents)
            z[draw.choice(latents, active, replace=False)] = np.abs(draw.standard_normal(active))
            solved = linprog(np.ones(latents), A_eq=atoms.T, b_eq=z @ atoms, bounds=(0, None), method="highs")
            hits += solved.x is not None and np.linalg.norm(solved.x - z) <= 1e-3 * np.linalg.norm(z)
        found.append({"width": width, "active": active, "share": float(hits / trials), "trials": trials})
    return found


def map_rank(features: Any, world: Any) -> dict[str, Any]:
    """Rank and singular values of the linear map from true codes to a trained encoder's pre-activations."""
    found = linear_map(features.encoder.readout["weight"], world.atoms)
    return {"rank": found.rank, "values": [round(float(value), 6) for value in found.singular]}
