"""TeacherStudent: targets from a small network of ReLU units that a larger one has to find again."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from unmix.core.sample import Sample
from unmix.core.seeds import Stream
from unmix.worlds.finite import FiniteWorld


class TeacherStudent(FiniteWorld):
    """y is a sum of `teachers` ReLU units with random unit weights and signs; z are the units' outputs.

    dimensions: d of x. teachers: k units of the teacher. inputs: uniform on the unit sphere, or Gaussian with unit
    variance in each dimension. noise: standard deviation of what is added to y.
    """

    equation: ClassVar[str] = "y = sum_j a_j max(0, v_j.x) + noise, |v_j| = 1, a_j = +-1"
    reference: ClassVar[str] = "Kunin et al. 2024, arXiv 2406.06158, figure 1; Chizat, Oyallon, Bach 2019"
    provides: ClassVar[frozenset[str]] = frozenset({"x", "y", "z", "index"})

    dimensions: int = Field(default=100, ge=1)
    teachers: int = Field(default=3, ge=1)
    inputs: Literal["sphere", "gaussian"] = "sphere"
    noise: float = Field(default=0.0, ge=0)

    @property
    def factors(self) -> tuple[str, ...]:
        return tuple(f"unit {j}" for j in range(self.teachers))

    @property
    def teacher(self) -> tuple[Tensor, Tensor]:
        """The teacher's directions v [k, d], unit norm, and signs a [k]."""
        draw = self._stream("teacher").numpy()
        v = draw.standard_normal((self.teachers, self.dimensions))
        v /= np.linalg.norm(v, axis=1, keepdims=True)
        signs = draw.choice([-1.0, 1.0], self.teachers)
        return torch.from_numpy(v).float(), torch.from_numpy(signs).float()

    @property
    def _total(self) -> None:
        return None

    def _part(self) -> Sample:
        return self._fresh(self.rows or 0, self._stream("rows"))

    def _some(self, whole: Sample, n: int, draw: np.random.Generator) -> np.ndarray:
        return draw.permutation(len(whole))[:n]

    def _fresh(self, n: int, rng: Stream) -> Sample:
        x = torch.randn(n, self.dimensions, generator=rng.child("x").torch())
        if self.inputs == "sphere":
            x = torch.nn.functional.normalize(x)
        v, a = self.teacher
        z = torch.relu(x @ v.T)
        y = z @ a
        if self.noise:
            y = y + self.noise * torch.randn(n, generator=rng.child("noise").torch())
        return Sample(x=x, y=y, z=z, index=torch.arange(n))
