"""The squared-hinge line: compiled against plain, against liblinear, and at its limits."""

from __future__ import annotations

import numpy as np
import pytest

from unmix.core.errors import UsageError
from unmix.core.seeds import untouched
from unmix.kernels.hinge import hinge_lines


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_compiled_is_plain_is_liblinear(classes, scale):
    with untouched():
        from sklearn.svm import LinearSVC

    rng = np.random.default_rng(classes)
    y = np.append(np.arange(classes), rng.integers(0, classes, 800) * rng.integers(0, 2, 800))
    x = scale * (y - 1.5 + rng.standard_normal(len(y)))
    mine = hinge_lines(x, y, classes, backend="numba")
    assert mine == pytest.approx(hinge_lines(x, y, classes, backend="plain"), abs=1e-8)
    model = LinearSVC(C=0.01, class_weight="balanced", tol=1e-10, max_iter=100000, random_state=0).fit(x[:, None], y)
    rows = mine[1:] if classes == 2 else mine
    assert rows[:, 0] == pytest.approx(model.coef_[:, 0], abs=1e-5)
    assert rows[:, 1] == pytest.approx(model.intercept_, abs=1e-5)


def test_a_constant_number_gives_a_flat_line_and_a_missing_class_is_refused():
    lines = hinge_lines(np.zeros(30), np.arange(30) % 3, 3)
    assert np.isfinite(lines).all() and lines[:, 0] == pytest.approx(0)
    with pytest.raises(UsageError, match="needs a row"):
        hinge_lines(np.zeros(4), np.array([0, 0, 2, 2]), 3)
