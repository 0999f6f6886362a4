"""Verbs for practice: explain features, choose a recipe, match features of two fits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from unmix.cli.shared import (
    OF_DATA,
    Csv,
    DataArgument,
    DryRun,
    EngineName,
    Options,
    Out,
    Run,
    engine_of,
    tell,
    tell_costs,
    world_of,
)
from unmix.core.errors import UsageError

SHOWN = 20


def explain(run: Run, options: Options = None, csv: Csv = None) -> None:
    """Explain features of text and score the words: unmix explain run/ finder=TopKSAE features=50 judge=TokenJudge"""
    from unmix.core.options import finish, parse, recipes, take
    from unmix.scores.autointerp import AutoInterp
    from unmix.scores.judging import JUDGES

    given = parse(options or [])
    finders, seed = take(given, "finder", list[str | None], [None]), take(given, "seed", int | None, None)
    rng = take(given, "rng", int, 0)
    controls = [
        name for name in take(given, "controls", list[str | None], ["random", "shuffled"]) if name is not None
    ]
    judges = recipes(JUDGES, "judge", given, ["TokenJudge"])
    if len(judges) != 1:
        raise UsageError(f"judge: one at a time, got {len(judges)}; run once for each")
    if csv is not None and len(finders) > 1:
        raise UsageError(f"--csv: one finder at a time, got {len(finders)}; run once for each")
    only = tuple(take(given, "feature", list[int], []))
    fields = [name for name in AutoInterp.model_fields if name not in ("judge", "only")]
    chosen = {name: take(given, name, Any, None) for name in fields if name in given}
    finish(given, ["finder", "seed", "feature", "judge", "judge.FIELD", "controls", "rng", *fields])
    from unmix.study.explain import explain as explained

    recipe = AutoInterp(judge=judges[0], only=only, **chosen)
    made = [explained(run, finder, seed, recipe, controls, rng) for finder in finders]
    for one in made:
        _show(one.table(), csv, {"explanation": 90})
        tell("")
        _show(_folded(one.summary()), None, {})
        tell(f"\n{one.sentence}\nwritten  {one.path}")
    if len(made) == 2:
        from unmix.scores.autointerp import paired_difference

        difference = paired_difference(made[0].found, made[1].found, recipe.task)
        low, high = difference.interval
        tell(
            f"{made[0].label} minus {made[1].label}, {recipe.task}, features paired by firing rate: "
            f"{difference.value:+.3f} [{low:+.3f}, {high:+.3f}] over {len(difference.detail['pairs'])} pairs"
        )


def choose(
    data: DataArgument,
    options: Options = None,
    out: Out = Path("run"),
    engine: EngineName = "serial",
    dry_run: DryRun = False,
) -> None:
    """Suggest a recipe by held-out bits a row: unmix choose acts/ finder.width=256,512 finder.k=8,16 -o run/

    Writes choose.csv and choose.html with the curves. Several samples= add a learning curve of the suggestion.
    """
    from unmix.core.options import Count, finish, parse, recipes, take
    from unmix.finders import FINDERS

    given = parse(options or [])
    seeds, samples = take(given, "seed", list[int], [0]), take(given, "samples", list[Count | None], [None])
    distortion, test = take(given, "distortion", float, 0.01), take(given, "test", int, 8192)
    world = world_of(data, given)
    finders = recipes(FINDERS, "finder", given, ["TopKSAE"])
    known = ["finder", "finder.FIELD", "KIND.FIELD", "transform", "seed", "samples", "distortion", "test"]
    finish(given, [*known, *OF_DATA])
    if dry_run:
        from unmix.study.verbs import estimate

        largest = None if None in samples else max(samples)
        tell_costs(estimate(world, finders, seeds, largest))
        return
    from unmix.study.choose import choose as suggest

    choice = suggest(world, finders, out, seeds, samples, engine_of(engine), test, distortion)
    table = choice.table
    shown = table.drop(columns=["near", "suggested"] + (["agreement", "chance", "shared"] if len(seeds) < 2 else []))
    shown.insert(0, "", ["*" if line else "" for line in table["suggested"]])
    _show(shown, None, {"recipe": 60}, every=True)
    tell(f"\n{choice.sentence}")
    if choice.curve is not None:
        tell("")
        _show(choice.curve.table, None, {}, every=True)
        tell(f"\n{choice.curve.sentence}")
    from unmix.report.choose import choice_page

    page = choice_page(choice, out / "choose.html", " ".join(["unmix choose", data, *(options or []), f"-o {out}"]))
    tell(f"written  {out / 'choose.csv'}\nreport   {page}")


def match(
    run_a: Annotated[Path, typer.Argument(metavar="RUN_A", help="A run folder.")],
    run_b: Annotated[Path, typer.Argument(metavar="RUN_B", help="Another, or the same.")],
    options: Options = None,
    same_rows: Annotated[
        bool, typer.Option("--same-rows", help="Row i of both is the same datum, though nothing in the data says so.")
    ] = False,
    csv: Csv = None,
) -> None:
    """Match features of two fits by atoms or codes: unmix match run/ run/ seed=0,1; unmix match layer3/ layer5/"""
    from unmix.core.options import finish, parse, take

    given = parse(options or [])
    finders, seeds = _two(given, "finder", str | None), _two(given, "seed", int | None)
    hints = {"by": str, "above": float | None, "limit": int, "rng": int}
    chosen = {name: take(given, name, hint, None) for name, hint in hints.items() if name in given}
    finish(given, ["finder", "seed", *hints])
    from unmix.core.watch import Progress
    from unmix.study.matching import match_runs

    found, labels = match_runs(run_a, run_b, finders, seeds, same_rows=same_rows, watch=Progress("match"), **chosen)
    table = found.table
    _show(table.reindex(table["similarity"].abs().sort_values(ascending=False, kind="stable").index), csv, {})
    tell(f"\nA {labels[0]}, B {labels[1]}: {found.sentence}")


def _folded(summary: Any) -> Any:
    """The table of explanations with each interval beside its mean."""
    folded = summary[["what", "features"]].copy()
    for task in ("detect", "fuzz"):
        parts = zip(summary[task], summary[f"{task}_low"], summary[f"{task}_high"], strict=True)
        folded[f"{task} F1"] = [
            f"{mean:.2f}" if low != low else f"{mean:.2f} [{low:.2f}, {high:.2f}]" for mean, low, high in parts
        ]
        folded[f"{task} acc."] = summary[f"{task}_accuracy"]
    return folded


def _two(given: dict[str, list[Any]], key: str, hint: Any) -> tuple[Any, Any]:
    """An option's value for A and for B; one value is for both."""
    from unmix.core.options import take

    values = take(given, key, list[hint], [None])
    if len(values) > 2:
        raise UsageError(f"{key}: one value, or one for each side, got {len(values)}")
    return values[0], values[-1]


def _show(frame: Any, csv: Path | None, widths: dict[str, int], every: bool = False) -> None:
    """Print the first lines of a table, long texts cut; or write all of it."""
    if csv is not None:
        from unmix.study.export import write_table

        tell(str(write_table(frame, csv)))
        return
    shown = frame if every else frame.head(SHOWN)
    for name, width in widths.items():
        shown = shown.assign(**{name: [t if len(t) <= width else t[: width - 3] + "..." for t in shown[name]]})
    tell(shown.to_string(index=False, float_format="{:.3g}".format, na_rep=""))
    if len(shown) < len(frame):
        tell(f"... and {len(frame) - len(shown):,} more; --csv FILE writes all")
