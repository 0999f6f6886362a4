"""The page of the study, written like the results of a paper, from what the run folder holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from unmix.papers.diet import claims as claim
from unmix.papers.diet import figures, grids
from unmix.papers.diet.grids import DIET, RAW
from unmix.papers.diet.runs import unpacked, views_of
from unmix.papers.pages import failures, narrow, publish
from unmix.papers.parts import each_result
from unmix.report.page import Block, DataTable, Figure, Paragraph, Section, beside
from unmix.report.published import summarised

NUMBERS = (
    "alike",
    "rankme",
    "uniformity",
    "lidar",
    "alignment",
    "steps",
    "seen",
    "flops",
    "seconds",
    "excess",
    "plain",
)
FORMATS: dict[str, Any] = {
    **dict.fromkeys(("linear", "knn", "alignment", "excess", "plain"), ".3f"),
    **dict.fromkeys(("r2", "r2_minimum", "r2_x", "r2_untrained", "weights_r2", "probe", "bayes"), ".3f"),
    **dict.fromkeys(("rankme", "lidar"), ".1f"),
    "uniformity": ".2f",
    "within_class": ".4f",
    "steps": ",d",
    "seconds": ".0f",
    "seen": ".1f",
    "flops": "si",
}
LABELS = {
    "linear": "linear",
    "knn": "kNN",
    "rankme": "RankMe",
    "lidar": "LiDAR",
    "seen": "times seen",
    "seconds": "training, s",
    "flops": "work of a step",
    "excess": "excess loss",
    "plain": "plain loss / ln N",
    "r2": "R2",
    "r2_minimum": "worst latent",
    "r2_x": "R2 of x",
    "r2_untrained": "R2 at start",
    "weights_r2": "R2 of weights",
    "within_class": "weights within classes",
    "probe": "class, linear",
    "bayes": "class, at best",
}
CLAIMS_NOTE = "Every seed counts, failed ones are listed, and a claim that differs stays in."
TITLES = {"digits": "Digits, at equal compute", "images": "Your pictures, at equal compute"}


def outcomes(study: Any, folder: Path, small: bool) -> pd.DataFrame:
    """One row for every piece of work that is there, but the closed form: what it is, its numbers, error."""
    rows = []
    for what, result in each_result(study.parts(small), folder):
        if what["section"] == "linear":
            continue
        row = {**what, "error": result.get("error", "")}
        row |= {name: result[name]["accuracy"] for name in ("linear", "knn") if isinstance(result.get(name), dict)}
        row |= {name: result[name] for name in (*NUMBERS, "looks", "pictures", "probe", "bayes") if name in result}
        for name, numbers in result.get("scores", {}).items():
            row[name] = numbers.get("value")
            row |= {f"{name}_minimum": numbers["minimum"]} if "minimum" in numbers else {}
            row |= {f"{name}_{key}": value["value"] for key, value in numbers.get("baselines", {}).items()}
        rows.append(row)
    columns = None if rows else ["section", "method", "factor", "value", "seed", "linear", "error"]
    return pd.DataFrame(rows, columns=columns)


def write(study: Any, folder: Path, small: bool) -> Path:
    """Write claims.json and the page; returns the page's path."""
    frame = outcomes(study, folder, small)
    found: list[dict[str, Any]] = []
    sections: list[Section] = []
    for section in ("digits", "images"):
        if section not in study.sections:
            continue
        if section == "images" and study.images is None:
            text = "Left out: no pictures were given. With `images=PATH` this section has your own."
            sections.append(Section(TITLES[section], [Paragraph(text)]))
            continue
        rows = frame[frame["section"] == section]
        found += claim.compared_claims(rows, section)
        sections.append(_compared(study, section, rows, small))
    looks, ends = _looks(frame), _ends(frame)
    if len(looks) or len(ends):
        found += claim.tracking_claims(looks, ends)
        sections.append(_tracking(looks, ends))
    if "sensitivity" in study.sections:
        rows = frame[frame["section"] == "sensitivity"]
        found += claim.sensitivity_claims(rows)
        sections.append(_sensitivity(rows))
    if "linear" in study.sections:
        records = _records(study, folder, small)
        found += claim.linear_claims(records)
        sections.append(_linear(records))
    if "latents" in study.sections:
        rows = frame[frame["section"] == "latents"]
        found += claim.latent_claims(rows)
        sections.append(_latents(rows))
    found += claim.published_claims()
    names = [name for name in ("section", "method", "factor", "value", "seed", "error") if name in frame]
    sections.append(failures(frame[frame["error"] != ""][names], "Fits that failed count as failures."))
    lead = "The number of each picture as its label, after Ibrahim et al. 2023 (arXiv 2302.10260) and its revision "
    lead += "(arXiv 2406.10743)"
    methods, headline = _methods(study, small), claim.headline(found, frame)
    return publish(study, folder, small, "DIET", lead, headline, sections, methods, found, CLAIMS_NOTE)


