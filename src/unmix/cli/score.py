"""The verb that scores arrays: true latents beside codes or a representation."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unmix.cli.shared import Csv, Options, columns_of, tell, to_write
from unmix.core.errors import UsageError

if TYPE_CHECKING:
    from unmix.scores.base import Outcome
    from unmix.study.scoring import Scored

COLUMNS = (
    "value: how alike a feature's exciting images are; chance: sets of random images; z: value less chance in "
    "standard deviations of such sets, mean over features; few: features left out, active on fewer images than a set "
    "has; beside: z less the neurons'; significant: share of features with q < .05 (false discovery rate over the "
    "features of the basis); unique: share of different images among those of all features."
)
WORDS = ("similarity", "count", "draws", "finder", "seed")


def score(
    latents: Annotated[
        Path | None, typer.Option(help="True latents [n, f]: .npy, .npz:KEY, .safetensors:KEY or a table.")
    ] = None,
    codes: Annotated[
        Path | None, typer.Option(help="Codes or a representation [n, m], rows in the same order.")
    ] = None,
    metrics: Annotated[
        str, typer.Option(help="Names of scores, such as r2,mcc, or all; default mcc and r2 in one line each.")
    ] = "",
    factors: Annotated[
        str | None,
        typer.Option(help='Kinds of the latents: "x:continuous,shape:categorical,angle:circular", or a .json file.'),
    ] = None,
    x: Annotated[Path | None, typer.Option(help="Raw observations [n, ...], a baseline.")] = None,
    untrained: Annotated[
        Path | None,
        typer.Option(help="The network's representation before training [n, d], a baseline."),
    ] = None,
    group: Annotated[
        Path | None, typer.Option(help="Sequence of each row [n], such as a.csv:COLUMN; none is split.")
    ] = None,
    csv: Csv = None,
    json: Annotated[
        Path | None, typer.Option(help="Write values and details as .json.", callback=to_write(".json"))
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option(
            help="Draw the matching of codes and factors: .html or .svg.", callback=to_write(".html", ".svg")
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the shuffles, splits and the bootstrap.")] = 0,
    run: Annotated[
        Path | None, typer.Argument(metavar="[RUN]", help="A run over images: how interpretable its features are.")
    ] = None,
    options: Options = None,
) -> None:
    """Score codes against true latents, or a run over images: unmix score run/ similarity=OrientedEnergy count=5

    Two arrays: --latents z.npy --codes h.csv (codes.drop=id leaves a column of a table out). A run: how interpretable
    every basis is on held-out images, beside its controls, and every feature; options similarity (a name, or a file
    with an embedding of all images of the run), count, draws, finder, seed; --untrained ACTS is one more control.
    """
    if run is not None and "=" in run.name and not run.exists():
        run, options = None, [str(run), *(options or [])]
    if run is not None:
        if latents is not None or codes is not None:
            raise UsageError(f"{run}: give a run, or --latents and --codes")
        _interpret(run, options, untrained, csv)
        return
    if latents is None or codes is None:
        raise UsageError("score: give --latents and --codes, or a run folder: unmix score run/")
    from unmix.activations.arrays import open_column
    from unmix.core.options import finish, parse
    from unmix.core.store import write_json
    from unmix.study.export import write_table
    from unmix.study.scoring import DEFAULT, scored

    words = parse(options or [])
    paths = {"latents": latents, "codes": codes, "x": x, "untrained": untrained}
    read = {name: _read(path, name, words) for name, path in paths.items() if path is not None}
    finish(words, [f"{name}.drop" for name in paths])
    given = {name: read.get(name) for name in ("x", "untrained")}
    number = None if group is None else open_column(group, "group")
    z, h = read["latents"], read["codes"]
    found = scored(z, h, metrics or DEFAULT, factors, **given, group=number, seed=seed)
    if metrics:
        tell(shown(found))
    else:
        for name, outcome in found.outcomes.items():
            beside = outcome.detail.get("baselines") or {}
            tell(f"{name}  {outcome}" + "".join(f"; {key} {_pair(part)}" for key, part in beside.items()))
        for note in found.notes:
            tell(note)
    if csv is not None:
        tell(f"table  {write_table(found.table(), csv)}")
    if json is not None:
        write_json(json, found.as_dict())
        tell(f"json  {json}")
    if figure is not None:
        drawn = (
            found if "typed_mcc" in found.outcomes else scored(z, h, "typed_mcc", factors, group=number, seed=seed)
        )
        _draw(figure, drawn.outcomes["typed_mcc"], factors, f"--latents {latents} --codes {codes}", shown(found))
        tell(f"figure  {figure}")


def _interpret(run: Path, options: list[str] | None, untrained: Path | None, csv: Path | None) -> None:
    """Interpretability of a run's features over its images."""
    from unmix.core.options import finish, parse, take

    given = parse(options or [])
    fields = {name: take(given, name, Any, None) for name in WORDS if name in given}
    finish(given, WORDS)
    from unmix.core.named import typed
    from unmix.study.export import write_table
    from unmix.study.interpretable import over_splits
    from unmix.study.interpreting import interpret, similarity_of, summary

    if "similarity" in fields:
        with typed():
            fields["similarity"] = similarity_of(fields["similarity"])
    found = interpret(run, **fields, untrained=untrained)
    means = over_splits(found.bases)
    named = means[["basis", "read", "features", "few", "value", "chance", "z", "beside", "significant", "unique"]]
    tell(f"interpretability of {found.images} images that no feature was fitted on\n")
    tell(named.to_string(index=False, float_format="{:.3g}".format))
    tell("\n" + textwrap.fill(COLUMNS, 110))
    tell("\n" + "\n".join(textwrap.fill(sentence, 110, subsequent_indent="  ") for sentence in found.told))
    for label, table in found.features.items():
        tell("\n" + textwrap.fill(f"{label}: {summary(table, found.count)}", 110, subsequent_indent="  "))
    if csv is not None:
        tell(f"table  {write_table(found.table(), csv)}")
    tell(f"kept in  {found.folder} (unmix atlas {run} shows them)")


