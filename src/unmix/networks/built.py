"""Networks of other libraries, or of your own: any torch module, given by the dotted path of what builds it."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from unmix.core.errors import UsageError
from unmix.core.named import build_module, foreign, parts_of
from unmix.networks.base import Network, evaluating


def _path(path: str) -> str:
    parts_of(path)
    return path


class Built(Network):
    """A torch module that "my.module:build" makes, and a linear layer from its outputs to the width asked for.

    path: of a class or function that gives a module from observations [n, *shape] to rows [n, any], defined in the
    package that it names, such as "timm:create_model" or "torchvision.models:resnet18"; it is called with torch's
    random state set to the learner's stream. arguments: its keyword arguments, as JSON. linear: whether the linear
    layer follows; without it the module must give rows of the width. What is stored, or given as a plain dict, is
    built where its module is trusted (`UNMIX_TRUST`); of unmix only what makes a module.
    Raises `UsageError` for a path that gives no module, or a module that does not take the observations.
    """

    equation: ClassVar[str] = "h = W f(x) + b"
    reference: ClassVar[str] = "Wightman 2019, PyTorch Image Models (timm)"

    path: Annotated[str, AfterValidator(_path)]
    arguments: dict[str, Any] = Field(default_factory=dict)
    linear: bool = True

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def code(self) -> str | None:
        """The dotted path, unless it is one of unmix."""
        return foreign(self.path)

    def _build(self, shape: tuple[int, ...], width: int) -> nn.Module:
        module = build_module("Built.path", self.path, self.arguments)
        columns = self._columns(module, shape)
        if self.linear:
            return nn.Sequential(module, nn.Linear(columns, width))
        if columns != width:
            raise UsageError(f"Built.linear=False: {self.path} gives {columns} columns, asked for {width}")
        return module

    def _columns(self, module: nn.Module, shape: tuple[int, ...]) -> int:
        try:
            with torch.no_grad(), evaluating(module):
                rows = module(torch.zeros(2, *shape))
        except (RuntimeError, ValueError, TypeError) as error:
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UsageError(f"Built.path={self.path}: does not take observations {list(shape)} ({why})") from error
        if not isinstance(rows, Tensor) or rows.ndim != 2:
            found = list(rows.shape) if isinstance(rows, Tensor) else type(rows).__name__
            raise UsageError(f"Built.path={self.path}: must give rows [n, columns], gave {found} for 2 observations")
        return rows.shape[1]
