"""The page of the study: written like the results section of a paper, from what the run folder holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from unmix.core.paper_flops import sparse_coding_training
from unmix.papers.amortisation import claims as claim
from unmix.papers.amortisation import real
from unmix.papers.amortisation.real_page import real_claims, real_section
from unmix.papers.amortisation.recovery import CERTIFIED, FULL, JOINT, frame, steps
from unmix.papers.amortisation.shown import FORMATS, LABELS, UNITS
from unmix.papers.amortisation.theory import map_rank
from unmix.papers.pages import narrow, publish
from unmix.papers.parts import results as part_results
from unmix.report.page import Block, DataTable, Figure, Paragraph, Section, beside
from unmix.report.published import beside_published, curves, ranked, summarised
from unmix.study.study import Results


def write(study: Any, folder: Path, results: Results, reports: Sequence[real.Representation], small: bool) -> Path:
    """Write claims.json and the page; returns the page's path."""
    cells = frame(results)
    parts = list(part_results(folder, study.parts(small)))
    known = _known(parts)
    theory = _theory(parts, results)
    base = _base(cells, study.training)
    found: list[dict[str, Any]] = []
    sections: list[Section] = []
    if len(base):
        found += claim.settings_claims(known, base, _caveat(study.training), _spread(parts))
        sections += [_settings(known, base), _costs(base)]
    if "sizes" in study.sections:
        share = study.training * (0.25 if small else 1)
        found += claim.size_claims(cells[~cells.index.isin(base.index)], _caveat(share))
        sections.append(_sizes(cells))
    if "weights" in study.sections:
        sections.append(_weights(cells))
    if "theory" in study.sections:
        found += claim.theory_claims(*theory)
        sections.append(_theorem(*theory, results))
    for report in reports:
        found += real_claims(report)
        sections.append(real_section(report))
    lead = f"Sparse autoencoders beside sparse coding, after {study.reference}"
    methods, headline = _methods(study, small), claim.headline(found, base)
    return publish(
        study, folder, small, "The amortisation gap", lead, headline, sections, methods, found, CLAIMS_NOTE
    )


CLAIMS_NOTE = (
    f"A number replicates when the mean over seeds lies within {claim.CLOSE} of the published one; it differs "
    "when it does not and the 95 % interval over seeds leaves the published one out as well. Such claims stay in."
)


def _caveat(share: float) -> str:
    return "" if share == 1 else f"{share:.0%} of the paper's training steps"


def _base(cells: pd.DataFrame, training: float) -> pd.DataFrame:
    """The cells at (16, 8, 3) with the paper's penalty and the whole training."""
    if cells.empty:
        return cells
    size = (cells["latents"] == 16) & (cells["width"] == 8) & (cells["active"] == 3)
    ours = cells["method"] == CERTIFIED
    theirs = (cells["weight"] == 0.01) & (cells["steps"] == steps(FULL, training))
    return cells[size & (ours | theirs)]


def _known(parts: Sequence[tuple[Any, Any]]) -> pd.DataFrame:
    rows = []
    for part, result in parts:
        name = part.function.rpartition(":")[2]
        settings = part.settings
        if name == "known_codes":
            row = {"setting": "codes known", "method": _network(settings["hidden"]), "value": result["correlation"]}
        elif name == "known_dictionary":
            if settings.get("dictionary"):
                continue
            row = {"setting": "dictionary known", "method": _network(settings["hidden"]), "value": result["mcc"]}
        elif name == "known_dictionary_solved":
            row = {
                "setting": "dictionary known",
                "method": settings["encoder"]["kind"],
                "value": result["mcc"],
                "exact": result["exact support"],
                "encode_flops": result["flops"],
            }
        else:
            continue
        rows.append({**row, "seed": settings["seed"]})
    return pd.DataFrame(rows, columns=["setting", "method", "seed", "value", "exact", "encode_flops"])


