"""The slow runs: the random hierarchy model, grokking in modular arithmetic, filters of a small CNN."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from unmix.core.errors import Failure
from unmix.core.seeds import Stream, untouched
from unmix.networks.transformer import Transformer
from unmix.regimes.balance import scale_layers
from unmix.regimes.measures import roughness
from unmix.worlds.hierarchy import RandomHierarchy
from unmix.worlds.modular import ModularArithmetic


def hierarchy(
    alpha: float, rows: int, seed: int = 0, epochs: int = 250, width: int = 64, hidden: int = 3, batch: int = 128,
    rate: float = 0.1, test: int = 20_000,
) -> dict[str, float]:  # fmt: skip
    """Test error on the random hierarchy model of a network without biases, trained on `rows` of its data.

    Weights are standard normal; hidden layers are divided by the root of their inputs, the read-out by the width. The
    first layer is divided by alpha, the read-out multiplied. SGD with momentum .9, learning rate `rate` times the
    width, a cosine over all epochs. Raises `Failure` where the loss is not finite.
    """
    world = RandomHierarchy(rows=rows, seed=seed)
    train, held_out = world.sample(rows, 0), world.held_out.sample(test, 1)
    stream = Stream(seed).child("hierarchy")
    draw = stream.child("weights").torch()
    sizes = [train.x.shape[1], *[width] * hidden]
    weights = [torch.randn(b, a, generator=draw) for a, b in pairwise(sizes)]
    weights.append(torch.randn(world.classes, width, generator=draw))
    weights[0] /= alpha
    weights[-1] *= alpha
    for weight in weights:
        weight.requires_grad_()
    optimiser = torch.optim.SGD(weights, lr=rate * width, momentum=0.9, fused=True)
    per_epoch = math.ceil(rows / batch)
    steps, step = epochs * per_epoch, 0
    for epoch in range(epochs):
        order = torch.from_numpy(stream.child(f"epoch {epoch}").numpy().permutation(rows))
        for chosen in order.split(batch):
            optimiser.param_groups[0]["lr"] = rate * width * 0.5 * (1 + math.cos(math.pi * step / steps))
            loss = functional.cross_entropy(_mean_field(train.x[chosen], weights), train.y[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            step += 1
        if not bool(torch.isfinite(loss)):
            raise Failure(f"hierarchy: the loss is not finite after {epoch + 1} epochs at alpha={alpha}")
    with torch.no_grad():
        wrong = (_mean_field(held_out.x, weights).argmax(1) != held_out.y).double().mean()
        missed = (_mean_field(train.x, weights).argmax(1) != train.y).double().mean()
    return {"error": float(wrong), "train error": float(missed)}


def _mean_field(x: Tensor, weights: list[Tensor]) -> Tensor:
    for weight in weights[:-1]:
        x = torch.relu(x @ weight.T / math.sqrt(weight.shape[1]))
    return x @ weights[-1].T / weights[-1].shape[1]


def grokking(
    alpha: float, seed: int = 0, budget: int = 8000, modulus: int = 31, fraction: float = 0.6, operation: str = "a+b",
    tokens: int = 64, depth: int = 1, level: float = 0.99, every: int = 10, rate: float = 1e-3, decay: float = 1.0,
    tau: float = 1.0,
) -> dict[str, Any]:  # fmt: skip
    """Steps until `level` of the held-out pairs are right, full batch; None where `budget` steps were not enough.

    A transformer whose embeddings of tokens and places are divided by alpha after they are drawn, without
    compensation. Logits are times tau, the learning rate over tau^2. AdamW (betas .9, .98) on all parameters, nine
    steps of warm-up. curve: step, share of training pairs right, share of held-out pairs right.
    """
    world = ModularArithmetic(modulus=modulus, fraction=fraction, operation=operation, encoding="tokens", seed=seed)
    train, held_out = (part.sample(part.size, 0) for part in (world, world.held_out))
    recipe = Transformer(vocabulary=modulus + 2, tokens=tokens, depth=depth)
    net = recipe.build((4,), modulus, Stream(seed).child("grokking"))
    if alpha != 1:
        scale_layers(net, alpha, (nn.Embedding,))
    optimiser = torch.optim.AdamW(net.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=decay, fused=True)
    curve, reached, fitted, step = [], None, None, 0
    while step < budget and reached is None:
        logits = net(train.x)
        if step % every == 0:
            with torch.no_grad():
                right = [float((made.argmax(1) == part.y).double().mean()) for made, part in (
                    (logits, train), (net(held_out.x), held_out))]  # fmt: skip
            curve.append([step, *right])
            fitted = step if fitted is None and right[0] >= level else fitted
            reached = step if right[1] >= level else None
        for group in optimiser.param_groups:
            group["lr"] = rate / tau**2 * min(1.0, (step + 1) / 9)
        loss = functional.cross_entropy(tau * logits, train.y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        step += 1
        if not bool(torch.isfinite(loss)):
            raise Failure(f"grokking: the loss is not finite after {step} steps at alpha={alpha}, tau={tau}")
    return {"steps": reached, "fitted": fitted, "budget": budget, "curve": curve}


def filters(
    alpha: float, seed: int = 0, steps: int = 400, channels: int = 12, kernel: int = 9, times: int = 3,
    batch: int = 128, rate: float = 0.05,
) -> dict[str, Any]:  # fmt: skip
    """A small CNN on scikit-learn's digits, each `times` larger; its filters divided by alpha after they are drawn.

    Convolution, batch norm, ReLU, mean pooling to 3 x 3, a linear layer; SGD with momentum .9 and a cosine. Gives
    roughness before and after (mean over filters), accuracy on 360 held-out digits, and the filters.
    """
    with untouched():
        from sklearn.datasets import load_digits

        digits = load_digits()
    images = torch.from_numpy(np.asarray(digits.images, dtype=np.float32) / 8 - 1)[:, None]
    images = functional.interpolate(images, scale_factor=times, mode="bilinear", align_corners=False)
    labels = torch.from_numpy(np.asarray(digits.target)).long()
    stream = Stream(seed).child("filters")
    order = torch.from_numpy(stream.child("split").numpy().permutation(len(labels)))
    test, train = order[:360], order[360:]
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(stream.child("weights").number)
        filters = nn.Conv2d(1, channels, kernel, padding=kernel // 2, bias=False)
        net = nn.Sequential(
            filters, nn.BatchNorm2d(channels), nn.ReLU(),
            nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(9 * channels, 10),
        )  # fmt: skip
    if alpha != 1:
        scale_layers(net, alpha, (nn.Conv2d,))
    before = float(roughness(filters.weight.detach()).mean())
    optimiser = torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9, fused=True)
    draw = stream.child("batches").numpy()
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        chosen = train[torch.from_numpy(draw.integers(len(train), size=batch))]
        loss = functional.cross_entropy(net(images[chosen]), labels[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    net.eval()
    with torch.no_grad():
        right = float((net(images[test]).argmax(1) == labels[test]).double().mean())
    made = filters.weight.detach()[:, 0]
    shown = made / made.flatten(1).abs().amax(1)[:, None, None]
    return {
        "before": before,
        "after": float(roughness(made).mean()),
        "accuracy": right,
        "filters": [[[round(float(v), 3) for v in row] for row in one] for one in shown],
    }
