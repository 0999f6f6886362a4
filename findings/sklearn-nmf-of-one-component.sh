#!/usr/bin/env bash
# scikit-learn 1.9.1, NMF(1): the best start is the one that never converges.
#
# A good guess: with one component and init="nndsvd" (or "nndsvda") the start is already the optimum, the leading
# singular pair, which is non-negative for a positive matrix; so the fit ends after an iteration or two, faster than
# from a random start.
# What happens: it runs through max_iter and warns of no convergence, while a random start ends after a handful of
# iterations. The coordinate descent stops when its violation is small beside that of the first iteration, and at an
# optimum the first one is rounding already. The result is right all the same.
#
# bash sklearn-nmf-of-one-component.sh: installs the package in a temporary folder, prints what is seen, and fails
# when that is no longer so.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check scikit-learn==1.9.1 numpy==2.4.6 scipy==1.17.1
"$place/venv/bin/python" - <<'PY'
import warnings

import numpy as np
import scipy
import sklearn
from sklearn.decomposition import NMF
from sklearn.exceptions import ConvergenceWarning

print("scikit-learn", sklearn.__version__, "numpy", np.__version__, "scipy", scipy.__version__)
for shape in ((200, 30), (2000, 10)):
    x = np.random.default_rng(0).random(shape)
    best = np.sqrt((np.linalg.svd(x, compute_uv=False)[1:] ** 2).sum())
    for init in ("nndsvd", "nndsvda", "random"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = NMF(1, init=init, random_state=0, max_iter=500).fit(x)
        warned = any(issubclass(one.category, ConvergenceWarning) for one in caught)
        excess = model.reconstruction_err_ / best - 1
        print(f"{shape} {init:<8} {model.n_iter_:>3} iterations, warned {warned}, error above the optimum {excess:.0e}")
        assert excess < 1e-9
        assert (model.n_iter_ == 500 and warned) if init != "random" else (model.n_iter_ < 50 and not warned)
PY
