"""Amortised encoders: one pass of a small network with weights of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from unmix.core import flops
from unmix.core.adam import Adam
from unmix.core.codes import Codes
from unmix.core.errors import UsageError
from unmix.core.loop import minibatches, warm_then_decay
from unmix.core.rows import Rows, gather
from unmix.core.scale import power_of_two, size_of
from unmix.core.seeds import Stream
from unmix.encoders.base import BoundEncoder, Encoder


class Parts(NamedTuple):
    """What a step of training needs of the encoding of x [n, d].

    codes: [n, m]. error: [n], half the squared error of the decoding, auxiliary decodings added. activity: [n, m],
    what a penalty falls on: the codes themselves, or the gate where it is apart from them. count: [n], number of
    active codes with a gradient to the thresholds, where the encoder has some of its own.
    """

    codes: Tensor
    error: Tensor
    activity: Tensor
    count: Tensor | None = None  # type: ignore[assignment]  # in place of tuple.count


class Amortised(Encoder):
    """An encoder that is a function with weights: fitted on rows with the dictionary frozen, or started as said.

    Unless a class says otherwise it reads linearly: what its nonlinearity is applied to is W (h - b) + c.

    init: "tied" takes the atoms as weights, "pinv" their pseudo-inverse; None asks for rows to fit on.
    steps, batch, lr: of the fit on rows (Adam on the squared reconstruction error). Shifts and thresholds are learnt
    in the units of the rows, or, where their root mean square is below 1/64 or above 64, in units near that.

    latents: tensors with one entry for each latent along `axis`, the matrix that reads x first. units: tensors in the
    units of the codes. side_decodings: how often the objective decodes through atoms that are held still.
    """

    weights: ClassVar[bool] = True
    amortised: ClassVar[bool] = True
    latents: ClassVar[tuple[str, ...]] = ("weight", "shift")
    axis: ClassVar[int] = 0
    units: ClassVar[tuple[str, ...]] = ("shift", "threshold")
    side_decodings: ClassVar[int] = 0
    _last_shift: ClassVar[str] = "shift"

    init: Literal["tied", "pinv"] | None = None
    steps: int = Field(default=400, ge=1)
    batch: int = Field(default=512, ge=1)
    lr: float = Field(default=3e-3, gt=0)

    def _prepare(self, atoms: Tensor, bias: Tensor, rows: Rows | None, rng: Stream) -> dict[str, Tensor]:
        if rows is None and self.init is None:
            raise UsageError(
                f"{self.kind} has weights of its own: give rows to fit them on, or init='tied' or init='pinv'"
            )
        if rows is None:
            return self._start(atoms, rng.child("weights"))
        near = _unit(torch.linalg.vector_norm(atoms, dim=1))
        tensors = self._start(atoms / near, rng.child("weights"))
        fitted = self._fit(tensors, atoms / near, bias, rows, rng.child("amortised"))
        # Codes of atoms that are that much shorter are that much larger.
        codes = {self.latents[0], *(name for name in self.units if name in self.latents or name == "threshold")}
        return {name: tensor / near if name in codes else tensor for name, tensor in fitted.items()}

    def _start(self, atoms: Tensor, rng: Stream) -> dict[str, Tensor]:
        """Tensors before any training."""
        weight = torch.linalg.pinv(atoms).T.contiguous() if self.init == "pinv" else atoms.clone()
        return {"weight": weight, "shift": atoms.new_zeros(len(atoms))}

    def _before(self, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """What the last nonlinearity is applied to, dense [n, m]."""
        return torch.addmm(tensors["shift"], x, tensors["weight"].T)

    def _forward(self, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Codes before any threshold that is set after training, dense [n, m]; gradients go through."""
        return self._before(tensors, x).relu()

    def _objective(self, tensors: Mapping[str, Tensor], x: Tensor, wanted: float | None = None) -> Parts:
        """Codes and errors of x [n, d] by `tensors`, atoms among them; `wanted` keeps that many codes a row."""
        codes = self._forward(tensors, x)
        if wanted is not None:
            codes = largest_of_batch(codes, wanted)
        return Parts(codes, half_squared(x - codes @ tensors["atoms"]), codes)

    def _inner(self, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """What the matrix that reads latents is applied to, [n, r]: x itself."""
        return x

    def _fixed(self) -> frozenset[str]:
        """Tensors that training does not change: a threshold that is set in the end, shifts where there are none."""
        return frozenset({"threshold"} if getattr(self, "bias", True) else {"threshold", "shift", "out_shift"})

    def _finished(self, tensors: dict[str, Tensor], x: Tensor) -> dict[str, Tensor]:
        """The tensors after training, atoms among them, with what is set in the end from rows x [n, d], bias off."""
        wanted = self._wanted()
        return tensors if wanted is None else self._calibrated(tensors, x, wanted)

    def _wanted(self) -> float | None:
        """Mean number of active codes to aim for in the fit, or None."""
        return None

    def _l1(self) -> float:
        """Weight of the sum of the activities in the fit on rows."""
        return 0.0

    def _fit(
        self, tensors: dict[str, Tensor], atoms: Tensor, bias: Tensor, rows: Rows, rng: Stream
    ) -> dict[str, Tensor]:
        fixed = self._fixed()
        sample = (gather(rows, 4096, rng).to(atoms.device) - bias).to(atoms.dtype)
        unit = _unit(sample)
        tensors = {name: tensor / unit if name in self.units else tensor for name, tensor in tensors.items()}
        adam = Adam({name: tensor for name, tensor in tensors.items() if name not in fixed})
        everything = {**tensors, **adam.learnt, "atoms": atoms}
        for step, h in minibatches(rows, self.batch, self.steps, rng, device=str(atoms.device)):
            x = (h - bias).to(atoms.dtype) / unit
            parts = self._objective(everything, x, self._wanted())
            loss = parts.error.sum()
            if self._l1():
                loss = loss + self._l1() / unit * parts.activity.abs().sum()
            adam.backward(loss / (x.square().sum() / 2).clamp_min(1e-12))
            adam.step(self.lr * warm_then_decay(step, self.steps))
        fitted = {name: tensor.detach().clone() for name, tensor in everything.items()}
        finished = self._finished(fitted, sample / unit)
        return {name: finished[name] * unit if name in self.units else finished[name] for name in tensors}

    def _calibrated(self, tensors: dict[str, Tensor], x: Tensor, wanted: float) -> dict[str, Tensor]:
        """Make `wanted` codes active on average: by a threshold where more are, by a larger shift where fewer are."""
        with torch.no_grad():
            before = self._before(tensors, x)
            size = before if getattr(self, "rectify", True) else before.abs()
            level = size.flatten().kthvalue(max(1, size.numel() - round(wanted * len(x)))).values
        if level < 0 and self._last_shift not in self._fixed():
            return {**tensors, self._last_shift: tensors[self._last_shift] - level}
        return {**tensors, "threshold": level.clamp_min(0)}

    def _encode(self, bound: BoundEncoder, x: Tensor) -> Codes:
        codes = self._forward(bound.tensors, x)
        return Codes(codes * (codes.abs() > bound.tensors["threshold"]), None, codes.shape[1])

    def _flops(self, m: int, d: int) -> float:
        return flops.linear_code(m, d)


class Linear(Amortised):
    """A linear read-out with a rectifier: z = relu(W (h - b) + c), or without it (signed codes).

    rectify: relu; without it the codes are signed and dense. active: mean number of active codes: the fit keeps the
    largest codes of each batch, and one threshold on all codes is set in the end; None keeps all.
    bias: the shift c is learnt; without it c stays zero.
    """

    equation: ClassVar[str] = "z = relu(W (h - b) + c)"
    reference: ClassVar[str] = "Cunningham et al. 2023, arXiv 2309.08600"
    sparsity: ClassVar[str | None] = "active"
    readout: ClassVar[Mapping[str, str]] = {"weight": "m d", "shift": "m", "threshold": ""}

    rectify: bool = True
    active: float | None = Field(default=None, gt=0)
    bias: bool = True

    def _wanted(self) -> float | None:
        return self.active

    def _start(self, atoms: Tensor, rng: Stream) -> dict[str, Tensor]:
        return {**super()._start(atoms, rng), "threshold": atoms.new_zeros(())}

    def _forward(self, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        before = self._before(tensors, x)
        return before.relu() if self.rectify else before


class TopK(Amortised):
    """The k largest of a linear read-out, rectified: z = top_k(relu(W (h - b) + c)).

    k: at most this many active codes in each row; ties go to the lowest index.
    """

    equation: ClassVar[str] = "z = top_k(relu(W (h - b) + c))"
    reference: ClassVar[str] = "Makhzani, Frey 2013, arXiv 1312.5663; Gao et al. 2024, arXiv 2406.04093"
    sparsity: ClassVar[str | None] = "k"
    readout: ClassVar[Mapping[str, str]] = {"weight": "m d", "shift": "m"}

    k: int = Field(default=32, ge=1)

    def _forward(self, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        before = self._before(tensors, x).relu()
        best = before.topk(min(self.k, before.shape[1]), dim=1)
        return torch.zeros_like(before).scatter(1, best.indices, best.values)

    def _encode(self, bound: BoundEncoder, x: Tensor) -> Codes:
        from unmix.kernels.topk import encode_topk

        values, indices = encode_topk(x, bound.tensors["weight"], bound.tensors["shift"], self.k)
        return Codes(values, indices, len(bound.atoms))


class MLP(Amortised):
    """One hidden layer: z = relu(V relu(W (h - b) + c) + e); always fitted on rows.

    hidden: units of the hidden layer. active: mean number of active codes, as for `Linear`; None keeps all.
    bias: the shifts c and e are learnt; without it they stay zero.
    """

    equation: ClassVar[str] = "z = relu(V relu(W (h - b) + c) + e)"
    reference: ClassVar[str] = "O'Neill, Gumran, Klindt 2024, arXiv 2411.13117"
    sparsity: ClassVar[str | None] = "active"

    latents: ClassVar[tuple[str, ...]] = ("out", "out_shift")
    units: ClassVar[tuple[str, ...]] = ("shift", "out_shift", "threshold")
    _last_shift: ClassVar[str] = "out_shift"

    hidden: int = Field(default=256, ge=1)
    active: float | None = Field(default=None, gt=0)
    bias: bool = True

    def _wanted(self) -> float | None:
        return self.active

    def _start(self, atoms: Tensor, rng: Stream) -> dict[str, Tensor]:
        if self.init is not None:
            raise UsageError(f"MLP.init={self.init!r}: a hidden layer has no such start; give rows to fit on")
        m, d = atoms.shape
        draw, zeros = rng.torch(), atoms.new_zeros
        # Small weights, uniform within 1 / sqrt(fan in), as the paper has them: larger ones hardly learn features.
        into = (torch.rand(self.hidden, d, generator=draw) * 2 - 1).to(atoms) / d**0.5
        out = (torch.rand(m, self.hidden, generator=draw) * 2 - 1).to(atoms) / self.hidden**0.5
        return {
            "weight": into,
            "shift": zeros(self.hidden),
            "out": out,
            "out_shift": zeros(m),
            "threshold": zeros(()),
        }

    def _inner(self, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        return torch.addmm(tensors["shift"], x, tensors["weight"].T).relu()

    def _before(self, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        return torch.addmm(tensors["out_shift"], self._inner(tensors, x), tensors["out"].T)

    def _flops(self, m: int, d: int) -> float:
        return flops.linear_code(self.hidden, d) + flops.linear_code(m, self.hidden)


def _unit(x: Tensor) -> float:
    """1, or a power of two near the root mean square of the entries where that is far from 1."""
    size = size_of(x)
    scale = size * float((x.double() / (size or 1.0)).square().mean().sqrt())
    return 1.0 if 1 / 64 <= scale <= 64 else power_of_two(scale)


def half_squared(error: Tensor) -> Tensor:
    """Half the squared norm of each row of [n, d]: [n]."""
    return error.square().sum(1) / 2


def largest_of_batch(codes: Tensor, active: float) -> Tensor:
    """The codes [n, m] with all but the `active` n largest of the whole batch set to zero (arXiv 2412.06410)."""
    keep = round(active * len(codes))
    if keep >= codes.numel():
        return codes
    size = codes.detach().abs()
    return codes * (size > size.flatten().kthvalue(codes.numel() - keep).values)
