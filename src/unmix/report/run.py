"""The page of a run folder: what was done, what came out, and how far to trust it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from unmix.core.errors import UsageError
from unmix.core.rows import gather
from unmix.core.seeds import Stream
from unmix.report.figures import agreement as draw_agreement
from unmix.report.figures import costs, firing_rates, recovery, spectrum
from unmix.report.page import Block, Code, DataTable, Facts, Figure, Page, Paragraph, Section, beside, write_page
from unmix.report.pareto import gaps, pareto
from unmix.report.style import Look
from unmix.study.agreement import agreement
from unmix.study.holdings import nothing
from unmix.study.present import summary
from unmix.study.study import Results
from unmix.study.verbs import best_fit, data_split, tried_world
from unmix.study.verdict import verdict

LABELS = {
    "finder": "finder",
    "encoder": "encoder",
    "samples": "rows",
    "l0": "L0",
    "fvu": "FVU",
    "dead": "dead",
    "encode_flops": "encoding",
    "fit_seconds": "fit",
    "dictionary_mcc": "dictionary MCC",
    "dictionary_mcc_chance": "chance",
    "mcc": "MCC",
    "mcc_chance": "chance",
    "found": "found",
}
FORMATS = {"l0": ".1f", "fvu": ".3f", "dead": ".1%", "encode_flops": "si", "fit_seconds": ".1f", "found": ".1%"}


def report_run(run: str | Path, out: str | Path | None = None, command: str | None = None) -> Path:
    """Write the page of a run folder with what it holds: fits, compared encoders, agreement, trust; returns its path.

    out: the page, RUN/report.html by default. command: how to make it again.
    Raises `UsageError` where the run holds no result.
    """
    results = Results(run)
    table = results.table()
    if table.empty:
        raise nothing(run, "fits to report on", f"unmix fit DATA -o {run}")
    command = command or f"unmix report {run}"
    found = verdict(results)
    look = Look.of(table)
    sections = [_done(results, table)]
    data = table[table["world"] == "data"]
    if len(data):
        sections.append(_encoders(data, look))
        pairs = agreement(results)
        if len(pairs):
            sections.append(_agreement(pairs, look))
    if (table["world"] == "matched").any():
        sections.append(_recovery(results, table, look))
    synthetic = table[~table["world"].isin(["data", "matched"])]
    if len(synthetic):
        sections.append(_synthetic(synthetic))
    sections.append(_costs(table, look, command))
    title = "What was found, and how far to trust it"
    return write_page(
        out or Path(run) / "report.html", Page(title, _lead(results, table), found.sentence, sections, command)
    )


def _lead(results: Results, table: pd.DataFrame) -> str:
    finders = " and ".join(table["finder"].unique())
    if not (table["world"] == "data").any():
        return f"{finders} on synthetic worlds whose truth is known."
    cell = best_fit(results)
    name = getattr(cell.world, "label", "the data")
    return f"{finders} on {name}: {int(table.loc[table['world'] == 'data', 'samples'].max()):,} rows to fit on."


def _done(results: Results, table: pd.DataFrame) -> Section:
    facts: dict[str, str] = {}
    if (table["world"] == "data").any():
        cell = best_fit(results)
        facts |= cell.world.facts
        part = data_split(results)
        facts["rows"] = f"{part.train.shape[0]:,} to fit on, {len(part.test):,} held out for every score"
    recipes = dict.fromkeys(str(cell.finder) for cell, _ in results.cells())
    facts["finders"] = "; ".join(recipes)
    facts["seeds"] = ", ".join(str(seed) for seed in sorted(table["seed"].unique()))
    blocks: list[Block] = [Facts(facts)]
    if results.failures:
        blocks.append(Paragraph("Failed cells, kept with their reason: " + "; ".join(results.failures)))
    return Section("What was done", blocks)


def _encoders(data: pd.DataFrame, look: Look) -> Section:
    lines = summary(data)
    shown = [name for name in ("finder", "encoder", "seeds", "l0", "fvu", "encode_flops", "dead") if name in lines]
    shown += [f"{name}_half" for name in ("l0", "fvu", "dead") if f"{name}_half" in lines]
    lines["encoder"] = [f"{e} (own)" if own else e for e, own in zip(lines["encoder"], lines["own"], strict=True)]
    blocks: list[Block] = [pareto(data, "data", look), _gap_sentence(data)]
    notes = "Held-out rows. FVU: fraction of variance unexplained. ±: half of the 95 % t interval over seeds."
    units = {"encode_flops": "FLOPs/row"}
    blocks.append(DataTable(lines[shown], "Every dictionary under every encoder.", FORMATS, notes, LABELS, units))
    return Section("Reconstruction: dictionaries and encoders apart", blocks)


def _gap_sentence(data: pd.DataFrame) -> Paragraph:
    measured = gaps(data, "data")
    if measured.empty:
        return Paragraph("Compare encoders at matched sparsity with `unmix compare` to see the amortisation gap.")
    parts = [
        f"on the {row.finder} dictionary, {row.iterative} leaves {row.fvu_iterative:.3f} of the variance unexplained "
        f"where {row.amortised} leaves {row.fvu:.3f}, at {row.cost:.1f} times the work"
        for row in measured.itertuples()
    ]
    return Paragraph("The amortisation gap at matched sparsity: " + "; ".join(parts) + ".")


def _agreement(pairs: pd.DataFrame, look: Look) -> Section:
    parts = [
        f"{finder}: {group['shared'].mean():.0%} of the atoms have a partner with cosine above .9 in the other seed "
        f"(mean {group['agreement'].mean():.2f}, chance {group['chance'].mean():.2f})"
        for finder, group in pairs.groupby("finder")
    ]
    text = "What another seed would find again. " + "; ".join(parts) + "."
    return Section("Agreement between seeds", [Paragraph(text), draw_agreement(pairs, look)])


def _recovery(results: Results, table: pd.DataFrame, look: Look) -> Section:
    frame = table[(table["world"] == "matched") & table["own"]].copy()
    frame["at"] = frame["samples"] == frame["samples"].max()
    lines = summary(frame)
    names = [
        "finder",
        "samples",
        "dictionary_mcc",
        "dictionary_mcc_chance",
        "found",
        "mcc",
        "mcc_chance",
        "fvu",
        "l0",
    ]
    halves = [f"{name}_half" for name in ("dictionary_mcc", "found", "mcc", "fvu", "l0") if f"{name}_half" in lines]
    notes = (
        "found: share of true atoms with a found atom of their own at cosine above .9. Chance levels are measured."
    )
    text = (
        "The same finders on a world whose truth is known and that is matched to these data: same width, number of "
        "features, spectrum, firing rates, amplitudes and unexplained variance. Its latents fire independently and "
        "its atoms point in random directions, which real features need not do, so read recovery here as what to "
        "hope for, not as what was reached."
    )
    blocks: list[Block] = [Paragraph(text), recovery(frame, look)]
    blocks.append(DataTable(lines[[*names, *halves]], "Recovery on the matched world.", FORMATS, notes, LABELS))
    if results.store.whole_features(tried_world(results)[1]) is not None:
        blocks.append(match_figures(results))
    return Section("Trust: recovery where the truth is known", blocks)


def match_figures(results: Results) -> Figure:
    """How the matched world resembles the data: eigenvalues of the covariance, and firing rates, side by side.

    Rates are those of the fit that the world was matched to.
    """
    world, cell = tried_world(results)
    features = results.store.features(cell)
    if features is None:
        raise UsageError(f"{results.store.root}: the fit of {cell.label} is missing; fit again")
    h = gather(data_split(results).train, 16384, Stream(0).child("report"))
    drawn = world.sample(len(h), Stream(0).child("report"))
    rates = features.encode(h).firing().double() / len(h)
    matched = (drawn.z != 0).double().mean(0)
    figures = spectrum(_spectrum(h), _spectrum(drawn.h)), firing_rates(rates.numpy(), matched.numpy())
    return beside(*figures)


def _spectrum(h: torch.Tensor) -> np.ndarray:
    values = torch.linalg.eigvalsh(torch.cov(h.double().T)).flip(0)
    return values[values > 1e-7 * values[0]].numpy()  # constant columns have no eigenvalue but rounding


def _synthetic(table: pd.DataFrame) -> Section:
    lines = summary(table)
    wanted = ("world", "samples", "finder", "encoder", "seeds", "l0", "fvu", "mcc", "dictionary_mcc", "found")
    shown = [name for name in wanted if name in lines]
    shown += [f"{name}_half" for name in ("fvu", "mcc", "dictionary_mcc", "found") if f"{name}_half" in lines]
    chance = {n: lines[f"{n}_chance"].mean() for n in ("mcc", "dictionary_mcc") if f"{n}_chance" in lines}
    notes = "Chance: " + ", ".join(f"{LABELS[name]} {value:.3f}" for name, value in chance.items()) + "."
    return Section("Worlds whose truth is known", [DataTable(lines[shown], "", FORMATS, notes, LABELS)])


def _costs(table: pd.DataFrame, look: Look, command: str) -> Section:
    return Section("Costs", [costs(table, look), Paragraph("To make this page again:"), Code(command)])
