"""What a representation is like without labels: its rank, and how views of one datum lie to one another."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from unmix.core.errors import UsageError
from unmix.core.rows import as_tensor, require_finite
from unmix.core.scale import centred as less_mean
from unmix.core.scale import flattened, resolution, size_of, together_near_one, unit
from unmix.core.seeds import Stream
from unmix.core.statistics import members
from unmix.scores.base import Inputs, Outcome, Score

PAIRS = 2048


def effective_rank(h: Any, centred: bool = True) -> Outcome:
    """exp of the entropy of the singular values of h [n, d] over their sum: from 1 to min(n, d).

    centred: less the mean of the columns. 0 for rows that are all alike. Detail: values, the singular values.
    Raises `UsageError` for fewer than 2 rows or NaN. Source: Roy, Vetterli 2007, EUSIPCO.
    """
    given = _rows("effective_rank", h)
    (rows,) = together_near_one(given)
    if centred:
        rows = less_mean(flattened(rows, resolution(h)))
    values = torch.linalg.svdvals(rows)
    unit_of = size_of(given) / size_of(rows) if size_of(rows) and rows is not given else 1.0
    return Outcome(_spread(values), 1.0, float(min(rows.shape)), detail={"values": (values * unit_of).numpy()})


def lidar(h: Any, group: Any, ridge: float = 1e-4) -> Outcome:
    """Rank of the means of data beside the scatter of views: exp entropy of eigenvalues of Sw^-1/2 Sb Sw^-1/2.

    h: [n, d] rows of views. group: [n] which datum each row is a view of; rows may come in any order. ridge: share of
    the mean diagonal of Sw that is added to it. From 1 to min(d, data - 1).
    Raises `UsageError` for fewer than 2 data, or where no datum has 2 views.
    Source: Thilak et al. 2023, arXiv 2312.04000.
    """
    rows, member, count = _views("lidar", h, group)
    (rows,) = together_near_one(rows)
    if count < 2:
        raise UsageError("lidar: views of one datum; at least 2 data are needed")
    sizes = torch.bincount(member, minlength=count).double()
    means = torch.zeros(count, rows.shape[1], dtype=torch.float64).index_add_(0, member, rows) / sizes[:, None]
    around = rows - means[member]
    within = around.T @ around / (len(rows) - count)
    middle = means - means.mean(0)
    between = middle.T @ middle / (count - 1)
    scale = float(within.diagonal().mean()) or float(between.diagonal().mean()) or 1.0
    values, vectors = torch.linalg.eigh(within + ridge * scale * torch.eye(len(within), dtype=torch.float64))
    white = vectors * values.clamp_min(1e-300).rsqrt() @ vectors.T
    found = torch.linalg.eigvalsh(white @ between @ white).clamp_min(0)
    return Outcome(_spread(found), 1.0, float(min(rows.shape[1], count - 1)), detail={"values": found.numpy()})


def alignment(h: Any, group: Any) -> Outcome:
    """Mean squared distance of two views of one datum on the sphere: 0 when alike, 2 for unrelated directions.

    h: [n, d]. group: [n] the datum of each row. Raises as `lidar`. Source: Wang, Isola 2020, arXiv 2005.10242.
    """
    rows, member, count = _views("alignment", h, group)
    on_sphere = unit(rows)
    sizes = torch.bincount(member, minlength=count).double()
    sums = torch.zeros(count, rows.shape[1], dtype=torch.float64).index_add_(0, member, on_sphere)
    norms = torch.zeros(count, dtype=torch.float64).index_add_(0, member, on_sphere.square().sum(1))
    several = sizes > 1
    # Over ordered pairs of a group: sum |a - b|^2 = 2 m sum |a|^2 - 2 |sum a|^2.
    pairs = (2 * sizes * norms - 2 * sums.square().sum(1))[several] / (sizes * (sizes - 1))[several]
    return Outcome(float(pairs.mean().clamp_min(0)), 2.0, 0.0, detail={"data": int(several.sum())})


def uniformity(h: Any, temperature: float = 2.0) -> Outcome:
    """log mean exp(-t |a - b|^2) over pairs of unlike rows on the sphere: the lower, the more evenly they lie.

    h: [n, d]; of more than 2048 rows, as many at equal distances in the order of their values. temperature: t. Chance
    is 0, rows that are all alike. Raises `UsageError` for fewer than 2 rows. Source: Wang, Isola 2020, arXiv
    2005.10242.
    """
    rows = _rows("uniformity", h)
    points = unit(rows)
    if len(points) > PAIRS:
        order = points @ torch.linspace(1, 2, points.shape[1], dtype=torch.float64)
        points = points[order.argsort()[torch.linspace(0, len(points) - 1, PAIRS).round().long()]]
    squares = torch.pdist(points).square()
    value = float(torch.logsumexp(-temperature * squares, 0)) - math.log(len(squares))
    return Outcome(min(value, 0.0), 0.0, -4 * temperature, detail={"rows": len(points)})


class RankMe(Score):
    """RankMe: the effective rank of a representation, mean included; it needs no labels."""

    name: ClassVar[str] = "rankme"
    better: ClassVar[str] = ""
    equation: ClassVar[str] = "exp(-sum p log p), p = s_i(h) / sum s"
    reference: ClassVar[str] = "Garrido et al. 2022, arXiv 2210.02885"
    needs: ClassVar[frozenset[str]] = frozenset({"h"})

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        return effective_rank(inputs.h, centred=False)


class EffectiveRank(Score):
    """The effective rank of a representation less its mean."""

    name: ClassVar[str] = "effective_rank"
    better: ClassVar[str] = ""
    equation: ClassVar[str] = "exp(-sum p log p), p = s_i(h - mean) / sum s"
    reference: ClassVar[str] = "Roy, Vetterli 2007, The effective rank, EUSIPCO"
    needs: ClassVar[frozenset[str]] = frozenset({"h"})

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        return effective_rank(inputs.h)


class Lidar(Score):
    """LiDAR: the rank of what tells data apart beside the scatter of their views; `group` says whose view a row is.

    ridge: share of the mean diagonal of the scatter that is added to it.
    """

    name: ClassVar[str] = "lidar"
    better: ClassVar[str] = ""
    equation: ClassVar[str] = "exp(-sum p log p), p the eigenvalues of Sw^-1/2 Sb Sw^-1/2 over their sum"
    reference: ClassVar[str] = "Thilak et al. 2023, arXiv 2312.04000"
    needs: ClassVar[frozenset[str]] = frozenset({"h", "group"})

    ridge: float = Field(default=1e-4, gt=0)

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        return lidar(inputs.h, inputs.group, self.ridge)


class Alignment(Score):
    """How near the views of one datum lie on the sphere; `group` says whose view a row is."""

    name: ClassVar[str] = "alignment"
    better: ClassVar[str] = "lower"
    equation: ClassVar[str] = "E |u(x) - u(x')|^2, u = h / |h|, x and x' views of one datum"
    reference: ClassVar[str] = "Wang, Isola 2020, arXiv 2005.10242"
    needs: ClassVar[frozenset[str]] = frozenset({"h", "group"})

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        return alignment(inputs.h, inputs.group)


class Uniformity(Score):
    """How evenly rows lie on the sphere.

    temperature: how fast a distance stops to matter.
    """

    name: ClassVar[str] = "uniformity"
    better: ClassVar[str] = "lower"
    equation: ClassVar[str] = "log E exp(-t |u(x) - u(y)|^2), u = h / |h|"
    reference: ClassVar[str] = "Wang, Isola 2020, arXiv 2005.10242"
    needs: ClassVar[frozenset[str]] = frozenset({"h"})

    temperature: float = Field(default=2.0, gt=0)

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        return uniformity(inputs.h, self.temperature)


def _spread(values: Tensor) -> float:
    total = values.sum()
    if total <= 0:
        return 0.0
    shares = values / total
    return float(torch.special.entr(shares).sum().exp())


def _rows(name: str, h: Any) -> Tensor:
    rows = as_tensor(h, "h")
    if rows.ndim != 2 or len(rows) < 2:
        raise UsageError(f"{name}: h must be [n, d] with at least 2 rows, got {list(rows.shape)}")
    require_finite(rows, "h")
    return rows.detach().cpu().double()


def _views(name: str, h: Any, group: Any) -> tuple[Tensor, Tensor, int]:
    rows = _rows(name, h)
    member = torch.from_numpy(members(group, len(rows), f"{name}: group"))
    if (count := int(member.max()) + 1) == len(rows):
        raise UsageError(f"{name}: no datum has two views; give the rows of views and the datum of each as group")
    return rows, member, count