def _spread(parts: Sequence[tuple[Any, Any]]) -> dict[str, list[float]]:
    """Method -> code MCC on several dictionaries that are known, at the first seed."""
    found: dict[str, list[float]] = {}
    runs = [(part.settings, result["mcc"]) for part, result in parts if part.function.endswith(":known_dictionary")]
    first = min((settings["seed"] for settings, _ in runs), default=0)
    for settings, value in runs:
        if settings["seed"] == first:
            found.setdefault(_network(settings["hidden"]), []).append(value)
    return found


def _network(hidden: int | None) -> str:
    return "SAE" if hidden is None else f"MLP {hidden}"


def _theory(parts: Sequence[tuple[Any, Any]], results: Results) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    ceilings = [result for part, result in parts if part.function.endswith(":ceiling")]
    moves = [line for part, result in parts if part.function.endswith(":transition") for line in result]
    ranks = []
    for cell, _ in results.cells():
        linear = cell.finder.kind == "SAE" and cell.finder.encoder.kind == "Linear"
        if (
            linear
            and cell.encoder is None
            and cell.world.kind == "SparseWorld"
            and cell.world.width < cell.world.latents
        ):
            features = results.store.features(cell)
            if features is not None:
                ranks.append(
                    {"width": cell.world.width, "latents": cell.world.latents, **map_rank(features, cell.world)}
                )
    ranks = [row for row in ranks if row["width"] == 8 and row["latents"] == 16]
    return pd.DataFrame(ceilings), pd.DataFrame(ranks), pd.DataFrame(moves)


def _settings(known: pd.DataFrame, base: pd.DataFrame) -> Section:
    panels = []
    tables = {"codes known": claim.KNOWN_CODES, "dictionary known": claim.KNOWN_DICTIONARY}
    for setting, table in tables.items():
        rows = known[known["setting"] == setting].copy()
        rows["published"] = rows["method"].map(table)
        rows["chance"] = float("nan")
        axis = "correlation with the true codes" if setting == "codes known" else "code MCC"
        panels.append(beside_published(rows, setting.capitalize(), axis))
    own = base[base["encoder"] == "own"]
    for score, title, table in (
        ("mcc", "Both unknown: codes", claim.CODES),
        ("dictionary_mcc_paper", "Both unknown: dictionary", claim.ATOMS),
    ):
        rows = own.assign(value=own[score], published=own["method"].map(table), chance=own[f"{score}_chance"])
        panels.append(beside_published(rows, title, "code MCC" if score == "mcc" else "paper's dictionary score"))
    joined = beside(*panels)
    caption = (
        "The three settings at N = 16 latents, M = 8 dimensions, K = 3 active, 1,024 rows to fit on and 1,024 to "
        "score. "
        "Solid: mean over seeds; pale: single seeds; diamonds: what the authors' files hold; grey bars: chance, "
        "the score "
        "of unrelated codes or dictionaries of the same size."
    )
    values = ("l0", "fvu", "mcc", "dictionary_mcc", "dictionary_mcc_chance", "dictionary_mcc_paper")
    lines = _narrow(summarised(base, ("method", "encoder"), values), "mcc", "dictionary_mcc", "dictionary_mcc_paper")
    solved = _narrow(
        summarised(known[known["exact"].notna()], ("method",), ("value", "exact", "encode_flops")), "value"
    )
    blocks: list[Block] = [
        Paragraph(_told(known, base)),
        Figure(joined.svg, caption),
        DataTable(lines, "Both unknown, every dictionary under several encoders.", FORMATS, "", LABELS, UNITS),
    ]
    if len(solved):
        labels = {**LABELS, "value": "code MCC", "exact": "exact support"}
        formats = {**FORMATS, "exact": ".0%", "value": ".3f"}
        blocks.append(DataTable(solved, "The true dictionary under solvers.", formats, "", labels, UNITS))
    return Section("Three settings: codes known, dictionary known, both unknown", blocks)


