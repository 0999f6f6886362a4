"""The non-negative l1 problem of fixed rows in a fixed dictionary, judged by the duality gap."""

from __future__ import annotations

import numpy as np
import torch

from tasks import omp as pursuit

SIZES = {"m4096": {"n": 4096, "d": 512, "m": 4096, "k": 32, "active": 24}}
QUICK = {"small": {"n": 512, "d": 64, "m": 256, "k": 8, "active": 6}}
FLOOR, UNIT = "encoder product", "row"
PENALTY = 0.25


class Problem(pursuit.Pursuit):
    def check(self) -> dict:
        from unmix.kernels.lasso import certificate

        if self.codes is None:
            return {}
        codes, h = self.dense(self.codes).double(), self.h.double()
        codes = codes.clamp_min(0)
        penalty = torch.full((len(h),), PENALTY, dtype=torch.float64)
        objective, gap = certificate(h, codes, self.atoms.double(), penalty, True)
        return {
            "gap": float(gap.max()),
            "objective": float(objective[: self.common].mean()),
            "l0": float((codes > 0).sum(1).double()[: self.common].mean()),
        }


class Unmix(Problem):
    def solve(self):
        from unmix.kernels.lasso import lasso

        return lasso(self.h, self.atoms, PENALTY, gram=self.gram, tolerance=1e-4, backend="numba")

    def dense(self, codes):
        rows = torch.repeat_interleave(torch.arange(len(self.h)), codes.pointers.diff())
        return torch.zeros(len(self.h), self.m).index_put_((rows, codes.indices), codes.values)


class UnmixTorch(Unmix):
    share = 1 / 32

    def solve(self):
        from unmix.kernels.lasso import lasso

        return lasso(self.h, self.atoms, PENALTY, gram=self.gram, tolerance=1e-4, backend="torch")


class Spams(Problem):
    gram_given = True

    def build(self) -> None:
        atoms = self.atoms.numpy().T
        self.columns = np.asfortranarray(self.h.numpy().T), np.asfortranarray(atoms)
        self.square = np.asfortranarray(atoms.T @ atoms)
        self.threads = torch.get_num_threads()

    def solve(self):
        import spams

        x, atoms = self.columns
        given = {"D": atoms}
        if self.gram_given:
            given = {"D": None, "Q": self.square, "q": np.asfortranarray(atoms.T @ x)}
        return spams.lasso(x, **given, lambda1=PENALTY, mode=2, pos=True, numThreads=self.threads)

    def dense(self, codes):
        return torch.from_numpy(np.asarray(codes.todense(), np.float32).T.copy())


class SpamsGramMade(Spams):
    gram_given = False


class ScikitLearn(Problem):
    share = 1 / 64

    def solve(self):
        from sklearn.decomposition import sparse_encode

        return sparse_encode(
            self.h.numpy(), self.atoms.numpy(), gram=self.gram.numpy(), algorithm="lasso_cd", alpha=PENALTY,
            positive=True, max_iter=1000,
        )  # fmt: skip


class Celer(Problem):
    share = 1 / 64

    def build(self) -> None:
        from celer import Lasso

        self.model = Lasso(PENALTY / self.d, positive=True, fit_intercept=False, tol=1e-4)

    def solve(self):
        columns = np.asfortranarray(self.atoms.numpy().T)
        return np.stack([self.model.fit(columns, x).coef_ for x in self.h.numpy()])


class Skglm(Celer):
    def build(self) -> None:
        from skglm import Lasso

        self.model = Lasso(PENALTY / self.d, positive=True, fit_intercept=False, tol=1e-4)


CONTENDERS = {
    FLOOR: pursuit.EncoderProduct,
    "unmix": Unmix,
    "unmix, torch only": UnmixTorch,
    "SPAMS, Gram given": Spams,
    "SPAMS": SpamsGramMade,
    "scikit-learn": ScikitLearn,
    "celer": Celer,
    "skglm": Skglm,
}
GOALS = {
    "": [
        ("unmix", FLOOR, 1 / 2.3),
        ("unmix", "SPAMS, Gram given", 3.0),
        ("unmix", "scikit-learn", 50.0),
        ("unmix", "celer", 50.0),
    ]
}


def verify(checks: dict[str, dict]) -> dict[str, str]:
    """unmix must hold its certificate, and the exact peers must agree with its objective where rows are the same."""
    wrong = {}
    if checks.get("unmix") and checks["unmix"]["gap"] > 1.01e-4:
        wrong["unmix"] = f"certified gap {checks['unmix']['gap']:.1e} is above 1e-4"
    for name in ("SPAMS, Gram given", "SPAMS"):
        if checks.get(name) and checks[name]["gap"] > 1e-2:
            wrong[name] = f"gap {checks[name]['gap']:.1e}: its codes are wrong"
    return wrong
