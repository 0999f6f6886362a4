"""Amortised encoders that choose apart from reading: a gate, the largest in size, nested prefixes."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from unmix.core.codes import Codes
from unmix.core.errors import UsageError
from unmix.core.seeds import Stream
from unmix.encoders.amortised import Amortised, Parts, half_squared, largest_of_batch
from unmix.encoders.base import BoundEncoder

BLOCK_BYTES = 64 << 20  # most pre-activations held at once


class Gated(Amortised):
    """A gate that says which latents are active and a magnitude that says how much, on one weight matrix.

    z_j = [w_j (h - b) + g_j > 0] relu(exp(r_j) w_j (h - b) + c_j), with tensors weight W [m, d], gate_shift g [m],
    log_scale r [m] and shift c [m]. The gate has no gradient of its own: in training relu(gate) is penalised, and
    decodes x as well through atoms that are held still. active: mean number of active codes in the fit on rows,
    where the gates of a batch that are largest stay open; None keeps all that are open.
    """

    equation: ClassVar[str] = "z = [W (h - b) + g > 0] relu(exp(r) W (h - b) + c)"
    reference: ClassVar[str] = "Rajamanoharan et al. 2024, arXiv 2404.16014"
    sparsity: ClassVar[str | None] = "active"
    latents: ClassVar[tuple[str, ...]] = ("weight", "shift", "gate_shift", "log_scale")
    units: ClassVar[tuple[str, ...]] = ("shift", "gate_shift")
    side_decodings: ClassVar[int] = 1

    active: float | None = Field(default=None, gt=0)

    def _wanted(self) -> float | None:
        return self.active

    def _start(self, atoms: Tensor, rng: Stream) -> dict[str, Tensor]:
        zeros = atoms.new_zeros(len(atoms))
        return {**super()._start(atoms, rng), "gate_shift": zeros, "log_scale": zeros.clone()}

    def _parts(self, tensors: Mapping[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        """Gate and magnitude of x, each [n, m]."""
        read = x @ tensors["weight"].T
        magnitude = torch.addcmul(tensors["shift"], tensors["log_scale"].exp(), read).relu()
        return read + tensors["gate_shift"], magnitude

    def _before(self, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        return torch.addmm(tensors["gate_shift"], x, tensors["weight"].T)

    def _forward(self, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        gate, magnitude = self._parts(tensors, x)
        return magnitude * (gate > 0)

    def _objective(self, tensors: Mapping[str, Tensor], x: Tensor, wanted: float | None = None) -> Parts:
        gate, magnitude = self._parts(tensors, x)
        opening = gate.relu()
        if wanted is not None:
            opening = largest_of_batch(opening, wanted)
        codes = magnitude * (opening > 0)
        atoms = tensors["atoms"]
        # The target is held still as well, so that the dictionary and its bias learn from the codes alone.
        error = half_squared(x - codes @ atoms) + half_squared(x.detach() - opening @ atoms.detach())
        return Parts(codes, error, opening)

    def _calibrated(self, tensors: dict[str, Tensor], x: Tensor, wanted: float) -> dict[str, Tensor]:
        with torch.no_grad():
            gate, magnitude = self._parts(tensors, x)
            able = gate[magnitude > 0]
            keep = round(wanted * len(x))
            if keep >= able.numel():
                level = able.min() - 1e-6 * able.abs().max() if able.numel() else gate.new_zeros(())
            else:
                level = able.kthvalue(able.numel() - keep).values
        return {**tensors, "gate_shift": tensors["gate_shift"] - level}

    def _encode(self, bound: BoundEncoder, x: Tensor) -> Codes:
        return Codes(self._forward(bound.tensors, x), None, len(bound.atoms))


class AbsTopK(Amortised):
    """The k largest of a linear read-out by size, with their sign: z = H_k(W (h - b) + c).

    k: active codes in each row; ties go to the lowest index. One latent can stand for a direction and its opposite.
    """

    equation: ClassVar[str] = "z_j = a_j [ |a_j| among the k largest ],  a = W (h - b) + c"
    reference: ClassVar[str] = "arXiv 2510.00404"
    sparsity: ClassVar[str | None] = "k"
    readout: ClassVar[Mapping[str, str]] = {"weight": "m d", "shift": "m"}
    signed: ClassVar[bool] = True

    k: int = Field(default=32, ge=1)

    def _forward(self, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        before = self._before(tensors, x)
        chosen = before.detach().abs().topk(min(self.k, before.shape[1]), dim=1).indices
        return torch.zeros_like(before).scatter(1, chosen, before.gather(1, chosen))

    def _encode(self, bound: BoundEncoder, x: Tensor) -> Codes:
        from unmix.kernels.topk import select

        m = len(bound.atoms)
        height = max(64, BLOCK_BYTES // (x.element_size() * m))
        parts = []
        for start in range(0, max(1, len(x)), height):
            before = self._before(bound.tensors, x[start : start + height])
            _, indices = select(before.abs(), self.k)
            parts.append(Codes(before.gather(1, indices), indices, m))
        return Codes.concatenate(parts)


class Matryoshka(Amortised):
    """Nested dictionaries: the first p atoms alone are a dictionary, for every p of `prefixes`.

    The k largest rectified codes are chosen once among all m atoms, and the codes of a prefix are those among its
    own p atoms: codes of a small level are the codes of a larger one, cut. A finder adds the errors of all levels.

    k: active codes in each row over all atoms; ties go to the lowest index. prefixes: sizes of the nested
    dictionaries, rising, all m atoms being the last; without any they are m/16, m/8, m/4, m/2 and m.
    prefix: read with the first so many atoms only; None reads all.
    """

    equation: ClassVar[str] = "z = top_k(relu(W (h - b) + c));  min sum_p |h - b - z[:p] D[:p]|^2"
    reference: ClassVar[str] = "Bussmann et al. 2025, arXiv 2503.17547"
    sparsity: ClassVar[str | None] = "k"
    readout: ClassVar[Mapping[str, str]] = {"weight": "m d", "shift": "m"}

    k: int = Field(default=32, ge=1)
    prefixes: tuple[int, ...] = ()
    prefix: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _possible(self) -> Matryoshka:
        steps = (0, *self.prefixes)
        if any(later <= earlier for earlier, later in pairwise(steps)):
            raise ValueError(f"prefixes={self.prefixes} must be positive and rising")
        return self

    def levels(self, m: int) -> tuple[int, ...]:
        """Sizes of the nested dictionaries of m atoms, the last one m; raises `UsageError` for a prefix over m."""
        for name, size in (("prefix", self.prefix or 1), *(("prefixes", size) for size in self.prefixes)):
            if size > m:
                raise UsageError(f"Matryoshka.{name}={size}: must be at most the number of atoms, {m}")
        given = self.prefixes or tuple(m // part for part in (16, 8, 4, 2) if m // part)
        return tuple(sorted({*given, m}))

    def _check(self, m: int, d: int) -> None:
        super()._check(m, d)
        self.levels(m)

    def _forward(self, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        before = self._before(tensors, x).relu()
        best = before.topk(min(self.k, before.shape[1]), dim=1)
        return torch.zeros_like(before).scatter(1, best.indices, best.values)

    def _objective(self, tensors: Mapping[str, Tensor], x: Tensor, wanted: float | None = None) -> Parts:
        codes, atoms = self._forward(tensors, x), tensors["atoms"]
        left, begin, error = x, 0, x.new_zeros(len(x))
        for end in self.levels(len(atoms)):
            left = left - codes[:, begin:end] @ atoms[begin:end]
            error, begin = error + half_squared(left), end
        return Parts(codes, error, codes)

    def _encode(self, bound: BoundEncoder, x: Tensor) -> Codes:
        from unmix.kernels.topk import encode_topk

        values, indices = encode_topk(x, bound.tensors["weight"], bound.tensors["shift"], self.k)
        if self.prefix is not None:
            values = values * (indices < self.prefix)
        return Codes(values, indices, len(bound.atoms))