def _told(known: pd.DataFrame, base: pd.DataFrame) -> str:
    def mean(table: pd.DataFrame, column: str) -> str:
        return "–" if table.empty else f"{table[column].mean():.2f}"  # noqa: RUF001

    dictionary = known[known["setting"] == "dictionary known"]
    sae, lasso = (dictionary[dictionary["method"] == m] for m in ("SAE", "Fista"))
    own, swapped = (base[(base["method"] == "SAE") & (base["encoder"] == e)] for e in ("own", "Fista"))
    best = base[(base["method"] == CERTIFIED) & (base["encoder"] == "own")]
    return (
        f"On the true dictionary a linear-nonlinear encoder reaches a code MCC of {mean(sae, 'value')} where the "
        "l1 problem "
        f"solved to a certificate reaches {mean(lasso, 'value')}: that is the amortisation gap. When the "
        "dictionary has to be "
        f"learnt as well, the autoencoder reaches {mean(own, 'mcc')}; solving for the codes on its dictionary gives "
        f"{mean(swapped, 'mcc')}, and a dictionary learnt with exact inference {mean(best, 'mcc')} "
        f"(dictionary MCC {mean(best, 'dictionary_mcc')}, chance {mean(best, 'dictionary_mcc_chance')})."
    )


def _costs(base: pd.DataFrame) -> Section:
    own = base[base["encoder"] == "own"]
    lines = _narrow(summarised(own, ("method",), ("fit_flops", "fit_seconds", "encode_flops", "mcc")), "mcc")
    paper = sparse_coding_training(16, 8, 1024, 40_000)
    text = (
        f"Floating-point operations, multiply and add counted apart, corrected. The paper's own counter gives "
        f"{paper.flops:.2e} "
        f"for its sparse coding where {paper.corrected:.2e} are spent, {paper.overcount:.0f} times as much: it "
        "multiplies by the "
        "number of rows twice. Counted right, its sparse coding costs about as much as its autoencoder."
    )
    table = DataTable(lines, "What training and reading cost at (16, 8, 3).", FORMATS, "", LABELS, UNITS)
    return Section("Costs", [Paragraph(text), table])


def _sizes(cells: pd.DataFrame) -> Section:
    own = cells[(cells["encoder"] == "own") & ((cells["latents"] != 16) | (cells["width"] != 8))]
    own = own.assign(
        size=[f"({n}, {d}, {k})" for n, d, k in zip(own["latents"], own["width"], own["active"], strict=True)]
    )
    values = ("mcc", "dictionary_mcc", "dictionary_mcc_chance", "l0", "fit_flops", "fit_seconds")
    lines = narrow(summarised(own, ("size", "method"), values), "mcc", "dictionary_mcc")
    published = {f"({n}, {d}, {k})": table for (n, d, k), table in claim.SIZES.items()}
    panels = []
    for size, group in own.groupby("size", sort=False):
        table = {method: pair[0] for method, pair in published.get(str(size), {}).items()}
        rows = group.assign(value=group["mcc"], published=group["method"].map(table), chance=group["mcc_chance"])
        panels.append(beside_published(rows, f"(N, M, K) = {size}", "code MCC"))
    caption = "Code MCC at other sizes. Diamonds: published; grey bars: chance."
    blocks: list[Block] = [
        Figure(beside(*panels).svg, caption) if panels else Paragraph("No other size was run."),
        DataTable(
            lines,
            "Other sizes.",
            FORMATS,
            "A dictionary MCC near its chance level says nothing.",
            LABELS,
            UNITS,
        ),
    ]
    return Section("Other sizes", blocks)


def _narrow(lines: pd.DataFrame, *halves: str) -> pd.DataFrame:
    return narrow(lines, *halves).drop(columns="seeds", errors="ignore")


