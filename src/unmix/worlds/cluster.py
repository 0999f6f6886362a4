"""ClusterWorld: latents scattered around class vectors, the world in which cross-entropy inverts the mixing."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from scipy import special
from torch import Tensor

from unmix.core.errors import UsageError
from unmix.core.sample import Sample
from unmix.core.seeds import Stream, as_stream
from unmix.worlds import sphere
from unmix.worlds.latents import LatentWorld


class ClusterWorld(LatentWorld):
    """A class is drawn, a latent z around its unit vector v_c, and x = g(z) is seen, g injective.

    classes: C. instances: N, for instance labels: `index` is uniform in 0 .. N - 1, its class is fixed (index mod C
    where balanced), and every draw has a fresh z (as an augmentation would); None for classes alone.
    vectors: how `class_vectors` lie: uniform on the sphere; clustered or laplace, e_1 plus normal or Laplace noise of
    scale 1 brought to unit norm; subspace, uniform on the sphere of a random subspace of `rank` dimensions (None:
    latents - 1), which breaks the theorem. rank: see vectors.
    balance: of the classes, uniform or zipf (share of class c falls as 1 / (c + 1)).
    label_noise: share of the labels that are replaced by a uniformly drawn one (with instances of the instance, and y
    is the class of the replaced one); z and x do not change.
    """

    equation: ClassVar[str] = "c ~ prior,  z ~ exp(k <v_c, z>) on the sphere,  x = g(z)"
    reference: ClassVar[str] = "Reizinger et al. 2025, Cross-entropy is all you need, arXiv 2410.21869"
    provides: ClassVar[frozenset[str]] = frozenset({"x", "z", "y", "index"})

    classes: int = Field(default=100, ge=2)
    instances: int | None = Field(default=None, ge=1)
    vectors: Literal["uniform", "clustered", "laplace", "subspace"] = "uniform"
    rank: int | None = Field(default=None, ge=1)
    balance: Literal["uniform", "zipf"] = "uniform"
    label_noise: float = Field(default=0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.instances is not None and self.instances < self.classes:
            raise ValueError(f"instances={self.instances} must be at least classes={self.classes}")
        if self.rank is not None and (self.vectors != "subspace" or self.rank > self.latents):
            raise ValueError(f"rank={self.rank}: only for vectors='subspace', at most latents={self.latents}")
        if self.vectors == "subspace" and self.latents < 2:
            raise ValueError("vectors='subspace' needs latents of at least 2")
        return self

    @property
    def class_vectors(self) -> Tensor:
        """The class vectors v_c [C, d], unit norm, float32."""
        return torch.from_numpy(self._vectors().copy()).float()

    @property
    def prior(self) -> Tensor:
        """How often each class is drawn [C], float64; sums to 1."""
        return torch.from_numpy(self._prior().copy())

    @property
    def instance_classes(self) -> Tensor | None:
        """Class of every instance [N], int64; None without instances."""
        return None if self.instances is None else torch.from_numpy(self._members().copy())

    def sample(self, n: int, rng: int | Stream = 0) -> Sample:
        stream = as_stream(rng).child("cluster world")
        draw = stream.numpy()
        index = None
        if self.instances is not None:
            index = draw.integers(self.instances, size=n)
            y = self._members()[index]
        elif self.balance == "uniform":
            y = draw.integers(self.classes, size=n)
        else:
            y = np.searchsorted(np.cumsum(self._prior()[:-1]), draw.random(n), side="right")
        z = torch.from_numpy(self.scatter.sample(self._vectors()[y], draw)).float()
        if self.label_noise:
            y, index = self._noisy(y, index, stream.child("label noise").numpy())
        return Sample(
            x=self.map(z), z=z, y=torch.from_numpy(y), index=None if index is None else torch.from_numpy(index)
        )

    def log_posterior(self, z: Any) -> Tensor:
        """log p(y = c | z) of the label, label noise included, for every latent [n, d]: [n, C] float64.

        The best a network can do: -log_posterior[i, y_i] has the Bayes cross-entropy as its mean. With instances this
        is the posterior of the class of the instance; every instance of a class has an equal share of it.
        """
        z = torch.as_tensor(z).double().numpy()
        if z.ndim != 2 or z.shape[1] != self.latents:
            raise UsageError(f"z: expected [n, {self.latents}], got shape {list(z.shape)}")
        log = self.scatter.log_density(z, self._vectors()) + np.log(self._prior())
        log -= special.logsumexp(log, axis=1, keepdims=True)
        if self.label_noise:
            other = self._prior() if self.instances is not None else np.full(self.classes, 1 / self.classes)
            with np.errstate(divide="ignore"):
                log = np.logaddexp(np.log1p(-self.label_noise) + log, np.log(self.label_noise * other))
        return torch.from_numpy(log)

    def _noisy(
        self, y: np.ndarray, index: np.ndarray | None, draw: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray | None]:
        swapped = draw.random(len(y)) < self.label_noise
        if index is None or self.instances is None:
            return np.where(swapped, draw.integers(self.classes, size=len(y)), y), None
        index = np.where(swapped, draw.integers(self.instances, size=len(y)), index)
        return self._members()[index], index

    def _vectors(self) -> np.ndarray:
        return _vectors(self.latents, self.classes, self.vectors, self.rank, self.seed)

    def _prior(self) -> np.ndarray:
        return _prior(self.classes, self.balance, self.instances)

    def _members(self) -> np.ndarray:
        return _members(self.classes, self.balance, self.instances)


@dataclass(frozen=True)
class BayesLoss:
    """The best possible cross-entropy of a world's labels.

    value: in nats. error: its standard error over the rows drawn. chance: cross-entropy of the prior alone.
    accuracy: share of labels that the most probable one gets right. rows: number of latents drawn.
    """

    value: float
    error: float
    chance: float
    accuracy: float
    rows: int

    def __str__(self) -> str:
        return f"{self.value:.4f} +- {self.error:.4f} nats (chance {self.chance:.4f}, accuracy {self.accuracy:.3f})"


def bayes_loss(world: ClusterWorld, n: int = 20000, rng: int | Stream = 0) -> BayesLoss:
    """The cross-entropy of the exact posterior of the label (of `index` where there are instances) given z.

    E_z H(p(. | z)) over n latents: the entropy has the same mean as -log p(y | z) and a smaller variance.
    No classifier of z, and so none of x = g(z), has a smaller expected cross-entropy.
    Raises `UsageError` for n < 2 or a world without classes.
    """
    if not isinstance(world, ClusterWorld):
        raise UsageError(f"bayes_loss: {world.kind} has no classes; give a ClusterWorld")
    if n < 2:
        raise UsageError(f"n={n}: give at least 2 rows")
    shares = np.bincount(world._members(), minlength=world.classes) if world.instances else np.ones(world.classes)
    losses, right = [], []
    stream = as_stream(rng).child("bayes loss")
    for start in range(0, n, 4096):
        z = world.sample(min(4096, n - start), stream.child(start)).z
        log = world.log_posterior(z).numpy()
        p = np.exp(log)
        losses.append((special.entr(p) + p * np.log(shares)).sum(1))
        right.append((p / shares).max(1))
    loss = np.concatenate(losses)
    prior = world._prior()
    if not world.instances:
        prior = (1 - world.label_noise) * prior + world.label_noise / world.classes
    chance = float((special.entr(prior) + prior * np.log(shares)).sum())
    error = float(loss.std(ddof=1) / np.sqrt(n))
    return BayesLoss(float(loss.mean()), error, chance, float(np.concatenate(right).mean()), n)


@functools.lru_cache(maxsize=16)
def _vectors(d: int, classes: int, kind: str, rank: int | None, seed: int) -> np.ndarray:
    draw = Stream(seed, ("cluster world", "class vectors")).numpy()
    if kind == "subspace":
        rank = rank or d - 1
        basis = np.linalg.qr(draw.standard_normal((d, rank)))[0]
        v = draw.standard_normal((classes, rank)) @ basis.T
    elif kind == "uniform":
        v = sphere.uniform(classes, d, draw)
    else:
        v = draw.standard_normal((classes, d)) if kind == "clustered" else draw.laplace(size=(classes, d))
        v[:, 0] += 1
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    v.setflags(write=False)
    return v


@functools.lru_cache(maxsize=16)
def _prior(classes: int, balance: str, instances: int | None) -> np.ndarray:
    if instances is not None:
        return np.bincount(_members(classes, balance, instances), minlength=classes) / instances
    weights = np.ones(classes) if balance == "uniform" else 1 / np.arange(1, classes + 1)
    return weights / weights.sum()


@functools.lru_cache(maxsize=16)
def _members(classes: int, balance: str, instances: int) -> np.ndarray:
    """Class of every instance [N]; every class has at least one."""
    if balance == "uniform":
        return np.arange(instances) % classes
    share = _prior(classes, balance, None) * (instances - classes)
    counts = 1 + np.floor(share).astype(int)
    rest = np.argsort(-(share % 1), kind="stable")[: instances - counts.sum()]
    counts[rest] += 1
    return np.repeat(np.arange(classes), counts)
