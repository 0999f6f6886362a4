"""What the paper and the shared tables say beside what was measured, each with a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from unmix.papers.claimed import claimed, counted, over_seeds
from unmix.papers.slowvae.grids import BETA, SLOW

PAPER = "arXiv 2007.10930"
CLOSE = 0.01
# Source -> latent -> shape parameter by scipy's three-parameter fit, on the shared table of tracks.
ALPHA = {
    "davis": {"x": 0.459, "y": 0.515, "area": 0.387},
    "pedestrian": {"x": 0.841, "y": 0.671, "area": 0.346},
    "car": {"x": 0.329, "y": 0.514, "area": 0.157},
}
GAIN = 0.1  # SlowVAE's excess over the same network without its temporal term


def motion_claims(motion: pd.DataFrame) -> list[dict[str, Any]]:
    """Natural motion is sparse: shape parameters, and which law is most likely. motion: rows of `runs.motion`."""
    if motion.empty:
        return []
    found = []
    laws = [[row[law] for law in ("generalised Laplace", "Laplace", "Gaussian")] for row in motion["likelihood"]]
    holds = all(best > middle > last for best, middle, last in laws)
    found.append(
        claimed(
            "object motion: generalised Laplace more likely than Laplace, and that than Gaussian",
            f"{PAPER}, KITTI and YouTube-VOS",
            "in all 6 cells",
            f"in {sum(a > b > c for a, b, c in laws)} of {len(laws)} cells",
            holds,
            "log-likelihood of differences of consecutive frames, other videos",
            1,
        )
    )
    most = motion["alpha"].max()
    found.append(
        claimed(
            "object motion: sparse transitions, alpha < 1 in x, y and area",
            f"{PAPER}, KITTI and YouTube-VOS",
            "0.44 to 0.69",
            f"{motion['alpha'].min():.2f} to {most:.2f}",
            bool(most < 1),
            "largest of all cells; other videos",
            1,
        )
    )
    for row in motion.to_dict("records"):
        published = next((t for name, t in ALPHA.items() if name in str(row["source"]).lower()), {}).get(
            row["latent"]
        )
        if published is not None:
            away = row["alpha_scipy"] - published
            found.append(
                claimed(
                    f"shape of motion, {row['source']}, {row['latent']}",
                    "scipy's gennorm.fit on the same table",
                    f"{published:.3f}",
                    f"{row['alpha_scipy']:.3f}",
                    abs(away) <= CLOSE,
                    f"{away:+.3f}; the maximum of the likelihood is at {row['alpha']:.3f}",
                    1,
                )
            )
    return found


def latent_claims(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Sparse transitions identify the axes, Gaussian ones do not. frame: rows of `page.outcomes`."""
    rows = frame[(frame["section"] == "latents") & frame["spearman"].notna()] if len(frame) else frame
    found: list[dict[str, Any]] = []
    if rows.empty:
        return found

    def values(law: str, method: str, column: str = "spearman") -> list[float]:
        return rows[(rows["law"] == law) & (rows["method"] == method)].sort_values("seed")[column].tolist()

    theorem = f"{PAPER}, theorem"
    for law in ("Laplace", "zero-inflated", "natural"):
        slow, beta = values(law, SLOW), values(law, BETA)
        if slow and beta:
            gap = _mean(slow) - _mean(beta)
            told = f"{_mean(slow):.3f} against {_mean(beta):.3f}"
            text = f"{law} transitions: SlowVAE recovers the latents, {GAIN} above the same network without them"
            found.append(
                claimed(text, theorem, "", told, gap >= GAIN, _level(rows, law), len(slow), over_seeds(slow))
            )
    slow, chance = values("Gaussian", SLOW), values("Gaussian", SLOW, "chance")
    if slow:
        gap = _mean(slow) - _mean(chance)
        text = "Gaussian transitions leave rotations open: SlowVAE stays at the level of random rotations"
        told = f"{_mean(slow):.3f}, random rotations {_mean(chance):.3f}"
        found.append(claimed(text, theorem, "", told, gap < GAIN, "within 0.1 of it", len(slow), over_seeds(slow)))
    control = values("Laplace", "ICA of differences")
    if control:
        text = "Laplace transitions, linear mixing: ICA of the differences recovers the latents in closed form"
        told = f"{min(control):.4f} at least"
        found.append(claimed(text, "control", "", told, min(control) >= 0.999, "below 0.999 differs", len(control)))
    return found


def sprite_claims(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """SlowVAE above beta-VAE on sprites, and above random projections of the true factors."""
    rows = frame[(frame["section"] == "sprites") & frame["spearman"].notna()] if len(frame) else frame
    found = []
    for law in dict.fromkeys(rows["law"]) if len(rows) else ():
        here = rows[rows["law"] == law]
        slow, beta = here[here["method"] == SLOW], here[here["method"] == BETA]
        if slow.empty or beta.empty:
            continue
        one, other, level = (float(part.mean()) for part in (slow["spearman"], beta["spearman"], slow["chance"]))
        text = f"sprites, {law}: SlowVAE's MCC is {GAIN} above beta-VAE's, and above random projections"
        told = f"{one:.3f} against {other:.3f}; {one - level:+.3f} and {other - level:+.3f} above projections"
        holds = one >= other + GAIN and one > level
        interval = over_seeds(slow["spearman"].tolist())
        worst = slow["spearman"].min()
        why = f"means over seeds, worst seed {worst:.3f}; other networks and images than the paper's"
        found.append(claimed(text, PAPER, "", told, holds, why, len(slow), interval))
    return found


def headline(claims: Sequence[dict[str, Any]], frame: pd.DataFrame) -> str:
    """What came out, in one or two sentences."""
    told = f"Of {len(claims)} claims {counted(claims)}."
    rows = frame[(frame["section"] == "latents") & (frame["law"] == "Laplace")] if len(frame) else frame
    means = (
        {m: rows[rows["method"] == m]["spearman"].mean() for m in (SLOW, BETA, "ICA of differences")}
        if len(rows)
        else {}
    )
    if not means or any(pd.isna(value) for value in means.values()):
        return told if claims else "No claim belongs to these sections: what was measured is below."
    return (
        f"{told} With Laplace transitions and a linear mixing SlowVAE recovers the latents to a rank correlation of "
        f"{means[SLOW]:.2f} where the same network without its temporal term stays at {means[BETA]:.2f} and random "
        f"rotations reach {rows['chance'].mean():.2f}; linear ICA of the differences gives "
        f"{means['ICA of differences']:.4f} in a second."
    )


def _mean(values: Sequence[float]) -> float:
    return float(sum(values) / len(values))


def _level(rows: pd.DataFrame, law: str) -> str:
    here = rows[(rows["law"] == law) & (rows["method"] == SLOW)]
    return f"random rotations {here['chance'].mean():.2f}; worst seed {here['spearman'].min():.3f}"
