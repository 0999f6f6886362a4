"""The page of the study: written like the results section of a paper, from the parts that are there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unmix.papers.get_rich_quick import claims as claim
from unmix.papers.pages import publish
from unmix.papers.parts import results as part_results
from unmix.regimes.exact import neuron
from unmix.regimes.measures import verdict
from unmix.report import regimes as pictures
from unmix.report.page import Block, DataTable, Figure, Paragraph, Section, beside
from unmix.report.published import curves, summarised

NOTE = (
    f"A number replicates when the mean over seeds lies within {claim.CLOSE:.0%} of the published one; it differs "
    "when it does not and the 95 % interval over seeds leaves the published one out as well. A statement replicates "
    "when what it says is seen. Claims that differ stay in."
)
FORMATS = {
    "alpha": "g", "tau": "g", "balance": "g", "scale": "g", "seeds": "d", "rows": ",d", "steps": ",.0f",
    "fitted": ",.0f", "budget": ",.0f", "test": ".4f", "hamming": ".3f", "motion": ".2f", "relative motion": ".2f",
    "kernel distance": ".3f", "error": ".3f", "train error": ".3f", "published": ".3f", "before": ".2f",
    "after": ".2f", "accuracy": ".1%", "largest": ".1e", "cases": ",d", "drift": ".1e", "seed": "d",
}  # fmt: skip
LABELS = {
    "test": "test loss",
    "hamming": "patterns switched",
    "motion": "weights moved",
    "relative motion": "moved, relative",
    "kernel distance": "kernel distance S",
    "steps": "steps to level",
    "fitted": "steps to fit training",
    "before": "roughness at start",
    "after": "at the end",
    "largest": "largest difference",
    "drift": "drift of the balance",
    "regime": "verdict",
}
Runs = dict[str, pd.DataFrame]


def write(study: Any, folder: Path, small: bool) -> Path:
    """Write claims.json and the page; returns the page's path."""
    exact, runs = _gathered(study, folder, small)
    found: list[dict[str, Any]] = []
    sections: list[Section] = []
    if "exact" in study.sections:
        found += claim.exact_claims(exact)
        sections.append(_exact(exact))
    for name, claims, section in (
        ("teacher_run", claim.teacher_claims, _teacher),
        ("parity_run", lambda _: [], _parity),
        ("hierarchy", lambda frame: claim.hierarchy_claims(frame, study.epochs), _hierarchy),
        ("grokking", claim.grokking_claims, lambda frame: _grokking(frame, study)),
        ("filters", claim.filter_claims, _filters),
    ):
        frame = runs.get(name, pd.DataFrame())
        if len(frame):
            found += claims(frame)
            sections.append(section(frame))
    title = "Get rich quick: what the start decides"
    lead = f"Exact solutions and small networks over the scale and balance of the start, after {study.reference}"
    methods, headline = _methods(study, small), claim.headline(found)
    return publish(study, folder, small, title, lead, headline, sections, methods, found, NOTE)


def _gathered(study: Any, folder: Path, small: bool) -> tuple[dict[str, Any], Runs]:
    """Results of the exact parts by name, and a table of settings and results for every other function."""
    exact: dict[str, Any] = {}
    rows: dict[str, list[dict[str, Any]]] = {}
    for part, result in part_results(folder, study.parts(small)):
        module, name = part.function.split(":")
        if module.endswith(".exact"):
            exact[name] = result
            continue
        row = {**part.settings, **result}
        if name == "parity_run":
            row |= {"budget": part.settings["steps"], "steps": result["steps to level"]}
        rows.setdefault(name, []).append(row)
    runs = {name: pd.DataFrame(lines) for name, lines in rows.items()}
    for name in ("parity_run", "grokking"):
        if name in runs:
            runs[name]["steps"] = runs[name]["steps"].astype(float)
    return exact, runs


def _exact(exact: dict[str, Any]) -> Section:
    names = {
        "neuron_flow": "one neuron, the flow",
        "endpoints": "one neuron, the end on rank-deficient data",
        "wide_flow": "wide linear networks, the flow",
        "deep_flow": "deep linear networks, the end",
    }
    lines = pd.DataFrame([{"solution": told, **exact[key]} for key, told in names.items() if key in exact])
    text = (
        "For one neuron f(x) = a w.x the whole of gradient flow is one formula, whatever the balance "
        "delta = |a|^2 - |w|^2, the layers' rates and the sign of a. Each closed form is set beside an adaptive "
        "integrator at its tightest tolerance."
    )
    blocks: list[Block] = [Paragraph(text)]
    if len(lines):
        shown = lines[[n for n in ("solution", "cases", "largest", "drift") if n in lines]]
        blocks.append(DataTable(shown, "Closed forms beside simulation.", FORMATS, "", LABELS))
    return Section("Exact solutions", [*blocks, pictures.hyperboloids(), pictures.beta_plane(), _limits()])