def _compared(study: Any, section: str, frame: pd.DataFrame, small: bool) -> Section:
    world, fields = study.world(section), study.fields(section)
    most = study.most or (4000 if small else None) if section == "images" else None
    learnt = f"{min(most or world.size, world.size):,} pictures to learn from"
    if world.size > (most or world.size):
        learnt += f" ({world.size:,} for the probes)"
    text = (
        f"{learnt}, {world.held_out.size:,} held out, {world.classes} classes. Every objective has the same network, "
        f"batch ({fields['batch']}{_own(section)}), views and optimiser, and "
        f"{study.used_compute(section, small):.2g} operations of training: one that runs its network on two views "
        "takes about half the steps. Probes are fitted on training "
        "rows and chosen on a fifth of them; the held-out rows are scored once. The dashed line is the linear probe "
        "of raw pixels; `SupervisedViews` is trained with the labels."
    )
    blocks: list[Block] = [Paragraph(text)]
    if frame.empty:
        return Section(TITLES[section], [*blocks, Paragraph("Nothing was measured.")])
    blocks.append(figures.probes(frame, "Probes of held-out pictures", "Filled: linear. Open: nearest neighbours."))
    values = ("linear", "knn", "rankme", "lidar", "alignment", "steps", "seen", "seconds")
    note = (
        "Accuracies of the linear and the nearest-neighbour probe: means over seeds with 95 % t intervals. RankMe, "
        "LiDAR and alignment need no labels."
    )
    blocks.append(_table(frame, ("method",), values, note, ("linear", "knn")))
    blocks += _how_far(frame, min(most or world.size, world.size))
    shown = figures.sheet(views_of(world, fields["augment"], 6, 0), "Pictures and their views")
    panels = [shown]
    for method, title in ((DIET, "Nearest in DIET's features"), (RAW, "Nearest in pixels")):
        given = frame[(frame["method"] == method) & frame["pictures"].notna()] if "pictures" in frame else frame[:0]
        if len(given):
            packed, alike = given["pictures"].iloc[0], given["alike"].mean()
            panels.append(figures.sheet(unpacked(packed), f"{title}: {alike:.0%} alike", packed["right"]))
    said = "Left: pictures, each followed by five views that networks learn from. Then: held-out pictures, each with "
    said += "its 8 nearest others; those of another class are framed. Alike: the share of the 8 that is of the "
    said += "picture's class, over all held-out pictures."
    blocks.append(_captioned(beside(*panels), said))
    return Section(TITLES[section], blocks)


def _own(section: str) -> str:
    """What DIET has otherwise than the others, in words after their batch."""
    if section != "images":
        return ""
    own = grids.ON_IMAGES
    return (
        f"; DIET's is {own['batch']}, its features lie on the sphere, beta is {own['beta']:g}, and its head learns "
        f"at {own['head_rate']:g} times the rate"
    )


