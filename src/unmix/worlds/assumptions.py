"""Assumptions: what the identifiability theorems ask of a world, checked before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from unmix.core.errors import UsageError
from unmix.core.seeds import Stream, as_stream
from unmix.worlds.cluster import ClusterWorld, bayes_loss
from unmix.worlds.latents import LatentWorld
from unmix.worlds.pairs import PairWorld

RANK, WEAK, NEARLY_LINEAR, BENT, CERTAIN = 1e-6, 0.1, 0.95, 100.0, 0.85


@dataclass(frozen=True)
class Finding:
    """One assumption: its name, the value found, the limit, whether it holds, and one sentence."""

    name: str
    value: float
    limit: str
    ok: bool
    sentence: str


@dataclass(frozen=True)
class Assumptions:
    """What was found of a world, and what a theorem says of it.

    world: the recipe as text. findings: one for each assumption. cases: the theorem's cases that apply.
    verdict: which result to expect, in one sentence.
    """

    world: str
    findings: tuple[Finding, ...]
    cases: tuple[str, ...]
    verdict: str

    @property
    def ok(self) -> bool:
        """Whether nothing is to be warned of."""
        return all(finding.ok for finding in self.findings)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The sentences of what does not hold; a report repeats them."""
        return tuple(f"{finding.name}: {finding.sentence}" for finding in self.findings if not finding.ok)

    def __getitem__(self, name: str) -> Finding:
        for finding in self.findings:
            if finding.name == name:
                return finding
        raise UsageError(f"{name}: no such finding; known: {', '.join(f.name for f in self.findings)}")

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        findings = [{**asdict(f), "value": f.value if math.isfinite(f.value) else None} for f in self.findings]
        return {"world": self.world, "findings": findings, "cases": list(self.cases), "verdict": self.verdict}

    def __str__(self) -> str:
        rows = [("", "assumption", "value", "limit", "")]
        for f in self.findings:
            rows.append(("ok" if f.ok else "WARN", f.name, f"{f.value:.4g}", f.limit, f.sentence))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = ["  ".join([*(row[i].ljust(widths[i]) for i in range(4)), row[4]]).rstrip() for row in rows]
        return "\n".join([self.world, "", *lines, "", self.verdict])


def check_assumptions(world: Any, n: int = 2000, rng: int | Stream = 0) -> Assumptions:
    """Which assumptions of the identifiability theorems a world meets.

    world: a ClusterWorld (theorem 1C of arXiv 2410.21869) or a PairWorld (theorems of arXiv 2102.08850). n: latents
    drawn for what has to be measured. Raises `UsageError` for another world or n < 200.
    """
    if n < 200:
        raise UsageError(f"n={n}: give at least 200 rows")
    stream = as_stream(rng).child("assumptions")
    checks: dict[type, Callable[..., Assumptions]] = {ClusterWorld: _clusters, PairWorld: _pairs}
    for kind, check in checks.items():
        if isinstance(world, kind):
            return check(world, n, stream)
    name = getattr(world, "kind", type(world).__name__)
    raise UsageError(f"check: no theorem is known here for {name}; ClusterWorld and PairWorld have one")


def linear_baseline(x: torch.Tensor, z: torch.Tensor) -> float:
    """R2 of the least-squares map with intercept from x to z, fitted on the first half and scored on the second.

    x: [n, D]. z: [n, d]. Mean over the dimensions of z. What a representation has to beat.
    """
    x = torch.cat([x.double(), torch.ones(len(x), 1, dtype=torch.float64)], 1)
    z, half = z.double(), len(z) // 2
    fit = torch.linalg.lstsq(x[:half], z[:half], driver="gelsd").solution
    left = (z[half:] - x[half:] @ fit).square().sum(0)
    return float((1 - left / (z[half:] - z[half:].mean(0)).square().sum(0)).mean())


def _mixing(world: LatentWorld, n: int, rng: Stream) -> list[Finding]:
    sample = world.sample(n + n % getattr(world, "length", 1), rng.child("mixing"))
    some = sample.z[:256]
    values = world.map.singular_values(some)
    smallest = float(values[:, -1].min() / values.max())
    condition = float((values[:, 0] / values[:, -1].clamp_min(1e-300)).median())
    shared, baseline = world.map.collisions(sample.z[:2000]), linear_baseline(sample.x, sample.z)
    return [
        Finding("local injectivity", smallest, f"> {RANK:g}", smallest > RANK,
                "smallest over largest singular value of the mixing's Jacobian" if smallest > RANK else
                "the mixing flattens some direction: latents along it cannot be told apart"),
        Finding("injectivity", shared, "= 0", not shared, "no two latents with one observation were found"
                if not shared else f"{shared} latents share their observation with another: they are lost"),
        Finding("mixing condition", condition, f"<= {BENT:g}", condition <= BENT,
                "largest over smallest singular value of the Jacobian, median" if condition <= BENT else
                "the theorem holds, but so badly conditioned a mixing is hard to invert"),
        Finding("linear baseline R2", baseline, f"<= {NEARLY_LINEAR:g}", baseline <= NEARLY_LINEAR,
                "x to z, held out: what a representation has to beat" if baseline <= NEARLY_LINEAR else
                "x is nearly linear in z already: a high score says little about the training"),
    ]  # fmt: skip


