"""Operations that torch can derive forwards, backwards and twice, with the same result, in place of fused ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from unmix.regimes.running import as_written


@contextmanager
def consistent(model: nn.Module) -> Iterator[None]:
    """Attention and recurrent layers without their fused paths, look-ups whose derivatives agree, no autocast."""
    fast = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        as_written(stack, model)
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if any(isinstance(module, nn.RNNBase) for module in model.modules()):
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        stack.enter_context(_Lookups())
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)


def settle(model: nn.Module, x: Tensor, forward: Any = None) -> None:
    """Let embeddings with `max_norm` bound the rows that x looks up, in place, as any call of the model does."""
    kinds = (nn.Embedding, nn.EmbeddingBag)
    if any(isinstance(module, kinds) and module.max_norm is not None for module in model.modules()):
        with torch.no_grad():
            for rows in x.split(64):
                model(rows) if forward is None else forward(model, rows)


class _Lookups(TorchFunctionMode):
    """Embeddings as autograd derives them, in every way: nothing through the row of padding, and through a row that
    is bounded in size as if it had been so before. Dense gradients, not divided by how often a row is looked up.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is functional.embedding:
            return _embedding(*args, **kwargs)
        if func is functional.embedding_bag:
            names = ("input", "weight", "offsets", "max_norm", "norm_type", "scale_grad_by_freq", "mode", "sparse")
            given = {**dict(zip(names, args, strict=False)), **kwargs}
            return func(**{**given, "max_norm": None, "scale_grad_by_freq": False, "sparse": False})
        return func(*args, **kwargs)


def _embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    made = functional.embedding(input, weight)
    if max_norm is not None:
        size = made.detach().norm(norm_type, dim=-1, keepdim=True)
        bounded = torch.where(size > max_norm, max_norm / (size + 1e-7), 1.0)
        made = made + (made * (bounded - 1)).detach()
    if padding_idx is not None:
        made = torch.where((input == padding_idx % weight.shape[0])[..., None], made.detach(), made)
    return made