def _how_far(frame: pd.DataFrame, pictures: int) -> list[Block]:
    """How far DIET's training came, in words, from what was looked at on the way; nothing where it was not."""
    diet, looks = frame[frame["method"] == DIET], _looks(frame)
    each = [rows.sort_values("step") for _, rows in looks.groupby("seed")] if len(looks) else []
    each = [rows for rows in each if len(rows) > 1]
    if not each or "seen" not in diet or diet["seen"].isna().all():
        return []
    gain = sum(rows["accuracy"].iloc[-1] - rows["accuracy"].iloc[-2] for rows in each) / len(each)
    seen, plain = diet["seen"].mean(), diet["plain"].mean()
    return [
        Paragraph(
            f"DIET saw each of the {pictures:,} pictures {seen:.0f} times. From half of its steps to the end its "
            f"probe on validation rows moved by {100 * gain:+.1f} points, and its plain loss ends at {plain:.2f} of "
            "that of a uniform guess: these two numbers tell how much is left to longer training."
        )
    ]


def _looks(frame: pd.DataFrame) -> pd.DataFrame:
    rows = frame[frame["looks"].notna()] if "looks" in frame else frame.iloc[:0]
    flat = [
        {"section": row["section"], "seed": row["seed"], **look}
        for _, row in rows.iterrows()
        for look in row["looks"]
    ]
    return pd.DataFrame(flat)


def _ends(frame: pd.DataFrame) -> pd.DataFrame:
    rows = frame[frame["section"] == "sensitivity"] if len(frame) else frame
    rows = rows[rows["excess"].notna()].copy() if "excess" in rows else rows.iloc[:0].copy()
    rows["comparable"] = ~rows["factor"].isin(["smoothing", "pictures", "features"]) if len(rows) else []
    return rows


def _tracking(looks: pd.DataFrame, ends: pd.DataFrame) -> Section:
    text = (
        "DIET's loss less its floor beside the accuracy of a linear probe: the loss needs no labels, so if it tells "
        "the probe it can choose a model. The loss falls to the right. While one run trains both move; between runs "
        "it is a stronger statement. Smoothing, features on the sphere and the number of pictures change the loss "
        "itself: those runs are in the table of the next section alone."
    )
    grouped = looks.groupby("section", sort=False) if len(looks) else ()
    panels = [figures.tracks(rows, f"On the way: {section}") for section, rows in grouped]
    if len(ends):
        panels.append(figures.ends(ends[ends["comparable"]], "At the end, one setting changed"))
    said = "On the way: a line for every seed, 7 looks, validation rows. At the end: a point for every run on digits."
    return Section("Training loss and probe", [Paragraph(text), _captioned(beside(*panels), said)])


def _sensitivity(frame: pd.DataFrame) -> Section:
    text = (
        "One setting changed at a time, half the compute of the comparison above, so that small batches take more "
        "steps. Views: how many times as strong; pictures: how many DIET learns from, the probes see all. The dashed "
        "line is DIET with nothing changed."
    )
    blocks: list[Block] = [Paragraph(text)]
    rows = frame[frame["linear"].notna()] if "linear" in frame else frame.iloc[:0]
    if rows.empty:
        return Section("Sensitivity", [*blocks, Paragraph("Nothing was measured.")])
    drawn = [factor for factor in dict.fromkeys(rows["factor"]) if factor and factor != "features"]
    panels = [figures.sensitivity(rows, factor) for factor in drawn]
    blocks.append(_captioned(beside(*panels), "The linear probe on held-out rows over the values of each setting."))
    shown = rows.assign(
        factor=rows["factor"].replace("", "nothing changed"), value=[str(v) for v in rows["value"]]
    ).replace({"value": {grids.BASE: ""}})
    values = ("linear", "knn", "rankme", "excess", "plain", "steps")
    note = "Plain loss: unsmoothed, on unchanged training pictures, over its value at a uniform guess."
    blocks.append(_table(shown, ("factor", "value"), values, note, ("linear", "knn")))
    return Section("Sensitivity", blocks)


