"""The full tangent kernel of a small residual network, beside the two recipes of torch's own tutorial."""

from __future__ import annotations

import resource

import torch
from torch import Tensor, nn

SIZES = {"resnet 256": {"n": 256, "width": 8, "side": 16, "outputs": 10, "memory": 2**28}}
QUICK = {"small": {"n": 24, "width": 4, "side": 8, "outputs": 4, "memory": 2**26}}
FLOOR, UNIT = "none", "kernel"


class Block(nn.Module):
    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.first, self.one = nn.Conv2d(width, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.second, self.two = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.down = nn.Conv2d(width, out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.two(self.second(torch.relu(self.one(self.first(x))))) + self.down(x))


class Problem:
    """A network of three blocks and its images; the largest resident memory is read when a kernel is there."""

    def __init__(self, size: dict) -> None:
        torch.manual_seed(0)
        w = size["width"]
        self.model = nn.Sequential(
            nn.Conv2d(3, w, 3, padding=1), nn.ReLU(), Block(w, w, 1), Block(w, 2 * w, 2), Block(2 * w, 4 * w, 2),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * w, size["outputs"]),
        ).eval()  # fmt: skip
        self.x = torch.randn(size["n"], 3, size["side"], size["side"])
        self.memory = size["memory"]
        self.kernel: Tensor | None = None
        self.before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def run(self) -> None:
        self.kernel = None
        self.kernel = self.solve().detach()

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
    """Kernel-vector products of every pair of rows with the basis of outputs."""

    def solve(self) -> Tensor:
        parameters = {name: p.detach() for name, p in self.model.named_parameters()}

        def pair(x1: Tensor, x2: Tensor) -> Tensor:
            made, back = torch.func.vjp(lambda p: self.function(p, x1), parameters)

            def column(v: Tensor) -> Tensor:
                along = back(v)
                return torch.func.jvp(lambda p: self.function(p, x2), (parameters,), along)[1]

            return torch.func.vmap(column)(torch.eye(len(made)))

        inner = torch.func.vmap(pair, (None, 0))
        return torch.stack([inner(x1, self.x) for x1 in self.x])


CONTENDERS = {"unmix": Unmix, "tutorial contraction": TutorialContraction, "tutorial products": TutorialProducts}
GOALS = {"": [("unmix", "tutorial contraction", 1.0), ("unmix", "tutorial products", 1.0)]}


def verify(checks: dict[str, dict]) -> dict[str, str]:
    """Every kernel must agree with one in double precision to 1e-4 of its largest entry."""
    return {name: f"off by {facts['error']:.1e}" for name, facts in checks.items() if facts and facts["off"] > 1e-4}