def shown(found: Scored) -> str:
    """A table of the scores, what each means, and why others could not be measured."""
    frame = found.table()
    measured = frame[frame["reason"] == ""]
    head = ["score", "value", "minimum", "95 % interval", "chance", "ceiling"]
    keys = [key for key in ("x", "untrained") if key in measured and measured[key].notna().any()]
    lines = [[*head, *(f"{key} (minimum)" for key in keys)]] if len(measured) else []
    for _, row in measured.iterrows():
        interval = "" if math.isnan(row["low"]) else f"[{row['low']:.4g}, {row['high']:.4g}]"
        numbers = [_number(row[key]) for key in ("value", "minimum")]
        beside = [_pair({"value": row[key], "minimum": row[f"{key}_minimum"]}) for key in keys]
        lines.append([row["score"], *numbers, interval, *(_number(row[k]) for k in ("chance", "ceiling")), *beside])
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    text = [
        "  ".join(c.rjust(w) if place else c.ljust(w) for place, (c, w) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    ]
    wide = max((len(name) for name in frame["score"]), default=0)
    better = {"higher": "", "lower": " (lower is better)", "": " (no merit)"}
    text += [
        "",
        *(_wrapped(row["score"], wide, row["meaning"] + better[row["better"]]) for _, row in measured.iterrows()),
    ]
    if found.notes:
        text += ["", *(textwrap.fill(note, 100, subsequent_indent="  ") for note in found.notes)]
    if found.reasons:
        text += ["", "not measured", *(_wrapped(name, wide, reason) for name, reason in found.reasons.items())]
    return "\n".join(line.rstrip() for line in text)


def _wrapped(name: str, wide: int, text: str) -> str:
    """A name and what is said of it, in lines of at most 100 letters."""
    return textwrap.fill(
        text, 100, initial_indent=f"{name:<{wide}}  ", subsequent_indent=" " * (wide + 2), break_on_hyphens=False
    )


def _draw(path: Path, matched: Outcome, factors: str | None, files: str, table: str) -> None:
    """The matching of `typed_mcc` as one SVG element, or as a page with the scores beside it."""
    from unmix.core.store import write_text
    from unmix.report.association import association
    from unmix.report.page import Code, Page, Section, write_page
    from unmix.study.scoring import factors_of

    names = [f.name for f in factors_of(factors, len(matched.detail["pairs"]))] if factors else ()
    found, chance = f"{matched.value:.3g}", f"{matched.chance:.3g}"
    summary = f"Mean over factors: {found}; random projections of the true factors reach {chance}."
    alone = f"mean of the framed {found}, chance {chance}" if path.suffix == ".svg" else ""
    drawn = association(matched.detail, names, summary, title=alone)
    if path.suffix == ".svg":
        write_text(path, drawn.panels[0] + "\n")
        return
    kinds = f' --factors "{factors}"' if factors else ""
    lead = "Every code beside every true factor, matched one to one by the association that fits the factor's kind."
    verdict = f"Mean association of the matched pairs {found}, where chance is {chance}."
    sections = [Section("Matching", [drawn]), Section("Scores", [Code(table)])]
    write_page(
        path, Page("Codes and factors", lead, verdict, sections, f"unmix score {files}{kinds} --figure {path}")
    )


def _read(path: Path, name: str, given: dict[str, list[Any]]) -> Any:
    from unmix.activations.arrays import open_array
    from unmix.core.rows import gather

    found = open_array(str(path), **columns_of(name, given, labelled=False), option=name)
    return gather(found) if hasattr(found, "blocks") else found


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4g}"


def _pair(part: dict[str, float]) -> str:
    low = part.get("minimum", math.nan)
    return _number(part["value"]) + ("" if math.isnan(low) else f" ({low:.4g})")