def _records(study: Any, folder: Path, small: bool) -> list[dict[str, Any]]:
    found = each_result(study.parts(small), folder)
    return next((result for what, result in found if what["section"] == "linear"), [])


def _linear(records: list[dict[str, Any]]) -> Section:
    text = (
        "With a linear encoder, a linear head and squared error to one-hot numbers, DIET is an eigenvalue problem: "
        "S a = lambda C a, where C is the second moment of all views and S that of each picture's mean view. The "
        "least loss is 1 - (sum of the k largest lambda) / N, and the spectral contrastive loss of a linear encoder "
        "has the same subspace with -(sum of lambda squared). Here both are minimised numerically on views of digits."
    )
    formats = {"closed": ".10f", "descended": ".10f", "angle": ".1e"}
    labels = {"closed": "least loss, closed form", "descended": "L-BFGS ends at", "angle": "subspaces apart, degrees"}
    table = DataTable(pd.DataFrame(records), "", formats, "", labels)
    return Section("The linear case, exactly", [Paragraph(text), table])


def _latents(frame: pd.DataFrame) -> Section:
    text = (
        "The same learner where the truth is known: 5 latents on a sphere, 100 classes of concentration 10, 1,000 "
        "data, mixed by a network. R2 of the latents from the features by least squares on held-out rows, the worst "
        "latent beside the mean, and the class probe beside the accuracy of the world's own posterior: a good probe "
        "alone does not say that the latents were found."
    )
    if frame.empty:
        return Section("Known latents", [Paragraph(text), Paragraph("Nothing was measured.")])
    values = ("r2", "r2_minimum", "r2_x", "r2_untrained", "weights_r2", "within_class", "probe", "bayes")
    return Section("Known latents", [Paragraph(text), _table(frame, ("method",), values, "", ("r2", "probe"))])


def _table(
    frame: pd.DataFrame, keys: tuple[str, ...], values: tuple[str, ...], note: str, spread: tuple[str, ...]
) -> DataTable:
    """Means over seeds, with half of the interval of the columns in `spread` where there are three seeds or more."""
    lines = summarised(frame[frame["error"] == ""], keys, values)
    if lines.empty:
        return DataTable(lines, "Nothing ended well.")
    return DataTable(narrow(lines, *spread, least=3), note, FORMATS, "", LABELS)


def _captioned(figure: Figure, caption: str) -> Figure:
    return Figure(figure.panels, caption)


def _methods(study: Any, small: bool) -> dict[str, Any]:
    digits, pictures = study.fields("digits"), study.fields("images")
    return {
        "source": study.reference,
        "DIET": "cross-entropy on the number of each picture, smoothing .8, no bias, no projector; AdamW, "
        "weight decay .05, warm-up over a tenth of the steps, then a cosine",
        "others": "each with its own loss's defaults, a projector of one hidden layer where it has one (dropped)",
        "digits": _shared(digits),
        "pictures": _shared(pictures),
        "compute": "floating-point operations of products and convolutions, forwards and backwards, counted; random "
        "views take time as well, which is not in it",
        "how settings were chosen": "learning rate and views of digits, and DIET's batch, sphere, beta and head rate "
        "on pictures, on validation rows of one seed; nothing on held-out rows; the other objectives have the same "
        "learning rate and were not tuned",
        "not repeated": "CIFAR-100, TinyImageNet, ImageNet and the paper's networks, which need days of GPUs",
    }


def _shared(fields: dict[str, Any]) -> str:
    """What all learners of a section share, in one line."""
    return (
        f"{fields['network']}, {fields['width']} features, learning rate {fields['lr']:g}; views: {fields['augment']}"
    )
