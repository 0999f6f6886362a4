"""A TopK autoencoder whose latents are divided among processes, for dictionaries that outgrow one device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unmix.core import parallel
from unmix.core.errors import UsageError
from unmix.kernels._step_plain import decode_plain, slopes_plain
from unmix.kernels.lists import Lists, rectangular
from unmix.kernels.topk import decode, encode_topk
from unmix.kernels.topk_trainer import TopKTrainer


@torch.no_grad()
def encode_sharded(h: Tensor, weight: Tensor, bias: Tensor | None, k: int, first: int) -> tuple[Tensor, Tensor]:
    """`encode_topk` over the latents of all processes; every process gets all codes.

    h [n, d], the same everywhere; weight [m', d] and bias [m'] of this process's latents, the first of which is
    number `first` of all -> values, indices [n, k]. Raises `UsageError` where a process has fewer than k latents.
    """
    values, indices = encode_topk(h, weight, bias, k)
    values, indices = _beside(values), _beside(indices + first)
    # Processes and slots are in rising order of index: a stable sort leaves ties to the lowest.
    order = values.sort(dim=1, descending=True, stable=True).indices[:, :k].sort(dim=1).values
    return values.gather(1, order), indices.gather(1, order)


@torch.no_grad()
def decode_sharded(values: Tensor, indices: Tensor, atoms: Tensor, bias: Tensor | None, first: int) -> Tensor:
    """`decode` with the atoms of all processes: [n, d]; atoms [m', d] are this process's, from number `first` on."""
    own = (indices >= first) & (indices < first + len(atoms))
    part = decode(values * own, (indices - first).clamp(0, len(atoms) - 1), atoms)
    return parallel.total(part) if bias is None else parallel.total(part).add_(bias)


class ShardedTopKTrainer(TopKTrainer):
    """`TopKTrainer` with the latents, and all that Adam holds for them, divided among torchrun's processes.

    Every process gives the whole batch to `step`. What is sent is the best k pre-activations of each process [b, k]
    and the reconstructions [b, d]; neither weights nor gradients ever are. `parameters` and `whole_state` put all
    together in the memory of the CPU, and every process must ask for them.
    """

    def __init__(
        self, weight: Tensor, encoder_bias: Tensor, atoms: Tensor, decoder_bias: Tensor, k: int, **options: Any
    ) -> None:
        self.shares = parallel.shares(len(weight))
        own = self.shares[parallel.rank()]
        least = min(share.stop - share.start for share in self.shares)
        for name, number in (("k", k), ("aux_k", options.get("aux_k", 0))):
            if number > least:
                raise UsageError(f"{name}={number}: more than the {least} atoms that a process has under split=atoms")
        given = weight[own], encoder_bias[own], atoms[own], decoder_bias
        super().__init__(*given, k, **{**options, "backend": "torch"})
        self.sliced = False

    def parameters(self) -> dict[str, Tensor]:
        """As in `SparseTrainer`, of all processes, on the CPU."""
        return self._whole(super().parameters())

    def whole_state(self) -> dict[str, Tensor]:
        """The `state` of all processes, on the CPU."""
        return self._whole(self.state())

    def load_state(self, state: Mapping[str, Tensor | int]) -> None:
        """Go on from `whole_state()`, whatever number of processes made it."""
        own = self.shares[parallel.rank()]
        whole = {name: tensor for name, tensor in state.items() if not _divided(name)}
        super().load_state(whole | {name: torch.as_tensor(state[name])[own] for name in state if _divided(name)})

    def step(self, x: Tensor, lr: float | None = None) -> dict[str, Any]:
        """As in `SparseTrainer`, on the whole batch in every process."""
        facts = super().step(x, lr)
        return {**facts, "l0": parallel.total(facts["l0"]), "dead": parallel.count(facts["dead"], x.device)}

    def _whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {n: parallel.assembled(t, self.shares) if _divided(n) else t.cpu() for n, t in tensors.items()}

    def _codes(self, inputs: Tensor, norms: Tensor | None, dead: Tensor) -> tuple[Lists, Lists | None]:
        codes, spare = super()._codes(inputs, norms, dead)
        b, k = len(inputs), min(self.aux_k, parallel.count(len(dead), inputs.device))
        codes = rectangular(_best(codes.values.view(b, -1)), codes.indices.view(b, -1))
        if not k:
            return codes, None
        values, indices = inputs.new_zeros(b, k), torch.zeros(b, k, dtype=torch.int64, device=inputs.device)
        if spare is not None and spare.each is not None:
            values[:, : spare.each] = spare.values.view(b, -1)
            indices[:, : spare.each] = spare.indices.view(b, -1)
        return codes, rectangular(_best(values), indices)

    def _reconstruct(
        self, codes: Lists, atoms: Tensor, base: Tensor, sign: int, error: Tensor
    ) -> tuple[Tensor, Tensor]:
        decode_plain(codes, atoms, error)
        parallel.total(error).add_(base, alpha=sign)
        slopes_plain(codes, atoms, error)
        return error.square().sum(1).mean(), error.sum(0)

    def _pulled(self, pull: Tensor) -> Tensor:
        return parallel.total(pull)


def _divided(name: str) -> bool:
    """Whether a tensor of a trainer's state belongs to latents."""
    return name == "idle" or name.rpartition(".")[2] in ("weight", "encoder_bias", "atoms")


def _beside(own: Tensor) -> Tensor:
    """The columns [b, k] of all processes beside each other [b, ranks k]."""
    return parallel.collected(own.unsqueeze(0)).transpose(0, 1).flatten(1)


def _best(own: Tensor) -> Tensor:
    """This process's values [b, k], rectified, where they are among the k largest of all processes, else 0."""
    b, k = own.shape
    order = _beside(own).sort(dim=1, descending=True, stable=True).indices[:, :k]
    mine = order - parallel.rank() * k
    inside = (mine >= 0) & (mine < k)
    keep = torch.zeros(b, k + 1, dtype=torch.bool, device=own.device)
    keep.scatter_(1, torch.where(inside, mine, k), True)
    return own * keep[:, :k]