def _clusters(world: ClusterWorld, n: int, rng: Stream) -> Assumptions:
    v, d = world.class_vectors.double().numpy(), world.latents
    spread = _smallest(v - v.mean(0), d)
    full, weak = spread > RANK, WEAK / math.sqrt(d)
    second = _smallest(np.concatenate([v * v, v], 1), 2 * d)
    prior = world.prior.numpy()
    balance = 1.0 if world.instances else float(prior.min() / prior.max())
    bayes = bayes_loss(world, n, rng)
    known, matters = _conditional(world)
    findings = [
        Finding("class count", world.classes, f">= {d + 1}", world.classes > d,
                f"d + 1 = {d + 1} are needed" if world.classes > d else
                f"{world.classes} class vectors cannot generate {d} dimensions affinely, {d + 1} are needed"),
        Finding("affine rank", spread, f"> {weak:.3f}", spread > weak,
                "spread of the class vectors along their weakest direction" if spread > weak else
                "one direction of the latents hardly tells classes apart: it is learnt last and badly" if full else
                "the class vectors do not span: some direction of the latents is not identified at all"),
        Finding("rank 2d", second, f"> {RANK:g}", second > RANK, "assumption 2, for case C3 alone" if second > RANK
                else f"squares and vectors of the classes have rank below {2 * d}: case C3 is not covered"),
        Finding("class balance", balance, "= 1", balance > 1 - 1e-9,
                ("instances are uniform; their classes may differ in size" if world.instances else "uniform")
                if balance > 1 - 1e-9 else
                "the theorem has uniform classes; a bias of the head takes up the logarithm of the prior exactly"),
        Finding("label noise", world.label_noise, "= 0", not world.label_noise, "none" if not world.label_noise else
                "acts as label smoothing of this size: the optimal logits are no longer linear in z"),
        Finding("overlap", bayes.accuracy, f"<= {CERTAIN:g}", bayes.accuracy <= CERTAIN,
                "best possible accuracy" if bayes.accuracy <= CERTAIN else
                "classes hardly overlap: few rows near the borders tell the logits, and training is slow"),
        Finding("conditional", float(known), "= 1", known, matters),
        *_mixing(world, n, rng),
    ]  # fmt: skip
    met = {f.name: f.ok for f in findings}
    spans = world.classes > d and full
    base = spans and not world.label_noise and known and met["local injectivity"] and met["injectivity"]
    cases: tuple[str, ...] = ("C1", "C2", "C3", "C4") if second > RANK else ("C1", "C2", "C4")
    cases = cases if base else ()
    return Assumptions(str(world), tuple(findings), cases, _verdict(cases, met, spans, bayes))


def _verdict(cases: tuple[str, ...], met: dict[str, bool], spans: bool, bayes: Any) -> str:
    loss = f"Best possible cross-entropy: {bayes}."
    if cases:
        bias = "" if met["class balance"] else " if the head has a bias (the theorem itself has uniform classes)"
        what = "C1 unit features and weights: orthogonal; C2 unit features: orthogonal; "
        what += "C3 unit weights: a scaled rotation; " if "C3" in cases else ""
        return (
            f"Cases {', '.join(cases)} of theorem 1C apply{bias}: at the optimum the representation is linear in z "
            f"({what}C4 both free: linear).\n{loss}"
        )
    if not spans:
        why = "the class vectors do not generate the latent space, a high mean R2 would hide the lost directions"
    elif not met["injectivity"] or not met["local injectivity"]:
        why = "the mixing loses latents"
    else:
        why = "the conditional or the labels are not those of the theorem; linear recovery may still be near"
    return f"No case (C1-C4) of theorem 1C applies: {why}.\n{loss}"


def _conditional(world: LatentWorld) -> tuple[bool, str]:
    isotropic = world.conditional == "anisotropic" and world.anisotropy == 1
    if world.space == "sphere" and (world.conditional == "vmf" or isotropic):
        if world.cap is None:
            return True, "von Mises-Fisher on the sphere"
        return False, f"cut off at {world.cap:.3g} rad: the support tells the class, log-ratios are not linear in z"
    if world.space == "euclidean" and world.conditional == "normal":
        return False, "normal in R^d: log-ratios of classes are linear in z, but z is not on the sphere as assumed"
    return False, f"{world.conditional} on the {world.space} is not the von Mises-Fisher of the theorem"


def _smallest(rows: np.ndarray, rank: int) -> float:
    """The singular value number `rank` over the root of the number of rows; 0 where there are fewer rows."""
    values = np.linalg.svd(rows, compute_uv=False)
    return float(values[rank - 1] / math.sqrt(len(rows))) if len(values) >= rank else 0.0


def _pairs(world: PairWorld, n: int, rng: Stream) -> Assumptions:
    mixing = _mixing(world, n, rng)
    name, space = world.conditional, world.space
    if space == "sphere" and name == "vmf" and world.cap is None:
        known, verdict = True, "InfoNCE with unit features finds z up to a rotation (arXiv 2102.08850)."
    elif space == "sphere" and name == "anisotropic":
        known, verdict = True, "InfoNCE with a learnt metric (arXiv 2407.00143) is made for this conditional."
    elif space == "box" and name in ("laplace", "generalised-normal") and world.scatter.power != 2:
        known = True
        verdict = "InfoNCE with the same distance on a box finds z up to permutation, sign, scale (arXiv 2102.08850)."
    else:
        known, verdict = False, f"{name} on the {space}: outside the theorems of arXiv 2102.08850."
    sentence = "the conditional is one of a theorem" if known else "the conditional is not one of a theorem"
    findings = (Finding("conditional", float(known), "= 1", known, sentence), *mixing)
    lost = not all(f.ok for f in mixing[:2])
    verdict = "The mixing loses latents: no theorem applies." if lost else verdict
    return Assumptions(str(world), findings, (), verdict)