def _weights(cells: pd.DataFrame) -> Section:
    size = (cells["latents"] == 16) & (cells["width"] == 8) & (cells["active"] == 3) & (cells["encoder"] == "own")
    rows = cells[size & cells["method"].isin(["SAE", JOINT])]
    swept = rows[rows.groupby(["method", "steps"])["weight"].transform("nunique") > 1]
    drawn = swept.assign(group=swept["method"], x=swept["weight"], y=swept["mcc"])
    figure = curves(
        drawn,
        "Recovery over the penalty",
        ("weight w of the penalty", "code MCC"),
        "Code MCC at (16, 8, 3) over the weight of the l1 penalty.",
        log=True,
    )
    lines = summarised(swept, ("method", "weight"), ("mcc", "dictionary_mcc", "l0", "fvu")).drop(columns="seeds")
    return Section("The weight of the penalty", [figure, DataTable(lines, "", FORMATS, "", LABELS, UNITS)])


def _theorem(ceilings: pd.DataFrame, ranks: pd.DataFrame, moves: pd.DataFrame, results: Results) -> Section:
    text = (
        "A linear-nonlinear encoder sees the codes only through the map W D from codes to pre-activations, whose "
        "rank is at "
        "most M; to read exact supports on all sparse non-negative codes that map would have to be diagonal, of "
        "rank N. The "
        "supervised encoder below is given the true codes, so what it misses no training of the dictionary can "
        "bring back."
    )
    blocks: list[Block] = [Paragraph(text)]
    panels = []
    if len(ranks):
        spectra = {f"encoder {i}": row["values"] for i, row in enumerate(ranks.to_dict("records"))}
        panels.append(ranked(spectra, "Singular values of W D", "singular value", int(ranks["width"].iloc[0])))
    if len(moves):
        drawn = moves.assign(group=[f"M = {w}" for w in moves["width"]], x=moves["active"], y=moves["share"])
        panels.append(
            curves(drawn, "Exact recovery by basis pursuit, N = 100", ("active codes K", "share of trials"))
        )
    if panels:
        caption = (
            "Left: the trained encoders at (16, 8, 3) have exactly M = 8 singular values above zero. Right: "
            "non-negative "
            "basis pursuit gives sparse codes back exactly below a threshold in K, with M = 25 or 50 dimensions."
        )
        blocks.append(Figure(beside(*panels).svg, caption))
    if len(ceilings):
        named = ceilings.assign(dictionary=["M < N" if s < 1 else "M = N, orthogonal" for s in ceilings["share"]])
        lines = summarised(named, ("dictionary",), ("encoder", "lasso", "linear_r2", "share"))
        lines = narrow(lines, "encoder", "lasso", "linear_r2")
        labels = {
            "encoder": "supervised encoder, MCC",
            "lasso": "lasso on D, MCC",
            "linear_r2": "R2 of the best linear decoder",
            "share": "M / N",
            "seeds": "dictionaries",
        }
        blocks.append(DataTable(lines, "The ceiling of one linear-nonlinear pass.", {}, "", labels))
    return Section("The theorem, in numbers", blocks)


def _methods(study: Any, small: bool) -> dict[str, Any]:
    return {
        "source": study.reference,
        "seeds": ", ".join(str(seed) for seed in study.chosen_seeds(small)),
        "paper's methods": "no biases, rows as they are, 1,024 rows in one batch, Adam; 20,000 steps where codes "
        "or dictionary "
        "are known, 40,000 where both are not; w = 0.01 on the mean of the codes beside the mean squared error",
        "sparse coding (certified)": "non-negative l1 problem solved to a duality gap in alternation with block "
        "coordinate "
        "descent of the atoms; three restarts, chosen by the objective on the training rows",
        "scores": "code MCC: mean |correlation| under the best one-to-one matching; dictionary MCC: mean "
        "|cosine|; paper's "
        "score: greedy matching by |correlation| over coordinates, as in the authors' code",
        "not repeated": "activations of GPT-2 small on 410 million tokens, and its judge",
    }
