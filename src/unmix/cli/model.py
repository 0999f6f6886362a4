"""Verbs that look at features inside the model and beside what is known of the rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from unmix.cli.shared import Csv, DryRun, Options, Run, tell, tell_costs
from unmix.core.errors import UsageError

Labels = Annotated[
    str | None,
    typer.Argument(metavar="[LABELS]", help="One label a row: .npy, or .csv[:COLUMN]; default those of the rows."),
]
Pattern = Annotated[str | None, typer.Option(help="A regular expression over the text, in place of LABELS.")]
On = Annotated[str, typer.Option("--on", help="What --pattern searches: each token, or the text across tokens.")]
WHERE = ("finder", "seed", "encoder", "model", "data", "labels")


def downstream(run: Run, options: Options = None, dry_run: DryRun = False) -> None:
    """What the model loses when codes replace the activation: unmix downstream run/ finder=TopKSAE tokens=8192"""
    given = _given(options, (*WHERE, "tokens"))
    from unmix.core.watch import Progress
    from unmix.study.downstream import downstream as measure
    from unmix.study.downstream import estimate

    if dry_run:
        tell_costs(estimate(run, **given))
        return
    tell(str(measure(run, **given, watch=Progress("downstream"))))


def steer(
    run: Run,
    feature: Annotated[int, typer.Argument(help="Number of the feature.")],
    options: Options = None,
    amount: Annotated[float | None, typer.Option(help="Add so much of the atom, in the units of the codes.")] = None,
    value: Annotated[float | None, typer.Option(help="Set the feature's code to this.")] = None,
    ablate: Annotated[bool, typer.Option("--ablate", help="Set the code to 0 where the feature fires.")] = False,
    control: Annotated[str, typer.Option(help="Beside it: random directions, or other features.")] = "random",
    dry_run: DryRun = False,
) -> None:
    """Change one feature in the model and measure the effect: unmix steer run/ 17 --amount 8 draws=20 tokens=4096"""
    given = _given(options, (*WHERE, "tokens", "draws"))
    from unmix.core.watch import Progress
    from unmix.study.downstream import estimate
    from unmix.study.steering import steer as change

    if dry_run:
        # As it is, with the feature changed, and once for each control.
        tell_costs(estimate(run, runs=2 + given.pop("draws", 20), **{"tokens": 4096, **given}))
        return
    watch = Progress("steer")
    tell(str(change(run, feature, amount, value, ablate, control, **given, watch=watch)))  # type: ignore[arg-type]


def concepts(
    run: Run,
    labels: Labels = None,
    options: Options = None,
    pattern: Pattern = None,
    on: On = "token",
    csv: Csv = None,
) -> None:
    """Features ranked by how well each alone tells a concept: unmix concepts run/ --pattern '^ ?[A-Z]' top=10"""
    labels, words = _labels_first(labels, options)
    given = _given(words, ("finder", "seed", "top", "limit", "draws"))
    from unmix.study.concepts import concepts as search

    frame = search(run, labels, pattern, on, **given)  # type: ignore[arg-type]
    _show(frame, csv, [] if frame["name"].any() else ["name"])


def probe(
    run: Run,
    labels: Labels = None,
    options: Options = None,
    pattern: Pattern = None,
    on: On = "token",
    csv: Csv = None,
) -> None:
    """k-sparse probes on the codes, beside the rows and random atoms: unmix probe run/ labels.npy k=1,5,none

    Of a run of unmix learn: linear and nearest-neighbour probes of every representation, learner=Diet seed=0;
    trust=my.module where it built a network of your own.
    """
    labels, words = _labels_first(labels, options)
    if any((run / "learned").glob("*.json")) and not (run / "cells").is_dir():
        from unmix.study.probing import probe_learned, shown

        given = _given(words, ("learner", "seed", "trust"))
        given["trust"] = frozenset([str(given["trust"])] if "trust" in given else [])
        if pattern is not None:
            raise UsageError(f"pattern={pattern}: is for tokens of text; give LABELS")
        found = probe_learned(run, labels, **given)
        if csv is None:
            tell(shown(found))
        else:
            _show(found, csv, [])
        return
    from unmix.core.options import finish, parse, take

    parsed = parse(words or [])
    fields = {name: tuple(parsed.pop(key)) for key, name in (("k", "active"), ("C", "strengths")) if key in parsed}
    if "select" in parsed:
        fields["select"] = take(parsed, "select", Any, None)
    given = {key: take(parsed, key, Any, None) for key in ("finder", "seed", "limit") if key in parsed}
    finish(parsed, ["k", "C", "select", "finder", "seed", "limit"])
    from unmix.scores.probes import SparseProbe
    from unmix.study.concepts import probe as measure

    frame = measure(run, labels, pattern, on, recipe=SparseProbe(**fields), **given)  # type: ignore[arg-type]
    _show(frame, csv, ["chosen", "converged"])


def _given(options: list[str] | None, known: tuple[str, ...]) -> dict[str, Any]:
    """One value for each option; raises `UsageError` for another option or several values."""
    from unmix.core.options import finish, parse, take

    parsed = parse(options or [])
    found = {key: take(parsed, key, Any, None) for key in known if key in parsed}
    finish(parsed, known)
    return found


def _labels_first(labels: str | None, options: list[str] | None) -> tuple[str | None, list[str]]:
    """LABELS may be left out before key=value words."""
    words = list(options or [])
    if labels is not None and "=" in labels and not Path(labels).exists():
        return None, [labels, *words]
    return labels, words


def _show(frame: Any, csv: Path | None, hidden: list[str]) -> None:
    if csv is None:
        tell(frame.drop(columns=hidden).to_string(index=False, float_format="{:.3g}".format, na_rep=""))
        return
    from unmix.study.export import write_table

    tell(str(write_table(frame, csv)))
