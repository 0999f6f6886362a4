"""Verbs that read: what a run holds, tables, pages, atlases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unmix.cli.shared import TABLES, Csv, Run, tell, tell_results, to_write
from unmix.core.errors import UsageError


def status(run: Run) -> None:
    """What a run folder holds: cells and learnt representations, what failed, was interrupted or is harmed."""
    from unmix.study.holdings import Holdings

    tell("\n".join(Holdings(run).lines()))


def table(run: Run, csv: Csv = None) -> None:
    """The results of a run as a table: one row for every cell, and for every learnt representation."""
    from unmix.study.export import write_table
    from unmix.study.holdings import Holdings, nothing

    held = Holdings(run)
    frame = held.table()
    if frame.empty and not held.failures:
        raise nothing(run, "cells", f"unmix fit DATA -o {run}")
    if csv is not None:
        tell(str(write_table(frame, csv)))
        return
    if held.learnt:
        from unmix.study.learning import Learned
        from unmix.study.present import show_learned

        show_learned(Learned(run))
    tell_results(held.results)


def export(
    run: Run,
    codes: Annotated[
        Path | None, typer.Option(help="Active codes of all rows, as .csv or .parquet.", callback=TABLES)
    ] = None,
    features: Annotated[
        Path | None, typer.Option(help="One line for each feature, as .csv or .parquet.", callback=TABLES)
    ] = None,
    to: Annotated[str | None, typer.Option(help="Another library's format: saelens. Written to --out.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for --to.")] = None,
    model_name: Annotated[str | None, typer.Option(help="Model the rows came from, for --to.")] = None,
    hook_name: Annotated[str | None, typer.Option(help="Place in the model, for --to.")] = None,
    finder: Annotated[
        str | None, typer.Option(help="Which finder's fit; default the one that explains most.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Which seed.")] = None,
    encoder: Annotated[
        Path | None,
        typer.Option(
            help="Of a run of learn: the encoder as .pt2, which torch.export.load reads.", callback=to_write(".pt2")
        ),
    ] = None,
    learner: Annotated[str | None, typer.Option(help="Whose encoder, where there are several.")] = None,
) -> None:
    """Write the codes and features of a fit as tables, or the fit or a learnt encoder in another library's format."""
    if encoder is not None:
        from unmix.interop.encoder import write_encoder_of

        tell(str(write_encoder_of(run, encoder, learner, seed)))
        return
    from unmix.study.export import codes_table, feature_table, write_table
    from unmix.study.study import Results
    from unmix.study.verbs import chosen

    if codes is None and features is None and to is None:
        raise UsageError(
            "export: say what to write, --codes FILE, --features FILE, --to FORMAT -o FOLDER or --encoder FILE.pt2"
        )
    if (to is None) != (out is None):
        raise UsageError("export: --to FORMAT and --out FOLDER go together")
    _, fitted, rows, _ = chosen(Results(run), finder, seed)
    if to is not None:
        from unmix.interop import WRITERS
        from unmix.interop.maps import of_given_rows

        tell(str(WRITERS[to](of_given_rows(fitted, rows), out, model_name, hook_name)))
    if codes is None and features is None:
        return
    found = fitted.encode(rows)
    if codes is not None:
        tell(str(write_table(codes_table(found), codes)))
    if features is not None:
        tell(str(write_table(feature_table(fitted, found), features)))


def report(
    run: Run,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Page; default RUN/report.html.", callback=to_write(".html")),
    ] = None,
) -> None:
    """Write a run's results as one HTML page."""
    from unmix.report.run import report_run

    tell(f"report  {report_run(run, out)}")


def atlas(
    run: Run,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder; default RUN/atlas.")] = None,
    finder: Annotated[
        str | None, typer.Option(help="Which finder's fit; default the one that explains most.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Which seed.")] = None,
) -> None:
    """Write a static atlas of a fit's features, to open in a browser without a server."""
    from unmix.atlas.run import atlas_run

    tell(f"atlas  {atlas_run(run, out, finder, seed)}")
