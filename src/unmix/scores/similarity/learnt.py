"""Similarities with learnt weights behind them: an embedding from a file, or any torch network."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from unmix.core.array_files import ARCHIVES, array_names, read_named, read_npy
from unmix.core.errors import UsageError
from unmix.core.named import build_module, foreign
from unmix.core.tables import SUFFIXES, is_table, open_table
from unmix.scores.similarity.base import Alike, Measured, Rule, Similarity, embedded
from unmix.scores.similarity.images import as_images


class Embedding(Similarity):
    """An embedding of the images that was made elsewhere, one row for each image, from a file of arrays.

    path: .npy; .npz, .safetensors or .h5, of which "vectors", or the only one, is taken; or a table. rule: cosine or
    distance. `unmix score RUN` takes one row for each image of the run.
    """

    equation: ClassVar[str] = "s(i, j) = cos(e_i, e_j), or -|e_i - e_j|"
    reference: ClassVar[str] = "as the embedding; DreamSim: Fu et al. 2023, arXiv 2306.09344"
    needs_weights: ClassVar[bool] = True

    path: str
    rule: Rule = "cosine"

    def bind(self, images: Any) -> Alike:
        return self.of(_read(self.path), images)

    def of(self, vectors: Any, images: Any) -> Alike:
        """The same with the vectors [n, p] of the file at hand, however they were read."""
        alike = embedded(vectors, self.rule, f"Embedding.path={self.path}", images)
        return dataclasses.replace(alike, name=str(self))


class Network(Measured):
    """The output of a torch network at each image, maps averaged over their places.

    make: "my.module:function" without arguments that gives the module in the state it should be used in; as a plain
    dict or stored, where its module is trusted. batch: images at a time. rule: cosine or distance.
    """

    equation: ClassVar[str] = "s(i, j) = cos(f(x_i), f(x_j)), or -|f(x_i) - f(x_j)|"
    reference: ClassVar[str] = "as the network; Zhang et al. 2018, arXiv 1801.03924"
    needs_weights: ClassVar[bool] = True

    make: str
    batch: int = Field(default=64, ge=1)
    rule: Rule = "cosine"

    @property
    def code(self) -> str | None:
        """What makes the network, unless it is of unmix."""
        return foreign(self.make)

    def _bind(self, images: Tensor) -> Alike:
        return by_network(build_module("Network.make", self.make, {}), images, self.batch, self.rule)


def by_network(module: nn.Module, images: Any, batch: int = 64, rule: Rule = "cosine") -> Alike:
    """Images compared by what a torch module gives for them: [n, p], or maps [n, p, ...], averaged over the places.

    images: as `Similarity.bind` takes them; the module is given floats [batch, c, h, w]. Evaluation mode, no
    gradient; the module's mode is left as it was. Raises `UsageError` for an output of another shape.
    """
    given, training = as_images(images), module.training
    module.eval()
    try:
        with torch.no_grad():
            parts = [module(block) for block in given.split(batch)]
    finally:
        module.train(training)
    vectors = torch.cat(parts).float()
    if vectors.ndim < 2 or len(vectors) != len(given):
        raise UsageError(f"network: must give [n, p] or [n, p, ...] for n images, got {list(vectors.shape)}")
    return embedded(vectors.flatten(2).mean(2) if vectors.ndim > 2 else vectors, rule, "network", images)


def _read(path: str) -> Any:
    if is_table(path):
        return open_table(path, "Embedding.path").numbers(complete=True)
    if path.lower().endswith(".npy"):
        return read_npy(path, "Embedding.path")
    if not path.lower().endswith(ARCHIVES):
        raise UsageError(f"Embedding.path={path}: give .npy, {', '.join((*ARCHIVES, *SUFFIXES))}")
    return read_named(path, "vectors" if "vectors" in array_names(path) else None, "Embedding.path")
