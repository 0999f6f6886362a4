"""The page of the study, written like the results of a paper, from what the run folder holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from unmix.papers.pages import failures, narrow, publish
from unmix.papers.parts import each_result
from unmix.papers.slowvae import claims as claim
from unmix.papers.slowvae import figures
from unmix.papers.slowvae.grids import SLOW
from unmix.report.page import Block, DataTable, Paragraph, Section, beside
from unmix.report.published import summarised
from unmix.study.udr import udr

FORMATS = {
    "spearman": ".3f",
    "excess": "+.3f",
    "pearson": ".3f",
    "chance": ".3f",
    "untrained": ".3f",
    "worst": ".3f",
    "seconds": ".0f",
}
LABELS = {
    "spearman": "MCC, ranks",
    "pearson": "MCC",
    "chance": "projections",
    "excess": "above them",
    "untrained": "at start",
    "worst": "worst seed",
    "seconds": "training, s",
    "law": "transitions",
    "failed": "failed",
}
CLAIMS_NOTE = "Every seed counts, failed ones are listed, and a claim that differs stays in."


def outcomes(study: Any, folder: Path, small: bool) -> pd.DataFrame:
    """One row for every piece of work that is there: section, law, method, seed, spearman, pearson, ..., error."""
    rows = []
    for what, result in each_result(study.parts(small), folder):
        if what["section"] == "motion":
            continue
        row = {**what, "seconds": result["seconds"], "error": result.get("error", "")}
        if "error" not in result:
            row |= {rule: result[rule]["value"] for rule in ("spearman", "pearson")}
            row |= {"chance": result["spearman"]["chance"], "untrained": result.get("untrained")}
            row["excess"] = row["spearman"] - row["chance"]
            row |= {"associations": result["spearman"]["associations"], "codes": result.get("codes")}
            row |= {"informative": result.get("informative"), "converged": result.get("converged", True)}
            more = ("mig", "sap", "modularity", "dci_disentanglement")
            row |= {name: result[name]["value"] for name in more if name in result}
        rows.append(row)
    return pd.DataFrame(rows, columns=None if rows else ["section", "law", "method", "seed", "spearman", "error"])


def write(study: Any, folder: Path, small: bool) -> Path:
    """Write claims.json and the page; returns the page's path."""
    frame = outcomes(study, folder, small)
    found: list[dict[str, Any]] = []
    sections: list[Section] = []
    if "motion" in study.sections:
        records = _motion(study, folder, small)
        found += claim.motion_claims(pd.DataFrame(_flat(records)))
        sections.append(_motion_section(records))
    if "latents" in study.sections:
        found += claim.latent_claims(frame)
        sections.append(_latents(study, frame))
    if "choice" in study.sections:
        sections.append(_choice(frame))
    if "sprites" in study.sections:
        found += claim.sprite_claims(frame)
        sections.append(_sprites(frame, small))
    text = "Fits that failed count as failures, not as missing."
    sections.append(failures(frame[frame["error"] != ""][["section", "law", "method", "seed", "error"]], text))
    lead = f"Sparse transitions and disentanglement, after {study.reference}"
    methods, headline = _methods(study, small), claim.headline(found, frame)
    return publish(study, folder, small, "SlowVAE", lead, headline, sections, methods, found, CLAIMS_NOTE)


def _motion(study: Any, folder: Path, small: bool) -> list[dict[str, Any]]:
    found = each_result(study.parts(small), folder)
    return next((result for what, result in found if what["section"] == "motion"), [])


def _flat(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "density"} for row in records]


