"""One step of a head with as many classes as data: smoothed cross-entropy, its two gradients, AdamW on the head."""

from __future__ import annotations

import resource

import torch
from torch import Tensor
from torch.nn import functional

SIZES = {
    "50 thousand": {"width": 512, "classes": 50_000, "batch": 256},
    "50 thousand, batch 2048": {"width": 512, "classes": 50_000, "batch": 2048},
    "200 thousand": {"width": 512, "classes": 200_000, "batch": 256},
    "1.3 million, width 128": {"width": 128, "classes": 1_281_167, "batch": 256},
}
QUICK = {"small": {"width": 64, "classes": 2000, "batch": 64}}
FLOOR, UNIT = "three products", "step"
SMOOTHING, LR, DECAY = 0.8, 1e-3, 0.05


class Problem:
    """Features, labels and a head; resident memory is read beside what stands before the first step."""

    def __init__(self, size: dict) -> None:
        draw = torch.Generator().manual_seed(0)
        self.h = torch.randn(size["batch"], size["width"], generator=draw).requires_grad_()
        self.weights = torch.randn(size["classes"], size["width"], generator=draw).div_(size["width"] ** 0.5)
        self.y = torch.randint(size["classes"], (size["batch"],), generator=draw)
        self.losses: list[float] = []
        self.before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def run(self) -> None:
        self.h.grad = None
        self.losses.append(float(self.step().detach()))

    def check(self) -> dict:
        if len(self.losses) < 2:
            return {}
        more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - self.before) / 1024
        state = 2 * self.weights.numel() * 4 / 2**20
        return {"first loss": self.losses[0], "second loss": self.losses[1], "MB beyond the state": more - state}

    def step(self) -> Tensor:
        raise NotImplementedError


class Unmix(Problem):
    def __init__(self, size: dict) -> None:
        super().__init__(size)
        self.moments = torch.zeros_like(self.weights), torch.zeros_like(self.weights)

    def step(self) -> Tensor:
        from unmix.kernels.index_loss import AdamWStep, index_cross_entropy_step

        settings = AdamWStep(len(self.losses) + 1, LR, DECAY)
        loss = index_cross_entropy_step(self.h, self.weights, *self.moments, self.y, settings, SMOOTHING)
        loss.backward()
        return loss


class Torch(Problem):
    """Logits of all classes, and torch's AdamW."""

    fused: bool | None = None

    def __init__(self, size: dict) -> None:
        super().__init__(size)
        self.weights = torch.nn.Parameter(self.weights)
        self.optimiser = torch.optim.AdamW([self.weights], lr=LR, weight_decay=DECAY, fused=self.fused)

    def loss(self) -> Tensor:
        return functional.cross_entropy(self.h @ self.weights.T, self.y, label_smoothing=SMOOTHING)

    def step(self) -> Tensor:
        self.optimiser.zero_grad()
        loss = self.loss()
        loss.backward()
        self.optimiser.step()
        return loss


class TorchFused(Torch):
    fused = True


class TorchLinear(TorchFused):
    """torch's own chunked product and loss, made to smooth by the row of means that smoothing is equal to."""

    def loss(self) -> Tensor:
        plain = functional.linear_cross_entropy(self.h, self.weights, self.y)
        own = torch.einsum("nd,nd->n", self.h, self.weights[self.y])
        return plain + SMOOTHING * (own - self.h @ self.weights.mean(0)).mean()


class Floor(Problem):
    """The three matrix products alone."""

    def __init__(self, size: dict) -> None:
        super().__init__(size)
        self.logits = torch.empty(size["batch"], size["classes"])
        self.out = torch.empty_like(self.weights), torch.empty_like(self.h)

    def step(self) -> Tensor:
        h = self.h.detach()
        torch.mm(h, self.weights.T, out=self.logits)
        torch.mm(self.logits, self.weights, out=self.out[1])
        torch.mm(self.logits.T, h, out=self.out[0])
        return self.logits[0, 0]

    def check(self) -> dict:
        return {}


CONTENDERS = {
    "unmix": Unmix,
    "three products": Floor,
    "torch": Torch,
    "torch, fused AdamW": TorchFused,
    "torch linear_cross_entropy": TorchLinear,
}
GOALS = {
    "50 thousand": [
        ("unmix", "three products", 1 / 1.3),
        ("unmix", "torch", 1.4),
        ("unmix", "torch, fused AdamW", 1.1),
    ],
    "50 thousand, batch 2048": [("unmix", "three products", 1 / 1.7)],
    "200 thousand": [("unmix", "three products", 1 / 1.7)],
    "1.3 million, width 128": [("unmix", "three products", 1 / 1.7)],
}


def verify(checks: dict[str, dict]) -> dict[str, str]:
    """The losses before and after a step must be those of plain torch."""
    true = checks.get("torch") or {}
    wrong = {}
    for name, facts in checks.items():
        for which in ("first loss", "second loss"):
            if facts and true and abs(facts[which] - true[which]) > 1e-4 * abs(true[which]):
                wrong[name] = f"{which} {facts[which]:.6f}, not {true[which]:.6f}"
    return wrong
