"""The full tangent kernel of the house's small residual network, beside the two recipes of torch's own tutorial."""

from __future__ import annotations

import resource

import torch
from torch import Tensor

SIZES = {"resnet 256": {"n": 256, "width": 8, "side": 8, "outputs": 10, "memory": 2**26}}
QUICK = {"small": {"n": 24, "width": 4, "side": 8, "outputs": 4, "memory": 2**26}}
FLOOR, UNIT = "none", "kernel"


class Problem:
    """A network of three stages and its images; the largest resident memory is read when a kernel is there."""

    def __init__(self, size: dict) -> None:
        from unmix.networks.resnet import ResNet

        torch.manual_seed(0)
        shape = (3, size["side"], size["side"])
        self.model = ResNet(channels=size["width"], blocks=(1, 1, 1)).build(shape, size["outputs"]).eval()
        self.x = torch.randn(size["n"], *shape)
        self.memory = size["memory"]
        self.kernel: Tensor | None = None
        self.share = 1.0  # of the kernel's rows that a run makes
        self.before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def run(self) -> dict:
        self.kernel = None
        self.kernel = self.solve().detach()
        return {"units": self.share}

    def check(self) -> dict:
        if self.kernel is None:
            return {}
        more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - self.before) / 1024
        from unmix.regimes.kernel import tangent_kernel

        true = tangent_kernel(self.model, self.x[:8], dtype=torch.float64)
        error = float((self.kernel[:8, :8] - true).abs().max() / true.abs().max())
        return {"peak MB": more, "off": error}

    def function(self, parameters: dict, x: Tensor) -> Tensor:
        return torch.func.functional_call(self.model, parameters, (x[None],))[0]


class Unmix(Problem):
    def solve(self) -> Tensor:
        from unmix.regimes.kernel import tangent_kernel

        return tangent_kernel(self.model, self.x, memory=self.memory)


class TutorialContraction(Problem):
    """Jacobians of all rows, contracted."""

    def solve(self) -> Tensor:
        parameters = {name: p.detach() for name, p in self.model.named_parameters()}
        jacobian = torch.func.vmap(torch.func.jacrev(self.function), (None, 0))
        first, second = ([j.flatten(2) for j in jacobian(parameters, self.x).values()] for _ in "12")
        return sum(torch.einsum("Naf,Mbf->NMab", a, b) for a, b in zip(first, second, strict=True))  # type: ignore


class TutorialProducts(Problem):
    """Kernel-vector products of pairs of rows with the basis of outputs; a run makes 16 rows of the kernel.

    The rows cost the same and are made one after another, so that the time of all is in proportion.
    """

    def solve(self) -> Tensor:
        parameters = {name: p.detach() for name, p in self.model.named_parameters()}

        def pair(x1: Tensor, x2: Tensor) -> Tensor:
            made, back = torch.func.vjp(lambda p: self.function(p, x1), parameters)

            def column(v: Tensor) -> Tensor:
                along = back(v)
                return torch.func.jvp(lambda p: self.function(p, x2), (parameters,), along)[1]

            return torch.func.vmap(column)(torch.eye(len(made)))

        inner = torch.func.vmap(pair, (None, 0))
        rows = self.x[:16]
        self.share = len(rows) / len(self.x)
        made = torch.zeros(len(self.x), len(self.x), *[len(self.model(rows)[0])] * 2)
        for i, x1 in enumerate(rows):
            made[i] = inner(x1, self.x)
        return made


CONTENDERS = {"unmix": Unmix, "tutorial contraction": TutorialContraction, "tutorial products": TutorialProducts}
GOALS = {"": [("unmix", "tutorial contraction", 1.0), ("unmix", "tutorial products", 1.0)]}


def verify(checks: dict[str, dict]) -> dict[str, str]:
    """Every kernel must agree with one in double precision to 1e-4 of its largest entry."""
    return {name: f"off by {facts['off']:.1e}" for name, facts in checks.items() if facts and facts["off"] > 1e-4}
