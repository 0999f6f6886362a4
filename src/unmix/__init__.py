"""unmix: find the factors in a representation, and know how far to trust them.

The names a user needs; each is imported when it is first asked for, so that `import unmix` is light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from unmix.encoders.amortised import Linear as Linear
    from unmix.encoders.amortised import TopK as TopK
    from unmix.encoders.greedy import Omp as Omp
    from unmix.encoders.iterative import Fista as Fista
    from unmix.finders.dictionary import SparseCoding as SparseCoding
    from unmix.finders.features import Features as Features
    from unmix.finders.features import replace as replace
    from unmix.finders.sae import SAE as SAE
    from unmix.finders.topk_sae import TopKSAE as TopKSAE
    from unmix.scores.matching import dictionary_mcc as dictionary_mcc
    from unmix.scores.matching import mcc as mcc
    from unmix.scores.sparsity import fvu as fvu
    from unmix.study.study import Study as Study
    from unmix.worlds.matched import MatchedWorld as MatchedWorld
    from unmix.worlds.sparse import SparseWorld as SparseWorld

_WHERE = {
    "Features": "finders.features",
    "Fista": "encoders.iterative",
    "Linear": "encoders.amortised",
    "MatchedWorld": "worlds.matched",
    "Omp": "encoders.greedy",
    "SAE": "finders.sae",
    "SparseCoding": "finders.dictionary",
    "SparseWorld": "worlds.sparse",
    "Study": "study.study",
    "TopK": "encoders.amortised",
    "TopKSAE": "finders.topk_sae",
    "dictionary_mcc": "scores.matching",
    "fvu": "scores.sparsity",
    "mcc": "scores.matching",
    "replace": "finders.features",
}
__all__ = [*_WHERE, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'unmix' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"unmix.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