def _motion_section(records: list[dict[str, Any]]) -> Section:
    if not records:
        text = "Left out: no tracks of real objects were given. With `tracks=PATH` this section has their laws."
        return Section("How real objects move", [Paragraph(text)])
    text = (
        "Differences of consecutive frames, each latent by itself. Dots: data; orange: the most likely generalised "
        "Laplace law; dashed: a Gaussian of the same deviation. Real objects mostly stay nearly still and sometimes "
        "jump, which is what SlowVAE's prior says. Differences of one track depend on one another."
    )
    blocks: list[Block] = [Paragraph(text)]
    sources = list(dict.fromkeys(row["source"] for row in records))
    blocks += [figures.motion([row for row in records if row["source"] == s], s) for s in sources]
    table = pd.DataFrame(_flat(records))
    for law in ("generalised Laplace", "Laplace", "Gaussian"):
        table[law] = [likelihood[law] for likelihood in table["likelihood"]]
    names = ["source", "latent", "pairs", "alpha", "alpha_scipy", "kurtosis", "still"]
    table = table[[*names, "generalised Laplace", "Laplace", "Gaussian"]]
    formats: dict[str, Any] = {"pairs": ",d", "alpha": ".3f", "alpha_scipy": ".3f", "kurtosis": ".1f", "still": ".0%"}
    formats |= dict.fromkeys(("generalised Laplace", "Laplace", "Gaussian"), ".3f")
    labels = {
        "alpha_scipy": "scipy's alpha",
        "kurtosis": "kurtosis",
        "still": "no change",
        "generalised Laplace": "gen. Laplace",
    }
    blocks.append(DataTable(table, "Fits, and the log-likelihood of a pair under each law.", formats, "", labels))
    return Section("How real objects move", blocks)


def _latents(study: Any, frame: pd.DataFrame) -> Section:
    rows = frame[frame["section"] == "latents"]
    text = (
        f"{study.latents} latents begin as N(0, I), move by the law named, and are seen through a {study.mixing} "
        "mixing that is drawn anew for every seed. Grey bars: random rotations of the true latents, which is what a "
        "representation reaches that knows the latents up to a rotation. Linear ICA of the differences is the "
        "control: where the mixing is linear, any learner has to be compared with it."
    )
    blocks: list[Block] = [Paragraph(text)]
    laws = list(dict.fromkeys(rows["law"])) if len(rows) else []
    if laws:
        panels = [figures.recovery(rows[rows["law"] == law], law, f"{law} transitions.".capitalize()) for law in laws]
        blocks += [beside(*panels[i : i + 2]) for i in range(0, len(panels), 2)]
        blocks.append(_table(rows, ("law", "method"), ("spearman", "pearson", "chance", "untrained", "seconds")))
    if "natural" not in laws:
        blocks.append(Paragraph("Natural transitions are left out: no tracks were given (`tracks=PATH`)."))
    stuck = rows[rows["converged"] == False] if "converged" in rows else rows.iloc[:0]  # noqa: E712
    if len(stuck):
        named = ", ".join(
            sorted({f"{law} ({method})" for law, method in zip(stuck["law"], stuck["method"], strict=True)})
        )
        blocks.append(Paragraph(f"FastICA did not meet its tolerance on {named}; what it had then is shown."))
    return Section("A few latents", blocks)


def _choice(frame: pd.DataFrame) -> Section:
    rows = frame[frame["section"] == "choice"]
    text = (
        "Which weight of the transitions to take, without looking at the truth: unsupervised disentanglement ranking "
        "(UDR) asks how well seeds of one setting agree, one code to one code. One world, Laplace transitions."
    )
    table = []
    for gamma, group in rows.groupby("gamma") if len(rows) else ():
        good = group[group["error"] == ""]
        if len(good) < 2:
            continue
        ranking = udr(good["codes"].tolist(), good["informative"].tolist())
        best = None if pd.isna(ranking.scores).all() else float(good["spearman"].iloc[ranking.best])
        table.append(
            {
                "gamma": gamma,
                "seeds": len(good),
                "udr": float(pd.Series(ranking.scores).mean()),
                "spearman": good["spearman"].mean(),
                "chosen": best,
            }
        )
    if not table:
        return Section("Choosing without the truth", [Paragraph(text), Paragraph("Too few seeds to rank.")])
    shown = pd.DataFrame(table)
    if shown["udr"].isna().all():
        return Section("Choosing without the truth", [Paragraph(text), Paragraph("No code is informative yet.")])
    by_udr, by_truth = (shown.iloc[int(shown[column].argmax())] for column in ("udr", "spearman"))
    told = (
        f"UDR picks gamma {by_udr['gamma']:g}, whose MCC is {by_udr['spearman']:.3f}; "
        f"the best of the settings by the truth is gamma {by_truth['gamma']:g} with {by_truth['spearman']:.3f}."
    )
    formats = {"gamma": "g", "udr": ".3f", "spearman": ".3f", "chosen": ".3f"}
    labels = {"udr": "UDR", "spearman": "MCC, mean", "chosen": "MCC of the seed UDR picks"}
    return Section(
        "Choosing without the truth", [Paragraph(text), DataTable(shown, "", formats, "", labels), Paragraph(told)]
    )


