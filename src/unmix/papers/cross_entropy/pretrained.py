"""A network trained on photographs: binary factors read out of it, its untrained copy and a random projection."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unmix.core.errors import UsageError
from unmix.core.seeds import Stream, untouched
from unmix.papers.cross_entropy import pictures as files
from unmix.papers.parts import Part

DECODED = "unmix.papers.cross_entropy.pretrained:decoded"
SOURCES = ("trained", "untrained", "random projection")
LEAST = 10  # rows that a factor must have on its rarer side


def parts(photographs: str | None, objects: str | None, seeds: int, small: bool) -> list[Part]:
    """One piece of work for each folder that was given."""
    found = []
    for kind, path in (("photographs", photographs), ("objects", objects)):
        if path is not None:
            count = 400 if small and kind == "photographs" else None
            settings = {"kind": kind, "path": path, "content": files.digest_of(path), "count": count}
            found.append(Part(DECODED, {**settings, "seeds": seeds}))
    return found


def decoded(kind: str, path: str, content: str, count: int | None, seeds: int) -> dict[str, Any]:
    """Balanced held-out accuracy of a logistic regression for every binary factor and source, one for each seed.

    kind: photographs (a zip or folder of images) or objects (the 92 objects' MATLAB file or its folder). content:
    digest that the file had when the work was planned. count: images to use, drawn at random; None for all.
    """
    if files.digest_of(path) != content:
        raise UsageError(f"{path}: has changed since the study was planned; run it again")
    factors: Mapping[str, np.ndarray]
    if kind == "photographs":
        pictures, factors = files.photographs(path, count), {}
    else:
        pictures, factors = files.objects(path)
    factors = {**factors, **image_factors(pictures)}
    sources = {
        "trained": files.efficientnet_features(pictures, trained=True),
        "untrained": files.efficientnet_features(pictures, trained=False),
        "random projection": projected(pictures, 1280),
    }
    kept = {name: y for name, y in factors.items() if min(int(y.sum()), int((~y).sum())) >= LEAST}
    accuracy = {name: {source: accuracies(h, y, seeds) for source, h in sources.items()} for name, y in kept.items()}
    left = sorted(set(factors) - set(kept))
    return {"kind": kind, "images": len(pictures), "accuracy": accuracy, "left_out": left}


def image_factors(pictures: Tensor) -> dict[str, np.ndarray]:
    """Median splits of images [n, 3, h, w] in [0, 1]: bright, colourful, and of much edge energy."""
    grey = pictures.mean(1)
    colour = (pictures - grey[:, None]).square().mean((1, 2, 3)).sqrt()
    down, across = grey[:, 1:] - grey[:, :-1], grey[:, :, 1:] - grey[:, :, :-1]
    edges = down.square().mean((1, 2)) + across.square().mean((1, 2))
    values = {"bright": grey.mean((1, 2)), "colourful": colour, "many edges": edges}
    return {name: (value > value.median()).numpy() for name, value in values.items()}


def projected(pictures: Tensor, width: int) -> Tensor:
    """A fixed Gaussian projection of the pixels [n, 3 h w] to [n, width]."""
    flat = pictures.flatten(1)
    draw = Stream(0).child("random projection")
    block, out = 8192, torch.zeros(len(flat), width)
    for start in range(0, flat.shape[1], block):
        part = flat[:, start : start + block]
        out += part @ torch.randn(part.shape[1], width, generator=draw.child(start).torch())
    return out / math.sqrt(flat.shape[1])


def accuracies(h: Tensor, y: np.ndarray, seeds: int) -> list[float]:
    """Held-out accuracy of y [n] (two classes) from h [n, d], one for each seed.

    Rows are drawn so that both classes are equally many, 70 % fit a logistic regression (scikit-learn's defaults) on
    columns of unit deviation, 30 % score it; both classes are halves of either part, so that chance is 0.5.
    """
    with untouched():
        from sklearn.linear_model import LogisticRegression
    columns, found = h.double().numpy(), []
    for seed in range(seeds):
        draw = Stream(seed).child("split").numpy()
        few = min(int(y.sum()), int((~y).sum()))
        cut = round(0.7 * few)
        chosen = [draw.permutation(np.flatnonzero(y == side))[:few] for side in (True, False)]
        fit = np.concatenate([rows[:cut] for rows in chosen])
        held = np.concatenate([rows[cut:] for rows in chosen])
        scale = columns[fit].std(0)
        x = (columns - columns[fit].mean(0)) / np.where(scale > 0, scale, 1)
        model = LogisticRegression(max_iter=1000).fit(x[fit], y[fit])
        found.append(float((model.predict(x[held]) == y[held]).mean()))
    return found


def tested(accuracy: Mapping[str, Mapping[str, list[float]]]) -> list[dict[str, Any]]:
    """A row for every factor and source: mean accuracy, p of a one-sample t-test against 0.5, and p times the tests.

    The t-test is over splits of the same images, as in the paper: it says nothing of other images.
    """
    from scipy import stats

    rows, count = [], sum(len(sources) for sources in accuracy.values())
    for factor, sources in accuracy.items():
        for source, values in sources.items():
            varies = len(values) > 1 and np.ptp(values) > 0
            p = float(stats.ttest_1samp(values, 0.5, alternative="greater").pvalue) if varies else math.nan
            if not varies:
                p = 0.0 if len(values) > 1 and values[0] > 0.5 else 1.0
            corrected = min(1.0, p * count)
            rows.append({"factor": factor, "source": source, "accuracy": float(np.mean(values)), "p": corrected})
    return rows
