"""k-sparse pursuit of fixed rows in a fixed dictionary; every contender is judged by the residual it leaves."""

from __future__ import annotations

import numpy as np
import torch

SIZES = {"m4096": {"n": 4096, "d": 512, "m": 4096, "k": 32, "active": 24}}
QUICK = {"small": {"n": 512, "d": 64, "m": 256, "k": 8, "active": 6}}
FLOOR = "encoder product"
UNIT = "row"


class Pursuit:
    """Rows with `active` atoms and a little noise; slow contenders take a part of them, times are for one row."""

    share = 1.0

    def __init__(self, size: dict) -> None:
        self.d, self.m, self.k = size["d"], size["m"], size["k"]
        draw = np.random.default_rng(0)
        atoms = draw.standard_normal((self.m, self.d), dtype=np.float32)
        atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
        rows = 0.05 * draw.standard_normal((size["n"], self.d), dtype=np.float32)
        for _ in range(size["active"]):
            picked = draw.integers(0, self.m, size["n"])
            rows += np.abs(draw.standard_normal((size["n"], 1), dtype=np.float32)) * atoms[picked]
        self.common = max(8, size["n"] // 64)
        count = max(8, round(self.share * size["n"]))
        self.h, self.atoms = torch.from_numpy(rows[:count]), torch.from_numpy(atoms)
        self.codes: torch.Tensor | None = None
        self.build()

    def build(self) -> None:
        self.gram = self.atoms @ self.atoms.T

    def run(self) -> dict:
        self.codes = self.solve()
        return {"units": len(self.h)}

    def check(self) -> dict:
        if self.codes is None:
            return {}
        # On the rows that every contender has.
        h = self.h[: self.common]
        left = h - self.dense(self.codes)[: self.common] @ self.atoms
        residual = (left.square().sum(1) / h.square().sum(1)).sqrt()
        return {"residual": float(residual.mean()), "worst": float(residual.max())}

    def dense(self, codes):
        return torch.as_tensor(codes, dtype=torch.float32)

    def solve(self):
        raise NotImplementedError


class EncoderProduct(Pursuit):
    def build(self) -> None:
        self.out = torch.empty(len(self.h), self.m)

    def solve(self):
        torch.mm(self.h, self.atoms.T, out=self.out)

    def check(self) -> dict:
        return {}


class Unmix(Pursuit):
    backend, positive = "numba", False

    def solve(self):
        from unmix.kernels.omp import omp

        return omp(self.h, self.atoms, self.k, gram=self.gram, positive=self.positive, backend=self.backend)

    def dense(self, codes):
        values, indices = codes
        rows = torch.arange(len(values))[:, None].expand_as(indices)
        return torch.zeros(len(values), self.m).index_put_((rows, indices), values, accumulate=True)


class UnmixPositive(Unmix):
    positive = True


class UnmixTorch(Unmix):
    backend, share = "torch", 0.125


class Spams(Pursuit):
    """SPAMS makes the Gram matrix itself in every call; it spreads over all rows."""

    def build(self) -> None:
        self.columns = np.asfortranarray(self.h.numpy().T), np.asfortranarray(self.atoms.numpy().T)
        self.threads = torch.get_num_threads()

    def solve(self):
        import spams

        return spams.omp(*self.columns, L=self.k, eps=0.0, numThreads=self.threads)

    def dense(self, codes):
        return torch.from_numpy(np.asarray(codes.todense(), np.float32).T.copy())


class ScikitLearn(Pursuit):
    """orthogonal_mp, which correlates the residual with all atoms in every step."""

    share = 1 / 64

    def solve(self):
        from sklearn.linear_model import orthogonal_mp

        return orthogonal_mp(self.atoms.numpy().T, self.h.numpy().T, n_nonzero_coefs=self.k).T


class ScikitLearnCoder(Pursuit):
    """Its transformer for codes over a given dictionary: pursuit on a Gram matrix that is copied for every row."""

    share = 1 / 64

    def build(self) -> None:
        from sklearn.decomposition import SparseCoder

        self.coder = SparseCoder(self.atoms.numpy(), transform_algorithm="omp", transform_n_nonzero_coefs=self.k)

    def solve(self):
        return self.coder.transform(self.h.numpy())


class SAELensMP(Pursuit):
    """Matching pursuit, without the least squares: not the same method, and its residual shows it."""

    share = 0.125

    def build(self) -> None:
        from sae_lens.saes.matching_pursuit_sae import MatchingPursuitSAE, MatchingPursuitSAEConfig

        self.sae = MatchingPursuitSAE(MatchingPursuitSAEConfig(d_in=self.d, d_sae=self.m, max_iterations=self.k))
        with torch.no_grad():
            self.sae.W_dec.copy_(self.atoms)

    def solve(self):
        with torch.no_grad():
            return self.sae.encode(self.h)


class OvercompleteOMP(Pursuit):
    """Non-negative pursuit with ten iterations of its least squares solver, as it comes."""

    share = 1 / 32

    def build(self) -> None:
        from overcomplete.sae import OMPSAE

        self.sae = OMPSAE(self.d, self.m, k=self.k)
        with torch.no_grad():
            self.sae.dictionary._weights.copy_(self.atoms)

    def solve(self):
        with torch.no_grad():
            return self.sae.encode(self.h)[1]


CONTENDERS = {
    FLOOR: EncoderProduct,
    "unmix": Unmix,
    "unmix, non-negative": UnmixPositive,
    "unmix, torch only": UnmixTorch,
    "SPAMS": Spams,
    "scikit-learn function": ScikitLearn,
    "scikit-learn coder": ScikitLearnCoder,
    "SAELens MP": SAELensMP,
    "overcomplete OMP": OvercompleteOMP,
}
GOALS = {"": [("unmix", "SPAMS", 1.5), ("unmix", "SAELens MP", 7.0), ("unmix", "scikit-learn coder", 100.0)]}
SAME_RESULT = ("SPAMS", "scikit-learn function", "scikit-learn coder")


def verify(checks: dict[str, dict]) -> dict[str, str]:
    """Contenders of the same problem whose residual is not that of unmix: name -> why."""
    wrong, common = {}, checks.get("unmix", {}).get("residual")
    for name in SAME_RESULT:
        facts = checks.get(name)
        if facts and common is not None and abs(facts["residual"] - common) > 0.02 * common:
            wrong[name] = f"residual {facts['residual']:.4f} where {common:.4f} is right: its codes are wrong"
    return wrong
