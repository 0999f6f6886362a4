"""Representation: a trained encoder and what was learnt beside it; what every learner returns."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unmix.core.digest import SCHEMA, array_digest, digest
from unmix.core.errors import Failure, UsageError
from unmix.core.named import trusting
from unmix.core.rows import as_tensor, require_finite
from unmix.core.store import lacking, read_json, read_tensors, replacing, write_json, write_tensors
from unmix.networks import NETWORKS
from unmix.networks.base import Network, evaluating


@dataclass(frozen=True, eq=False)
class Representation:
    """h = module(x): observations [n, *shape] to [n, width].

    module: the encoder alone. network: the recipe it is rebuilt from, None for a module that was given (it cannot be
    saved). parts: other tensors that were learnt, such as a head's weights [C, width]. trace: a dict for every logged
    step. about: plain facts of the fit (learner, world, seed, steps, seconds).
    """

    module: nn.Module
    network: Network | None
    shape: tuple[int, ...]
    width: int
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    trace: Sequence[Mapping[str, Any]] = ()
    about: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, x: Any, block: int = 4096) -> Tensor:
        """h [n, width] of x [n, *shape] (numpy or torch), float32, on the device of x; no gradient, in eval mode.

        Raises `UsageError` for another shape, no rows, or NaN.
        """
        x = as_tensor(x, "x")
        if tuple(x.shape[1:]) != self.shape or not len(x):
            expected = ", ".join(["n", *map(str, self.shape)])
            raise UsageError(f"x: this representation takes [{expected}] with at least one row, got {list(x.shape)}")
        device = next((p.device for p in self.module.parameters()), x.device)
        parts = []
        with torch.no_grad(), evaluating(self.module):
            for start in range(0, len(x), block):
                rows = x[start : start + block]
                require_finite(rows.reshape(len(rows), -1), "x", start)
                parts.append(self.module(rows.to(device, torch.float32)).float().to(x.device))
        return torch.cat(parts)

    def to(self, device: str | torch.device) -> Representation:
        """The same on another device."""
        module = copy.deepcopy(self.module).to(device)
        parts = {name: tensor.to(device) for name, tensor in self.parts.items()}
        return dataclasses.replace(self, module=module, parts=parts)

    @property
    def digest(self) -> str:
        """Digest of the network's recipe and every learnt tensor."""
        tensors = {name: array_digest(tensor) for name, tensor in sorted(self._tensors().items())}
        network = None if self.network is None else self.network.as_dict()
        return digest([network, list(self.shape), self.width, tensors])

    def save(self, folder: str | Path) -> Path:
        """Write a folder of representation.json and tensors.safetensors, whole or not at all.

        Raises `UsageError` for a module without a recipe.
        """
        folder = Path(folder)
        if self.network is None:
            raise UsageError("representation: its module was given without a recipe; save that module yourself")
        facts = {
            "schema": SCHEMA,
            "network": self.network.as_dict(),
            "shape": list(self.shape),
            "width": self.width,
            "trace": [dict(line) for line in self.trace],
            "about": dict(self.about),
        }
        with replacing(folder) as part:
            part.mkdir(parents=True)
            write_tensors(part / "tensors.safetensors", self._tensors())
            write_json(part / "representation.json", facts)
        return folder

    @staticmethod
    def lacks(folder: Path) -> str | None:
        """Which file of a stored folder is missing or cut off, as far as sizes tell; None where it is whole."""
        return lacking(folder, "representation.json", "tensors.safetensors")

    @staticmethod
    def load(folder: str | Path, device: str = "cpu", trust: frozenset[str] = frozenset()) -> Representation:
        """A representation from a folder; `trust` names packages whose networks may be imported, beside UNMIX_TRUST.

        Raises `UsageError` for another version or a network that is not trusted, `Failure` for a file that is cut off
        or holds other tensors.
        """
        folder = Path(folder)
        again = f"remove {folder} and make it again"
        if folder.is_dir() and (name := Representation.lacks(folder)) and not (folder / name).exists():
            raise Failure(f"{folder / name}: is missing; {again}")
        facts = read_json(folder / "representation.json", again)
        schema = facts.get("schema") if isinstance(facts, dict) else None
        if schema != SCHEMA:
            raise UsageError(
                f"{folder}: written by another version (schema {schema}, this one reads {SCHEMA}); "
                "learn again, or use the version that wrote it"
            )
        if missing := [n for n in ("network", "shape", "width", "trace", "about") if n not in facts]:
            raise Failure(f"{folder / 'representation.json'}: has no {', '.join(missing)}; {again}")
        with trusting(trust):
            network: Network = NETWORKS.make(facts["network"])
        tensors = read_tensors(folder / "tensors.safetensors", device, again)
        module = network.build(tuple(facts["shape"]), facts["width"]).to(device).eval()
        own = {name.removeprefix("module."): t for name, t in tensors.items() if name.startswith("module.")}
        try:
            module.load_state_dict(own)
        except RuntimeError:
            raise Failure(f"{folder / 'tensors.safetensors'}: not the tensors of {network}; {again}") from None
        parts = {name.removeprefix("part."): t for name, t in tensors.items() if name.startswith("part.")}
        shape = tuple(facts["shape"])
        return Representation(module, network, shape, facts["width"], parts, facts["trace"], facts["about"])

    @staticmethod
    def of(
        network: Network, shape: tuple[int, ...], width: int, state: Mapping[str, Tensor] | Path
    ) -> Representation:
        """A representation from given weights, to use or to go on from: `fit(world, start=Representation.of(...))`.

        network: the recipe of their module. state: its state dict, or a .safetensors file of one; of a network from
        outside unmix that of the module without the linear layer that `Built` adds will do, which is then drawn.
        Raises `UsageError` for tensors that are not this network's.
        """
        module = network.build(shape, width)
        own = module.state_dict()
        given = read_tensors(state) if isinstance(state, Path) else dict(state)
        for prefix in ("", "0.", "0.0.") if network.code else ("",):
            found = {prefix + name: tensor for name, tensor in given.items()}
            if found.keys() == {name for name in own if name.startswith(prefix)}:
                break
        else:
            apart = sorted(given.keys() ^ own.keys())
            raise UsageError(f"state: not the tensors of {network}; on one side alone: {', '.join(apart[:4])}")
        for name, tensor in found.items():
            if tensor.shape != own[name].shape:
                raise UsageError(f"state: {name} is {list(tensor.shape)}, {network} has {list(own[name].shape)}")
        module.load_state_dict({**own, **found})
        return Representation(module.eval(), network, tuple(shape), width, about={"learner": None, "steps": 0})

    def _tensors(self) -> dict[str, Tensor]:
        own = {f"module.{name}": tensor for name, tensor in self.module.state_dict().items()}
        return {**own, **{f"part.{name}": tensor for name, tensor in self.parts.items()}}

    def __repr__(self) -> str:
        made = self.network if self.network is not None else type(self.module).__name__
        return f"Representation({list(self.shape)} -> {self.width}, {made})"
