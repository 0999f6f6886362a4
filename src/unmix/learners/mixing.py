"""Mixed rows with mixed labels: MixUp and CutMix."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unmix.core.errors import UsageError
from unmix.core.seeds import Stream

Mixed = tuple[Tensor, Tensor, Tensor]


def mixup(x: Tensor, y: Tensor, alpha: float, rng: Stream) -> Mixed:
    """x'_i = s_i x_i + (1 - s_i) x_p(i), p a permutation, s_i ~ Beta(alpha, alpha).

    x: [n, ...]. y: [n]. Gives x', labels [n, 2] and their shares [n, 2]. Source: Zhang et al. 2017, arXiv 1710.09412.
    """
    draw = rng.numpy()
    order = torch.from_numpy(draw.permutation(len(x))).to(x.device)
    share = torch.from_numpy(draw.beta(alpha, alpha, len(x))).to(x)
    own = share.view(-1, *[1] * (x.ndim - 1))
    return own * x + (1 - own) * x[order], torch.stack([y, y[order]], 1), torch.stack([share, 1 - share], 1)


def cutmix(x: Tensor, y: Tensor, alpha: float, rng: Stream) -> Mixed:
    """x'_i = x_i outside a box and x_p(i) inside, p a permutation; one box for the batch.

    The box has a share 1 - Beta(alpha, alpha) of the picture, less what falls beside it. x: images [n, channels,
    height, width]. y: [n]. Gives x', labels [n, 2] and their shares [n, 2], which are those of the pixels.
    Raises `UsageError` for rows that are no images. Source: Yun et al. 2019, arXiv 1905.04899.
    """
    if x.ndim != 4:
        raise UsageError(f"cutmix: takes images [n, channels, height, width], got {list(x.shape)}")
    draw = rng.numpy()
    order = torch.from_numpy(draw.permutation(len(x))).to(x.device)
    cut = math.sqrt(1 - draw.beta(alpha, alpha))
    spans = []
    for side in x.shape[2:]:
        centre, half = int(draw.integers(side)), round(cut * side) // 2
        spans.append(slice(max(0, centre - half), min(side, centre + half)))
    mixed = x.clone()
    mixed[:, :, spans[0], spans[1]] = x[order][:, :, spans[0], spans[1]]
    area = math.prod(span.stop - span.start for span in spans) / math.prod(x.shape[2:])
    shares = x.new_tensor([1 - area, area]).expand(len(x), 2)
    return mixed, torch.stack([y, y[order]], 1), shares
