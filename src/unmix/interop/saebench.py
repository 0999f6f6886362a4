"""Features as the module that SAEBench's evaluations ask for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from unmix.core.codes import Codes
from unmix.core.errors import UsageError
from unmix.finders.features import Features


class BenchSAE(torch.nn.Module):
    """Features with what SAEBench reads: encode, decode, W_dec, W_enc, b_dec, b_enc, cfg, device, dtype.

    encode(x [..., d]) gives dense codes [..., m], decode(codes [..., m]) rows [..., d]; W_dec is the atoms [m, d],
    b_dec the bias. W_enc [d, m] and b_enc [m] are the read-out of an encoder that has one, for measures that compare
    it with the decoder. An encoder without a read-out (an iterative one) gives W_dec transposed, by which its first
    step reads a row, and zeros.

    model_name, hook_name, hook_layer: which activations the features are of, for `cfg`. Of SAEBench's own measures
    TPP and SCR were found unreliable by an audit (arXiv 2605.18229); compare several seeds.
    Raises `UsageError` where a batch has another width.
    """

    def __init__(self, features: Features, model_name: str, hook_name: str, hook_layer: int) -> None:
        super().__init__()
        m, d = features.shape
        self.features = features
        self.cfg = SimpleNamespace(
            model_name=model_name,
            hook_name=hook_name,
            hook_layer=hook_layer,
            hook_head_index=None,
            d_in=d,
            d_sae=m,
            architecture=f"unmix_{features.encoder.recipe.kind}",
            dtype=_name(features.atoms.dtype),
            device=str(features.atoms.device),
            context_size=None,
            prepend_bos=True,
            normalize_activations="none",
            apply_b_dec_to_input=True,
            model_from_pretrained_kwargs={},
            seqpos_slice=(None,),
        )

    @property
    def W_dec(self) -> Tensor:
        """Atoms [m, d]."""
        return self.features.atoms

    @property
    def b_dec(self) -> Tensor:
        """Bias [d]."""
        return self.features.bias

    @property
    def W_enc(self) -> Tensor:
        """Read-out [d, m]; the atoms where the encoder has none."""
        return (self.features.encoder.tensors["weight"] if self._reads else self.features.atoms).T

    @property
    def b_enc(self) -> Tensor:
        """Shift of the read-out [m]; zeros where the encoder has none."""
        features = self.features
        return features.encoder.tensors["shift"] if self._reads else features.atoms.new_zeros(len(features.atoms))

    @property
    def device(self) -> torch.device:
        """Where the features are."""
        return self.features.atoms.device

    @property
    def dtype(self) -> torch.dtype:
        """The precision codes are computed in."""
        return self.features.atoms.dtype

    @property
    def _reads(self) -> bool:
        weight = self.features.encoder.tensors.get("weight")
        return weight is not None and weight.shape == self.features.atoms.shape

    def _apply(self, fn: Any, recurse: bool = True) -> BenchSAE:
        like = fn(self.features.bias)
        self.features = self.features.to(like.dtype).to(like.device)
        self.cfg.dtype, self.cfg.device = _name(self.dtype), str(self.device)
        return self

    def encode(self, x: Tensor) -> Tensor:
        """Dense codes [..., m] of rows x [..., d]."""
        self._check(x, self.cfg.d_in)
        codes = self.features.encode(x.reshape(-1, self.cfg.d_in)).dense()
        return codes.reshape(*x.shape[:-1], self.cfg.d_sae)

    def decode(self, codes: Tensor) -> Tensor:
        """Rows [..., d] of dense codes [..., m]."""
        self._check(codes, self.cfg.d_sae)
        flat = Codes(codes.reshape(-1, self.cfg.d_sae).to(self.features.atoms), None, self.cfg.d_sae)
        return self.features.decode(flat).reshape(*codes.shape[:-1], self.cfg.d_in)

    def forward(self, x: Tensor) -> Tensor:
        """decode(encode(x)): [..., d]."""
        return self.decode(self.encode(x))

    def check_decoder_norms(self) -> bool:
        """Whether every atom has norm 1, to 1e-5 (1e-2 in half precision)."""
        tolerance = 1e-2 if self.dtype in (torch.float16, torch.bfloat16) else 1e-5
        return bool(((self.features.atoms.float().norm(dim=1) - 1).abs() <= tolerance).all())

    def _check(self, x: Tensor, width: int) -> None:
        if x.ndim < 1 or x.shape[-1] != width:
            raise UsageError(f"x: expected [..., {width}], got {list(x.shape)}")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