def _sprites(frame: pd.DataFrame, small: bool) -> Section:
    rows = frame[frame["section"] == "sprites"]
    what = "A white heart of three factors (scale, x, y), 32 pixels, three codes" if small else "dSprites, ten codes"
    text = (
        f"{what}. The MCC means something only beside the level of random projections of the true factors to as many "
        "codes (grey bars)."
    )
    if small:
        text += (
            " A prior that wants narrow codes makes it cheap to spread two factors over three, and sharp images keep "
            "what was found first; so the plain prior is heavy at first and codes come in one after another."
        )
    blocks: list[Block] = [Paragraph(text)]
    laws = list(dict.fromkeys(rows["law"])) if len(rows) else []
    if laws:
        blocks.append(
            beside(
                *(
                    figures.recovery(rows[rows["law"] == law], f"Sprites, {law}", f"Sprites that move by {law}.")
                    for law in laws
                )
            )
        )
        more = [name for name in ("mig", "sap", "modularity", "dci_disentanglement") if name in rows]
        blocks.append(
            _table(rows, ("law", "method"), ("spearman", "chance", "excess", "untrained", *more, "seconds"))
        )
    return Section("Sprites", blocks)


def _table(rows: pd.DataFrame, keys: tuple[str, ...], values: tuple[str, ...]) -> DataTable:
    lines = summarised(rows[rows["error"] == ""], keys, values)
    if lines.empty:
        return DataTable(lines, "Nothing ended well.")
    worst = rows.groupby(list(keys), sort=False)["spearman"].min().reset_index(name="worst")
    lines = narrow(lines.merge(worst, on=list(keys), how="left"), "spearman", least=3)
    formats = FORMATS | dict.fromkeys(("mig", "sap", "modularity", "dci_disentanglement"), ".3f")
    labels = LABELS | {"mig": "MIG", "sap": "SAP", "dci_disentanglement": "DCI"}
    said = "Means over seeds; projections: random ones of the true factors."
    return DataTable(lines, said, formats, "", labels)


def _methods(study: Any, small: bool) -> dict[str, Any]:
    steps, drawn = (study.trained_steps(section, small) for section in ("latents", "sprites"))
    slow = (
        f"{SLOW}: gamma {study.gamma:g} and the prior's rate that of the world, {steps:,} steps of Adam (2e-3, "
        "cosine), 128 pairs each, three layers of 64 units, reconstruction deviation 0.3"
    )
    sprites = (
        "gamma 8, rate 6, beta 2, with the prior 12 times as heavy at first, falling to 1 over 80 % of the steps; "
        "beta-VAE the same with gamma 0. A quarter of the paper's pixels; settings found with the truth in view, on "
        "other seeds"
        if small
        else "gamma 10, rate 6 by the authors' code, which is rate 12 in the paper's formula; beta-VAE with beta 8 "
        "on the same pairs"
    )
    return {
        "source": study.reference,
        "a few latents": slow,
        "beta-VAE": "the same learner with gamma 0",
        "sprites": f"{drawn:,} steps; {sprites}",
        "MCC": "mean association under the best one-to-one matching of codes with factors, on held-out rows; by rank "
        "correlation as in the paper, and by Pearson's beside it",
        "random projections": "the true factors, standardised and rotated at random, scored in the same way",
        "not repeated": "the published images other than dSprites, which need files; KITTI Masks and Natural Sprites",
    }