def _limits() -> Figure:
    """Alignment, size and kernel distance of one start at several balances, over time."""
    deltas, target = (-4.0, -1.0, 0.0, 1.0, 4.0), np.array([0.0, 1.0])
    a, w = neuron.initial(np.array([-1.0, 0.0]), np.array(deltas))
    times = np.linspace(0, 30, 241)
    path, start = neuron.flow(times[:, None], a, w, target), neuron.flow(0.0, a, w, target)
    values = {
        "Alignment": ("cosine with the target", path.phi),
        "Kernel": ("kernel distance S", neuron.kernel_distance(start, path)),
    }
    panels = []
    for title, (axis, table) in values.items():
        lines = {f"delta {delta:g}": (times, table[:, k]) for k, delta in enumerate(deltas)}
        panels.append(pictures.over_time(lines, title, ("time", axis)))
    caption = (
        "One start, orthogonal to the target, at five balances, by the closed form. Far upstream the direction turns "
        "at once and the kernel stays; far downstream it turns late."
    )
    return Figure(beside(*panels).svg, caption)


def _teacher(runs: pd.DataFrame) -> Section:
    names = {
        "test": "Test loss",
        "hamming": "Patterns switched",
        "kernel distance": "Kernel distance",
        "motion": "Weights moved",
    }
    steps = int(runs["steps"].iloc[0])
    portrait = pictures.phase_portrait(
        runs, names, f"A student of 50 ReLU units after {steps:,} steps on a teacher of three units, over scale and "
        "balance of the start; means over seeds."
    )  # fmt: skip
    means = runs.groupby(["scale", "balance"])[["test", "hamming", "kernel distance", "relative motion"]].mean()
    corner = means.loc[runs["scale"].min()]
    low, high, best = corner.index.min(), corner.index.max(), corner["test"].idxmin()
    large = means.loc[runs["scale"].max()]
    text = (
        f"At the smallest scale the student with balance {best:g} has the lowest test loss "
        f"({corner['test'].min():.4f}; the highest is {corner['test'].max():.4f}). With balance {high:g} "
        f"{corner['hamming'][high]:.0%} of the activation patterns switch while the weights move by "
        f"{corner['relative motion'][high]:.2f} of their norm, with {low:g} it is {corner['hamming'][low]:.1%} at "
        f"{corner['relative motion'][low]:.2f}. At the largest scale at most {large['hamming'].max():.2%} switch and "
        f"the kernel moves by at most {large['kernel distance'].max():.2g}, whatever the balance."
    )
    values = ("test", "hamming", "kernel distance", "motion", "relative motion")
    small = runs[runs["scale"] == runs["scale"].min()]
    table = summarised(small, ("scale", "balance"), values)
    table["regime"] = [
        verdict(row["kernel distance"], row["hamming"], row["relative motion"]) for _, row in table.iterrows()
    ]
    table = _narrow(table, "test", "hamming").drop(columns=["scale", "motion"])
    return Section(
        "Two-layer ReLU networks over scale and balance",
        [Paragraph(text), portrait, DataTable(table, "The smallest scale.", FORMATS, "", LABELS)],
    )


def _parity(runs: pd.DataFrame) -> Section:
    named = runs.assign(group=[_start(s, b) for s, b in zip(runs["scale"], runs["balance"], strict=True)])
    times = pictures.times_to_threshold(
        named, "Steps to 97 % of the test rows", "steps", "Parity of two among forty bits, 400 training rows. Dots: "
        "seeds; bars: medians; > : not reached when the run was stopped."
    )  # fmt: skip
    values = ("hamming", "relative motion", "kernel distance")
    table = summarised(named, ("group",), values)
    table["regime"] = [
        verdict(row["kernel distance"], row["hamming"], row["relative motion"]) for _, row in table.iterrows()
    ]
    by = table.set_index("group")
    text = (
        "The paper has no number for this task; it shows why no single monitor tells the regime, so that the verdict "
        f"takes three. Fewest patterns switched: {by['hamming'].idxmin()} ({by['hamming'].min():.0%}); kernel moved "
        f"most: {by['kernel distance'].idxmax()} ({by['kernel distance'].max():.2f}); weights moved least: "
        f"{by['relative motion'].idxmin()} ({by['relative motion'].min():.2f} of their norm)."
    )
    blocks: list[Block] = [Paragraph(text), times]
    blocks.append(DataTable(_narrow(table), "At the end of each run.", FORMATS, "", {**LABELS, "group": "start"}))
    return Section("Parity: three ways to learn it", blocks)


def _start(scale: float, balance: float) -> str:
    kind = "upstream" if balance > 0 else "downstream" if balance < 0 else "balanced"
    return f"{kind}, scale {scale:g}"


