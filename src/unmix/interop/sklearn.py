"""A scikit-learn transformer around any finder."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array

from unmix.core.codes import Codes
from unmix.core.errors import UsageError
from unmix.core.recipe import Recipe
from unmix.core.seeds import untouched
from unmix.finders import FINDERS
from unmix.finders.features import Features, bound

with untouched():
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.utils.validation import check_array, check_is_fitted, check_non_negative, validate_data

FLOATS = [np.float64, np.float32]


class UnmixTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Codes of rows by a finder, as a step of a scikit-learn pipeline: X ~ transform(X) @ components_ + bias_.

    finder: a recipe or its name; its fields are parameters too, as `finder__width` in a grid search.
    seed: of the fit. sparse_output: `transform` gives a scipy csr_array instead of a dense array.

    After `fit`: features_ (Features), components_ [m, d] (the atoms) and bias_ [d], both float32,
    n_features_in_ = d. Float32 rows are encoded in float32 and all others in float64; codes have that dtype.

    >>> from sklearn.datasets import load_digits
    >>> from unmix.finders.linear import PCA
    >>> UnmixTransformer(PCA(width=8)).fit_transform(load_digits().data).shape
    (1797, 8)
    """

    def __init__(self, finder: Any = "TopKSAE", seed: int = 0, sparse_output: bool = False) -> None:
        self.finder = finder
        self.seed = seed
        self.sparse_output = sparse_output

    def fit(self, X: Any, y: Any = None) -> UnmixTransformer:
        """Fit the finder on rows X [n, d], n >= 2; y is passed over. Raises `ValueError` as scikit-learn words it."""
        X = validate_data(self, X, dtype=FLOATS, ensure_min_samples=2)
        finder = FINDERS.make(self.finder)
        if finder.nonnegative:
            check_non_negative(X, finder.kind)
        self.features_: Features = finder.fit(X, rng=self.seed)
        self.components_: NDArray[Any] = self.features_.atoms.numpy()
        self.bias_: NDArray[Any] = self.features_.bias.numpy()
        return self

    def transform(self, X: Any) -> Any:
        """Codes [n, m] of rows X [n, d]."""
        codes = self._codes(self._rows(X))
        if not self.sparse_output:
            return codes.dense().numpy()
        codes = codes.ragged()
        assert codes.indices is not None and codes.pointers is not None
        parts = (codes.values.numpy(), codes.indices.numpy(), codes.pointers.numpy())
        return csr_array(parts, shape=codes.shape)

    def inverse_transform(self, X: Any) -> NDArray[Any]:
        """Rows [n, d] from codes X [n, m], dense or sparse: X @ components_ + bias_."""
        check_is_fitted(self)
        codes = check_array(X, accept_sparse="csr", dtype=FLOATS)
        m = len(self.components_)
        if codes.shape[1] != m:
            raise UsageError(f"X has {codes.shape[1]} features, but {type(self).__name__} gives codes of {m}")
        rows = codes @ self.components_.astype(codes.dtype)
        return np.asarray(rows) + self.bias_.astype(codes.dtype)

    def score(self, X: Any, y: Any = None) -> float:
        """Fraction of variance explained: 1 - sum |x - x'|^2 / sum |x - mean(x)|^2, in float64."""
        rows = self._rows(X).astype(np.float64)
        rest = rows - self._codes(rows).decode(*self._numbers(torch.float64)).numpy()
        total = np.square(rows - rows.mean(0)).sum()
        if total == 0:
            raise UsageError("X: all rows are equal, there is no variance to explain")
        return float(1 - np.square(rest).sum() / total)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters by name; with `deep` the fields of a finder that is a recipe as well."""
        params: dict[str, Any] = super().get_params(deep=False)
        if deep and isinstance(self.finder, Recipe):
            fields = type(self.finder).model_fields
            params |= {f"finder__{name}": getattr(self.finder, name) for name in fields}
        return params

    def set_params(self, **params: Any) -> UnmixTransformer:
        """Set parameters; `finder__FIELD` changes the finder. Raises `ValueError` for unknown ones."""
        fields = {name: params.pop(name) for name in list(params) if name.startswith("finder__")}
        super().set_params(**params)
        if fields:
            changes = {name.removeprefix("finder__"): given for name, given in fields.items()}
            self.finder = FINDERS.make(self.finder).but(**changes)
        return self

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        name = self.finder if isinstance(self.finder, str) else getattr(self.finder, "kind", "")
        tags.input_tags.positive_only = name in FINDERS and bool(getattr(FINDERS[name], "nonnegative", False))
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _rows(self, X: Any) -> NDArray[Any]:
        check_is_fitted(self)
        return np.asarray(validate_data(self, X, dtype=FLOATS, reset=False))

    def _codes(self, rows: NDArray[Any]) -> Codes:
        features = self.features_
        if rows.dtype != np.float64:
            return features.encode(rows)
        # Not `Features.to`: what an encoder has made from the atoms is made again, to the last bit of float64.
        atoms, bias = self._numbers(torch.float64)
        tensors = {name: tensor.double() for name, tensor in features.encoder.tensors.items()}
        return bound(features.encoder.recipe, atoms, bias, tensors)(rows)

    def _numbers(self, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        return self.features_.atoms.to(dtype), self.features_.bias.to(dtype)