def _hierarchy(runs: pd.DataFrame) -> Section:
    table = summarised(runs, ("rows", "alpha"), ("error", "train error"))
    at = table["rows"] == claim.HIERARCHY_ROWS
    table["published"] = table["alpha"].map(claim.HIERARCHY).where(at)
    drawn = runs.assign(group=[f"{rows:,} rows" for rows in runs["rows"]], x=runs["alpha"], y=runs["error"])
    drawn = drawn.sort_values(["rows", "alpha"])
    picture = curves(
        drawn, "Test error", ("alpha", "test error"), "The random hierarchy model (8 classes, 4 synonyms, 3 levels): "
        "the first layer is divided by alpha, the read-out multiplied; alpha above 1 is upstream.", log=True
    )  # fmt: skip
    notes = "Published: read off the paper's drawing, 6 seeds."
    return Section(
        "The random hierarchy model",
        [picture, DataTable(_narrow(table, "error"), "Test error after training.", FORMATS, notes, LABELS)],
    )


def _grokking(runs: pd.DataFrame, study: Any) -> Section:
    named = runs.sort_values(["tau", "alpha"], ascending=False)
    several = runs["tau"].nunique() > 1
    pairs = zip(named["alpha"], named["tau"], strict=True)
    named = named.assign(group=[f"alpha = {a:g}" + (f", tau = {t:g}" if several else "") for a, t in pairs])
    times = pictures.times_to_threshold(
        named, f"Steps to {study.level:.0%} of the held-out pairs", "steps",
        f"{study.operation} modulo {study.modulus}, {study.fraction:.0%} of the pairs trained on, a transformer "
        "of one layer; embeddings divided by alpha, logits times tau with the learning rate over tau squared. "
        "> : not reached when the run was stopped."
    )  # fmt: skip
    first = named[(named["seed"] == named["seed"].min()) & (named["tau"] == named["tau"].max())]
    lines = {
        row["group"]: ([max(1, step) for step, _, _ in row["curve"]], [held for _, _, held in row["curve"]])
        for _, row in first.iterrows()
    }
    words = ("steps", "share right")
    told = "Held-out pairs of the first seed" + (f", tau = {first['tau'].iloc[0]:g}." if several else ".")
    picture = pictures.over_time(lines, "Held-out pairs", words, told, log=True)
    table = named[["alpha", *(["tau"] if several else []), "seed", "fitted", "steps", "budget"]]
    fitted = named["fitted"].dropna()
    ends = (
        f" Training pairs are fitted after {fitted.min():,.0f} to {fitted.max():,.0f} steps." if len(fitted) else ""
    )
    text = (
        "Every seed is below, those that were stopped at the budget included." + ends + " This is one small task: it "
        "promises no speed-up elsewhere."
    )
    blocks: list[Block] = [Paragraph(text), times, picture]
    return Section("Grokking", [*blocks, DataTable(table, "Every run.", FORMATS, "A dash: not reached.", LABELS)])


def _filters(runs: pd.DataFrame) -> Section:
    first = runs[runs["seed"] == runs["seed"].min()]
    sheets = {f"alpha = {row['alpha']:g}": row["filters"] for _, row in first.iterrows()}
    sheet = pictures.filter_sheet(sheets, caption="Filters after training, from filters divided by alpha.")
    table = summarised(runs, ("alpha",), ("before", "after", "accuracy"))
    text = (
        "Batch norm follows the filters, so that their size changes nothing but how fast they turn: small ones "
        "forget their start. Roughness is about 5 for noise and falls for smooth filters; whether "
        "smoother is more accurate the table says."
    )
    lines = DataTable(_narrow(table), "Roughness and accuracy, means over seeds.", FORMATS, "", LABELS)
    return Section("Filters of a small CNN", [Paragraph(text), sheet, lines])


def _narrow(lines: pd.DataFrame, *halves: str) -> pd.DataFrame:
    """The table with the half-widths of these columns only, so that it fits a page."""
    keep = [n for n in lines if not str(n).endswith("_half") or str(n).removesuffix("_half") in halves]
    return lines[keep]


def _methods(study: Any, small: bool) -> dict[str, Any]:
    made = study.chosen(small)

    def listed(values: Sequence[Any]) -> str:
        return ", ".join(f"{value:g}" for value in values)

    return {
        "source": study.reference,
        "seeds": f"{listed(made['seeds'])}; of the slow runs {listed(study.slow_seeds)}",
        "convention": "alpha above 1 is upstream: the first layer is divided by it (inverted in the authors' code)",
        "kernel distance": "with the moved read-out in the norm of the moved kernel; the authors' notebook has the "
        "one at the start there, which changes their curves between the ends",
        "two-layer networks": "50 units, 100 dimensions, 1,000 rows on the sphere, full batch, step .005 / scale^2, "
        "outputs zero at the start by pairs of units",
        "random hierarchy model": "width 64, 3 hidden layers, no bias, standard normal weights, hidden layers "
        "divided by the root of their inputs, the read-out by the width, SGD with "
        "momentum .9, learning rate 6.4 with a cosine, batch 128",
        "grokking": "one block, norm after each part, AdamW (.9, .98), rate .001, decay 1, full batch; the paper "
        "does not state its modulus, operation and fraction",
        "not repeated": "LeNet on MNIST, residual networks on CIFAR-10, modulus 97",
    }
