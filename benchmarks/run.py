"""Side by side with named peers: python benchmarks/run.py TASK [--quick]; --help lists the tasks.

Every contender lives in a process of its own; one computes at a time, in turn, each after a matrix product (the
probe) that tells how busy the machine is. What is printed are ratios of medians within this run.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TASKS = (
    "topk", "omp", "lasso", "dictionary", "sprites", "disentanglement", "kernel", "exact", "exciting",
    "monosemanticity", "diet_head", "views",
)  # fmt: skip
NOISY = 0.2  # spread of the probe (quartiles over median) above which ratios are not to be trusted
TRIES = 4


class Contender:
    """A worker process and the times it gave."""

    def __init__(self, python: str, task: str, name: str, size: dict) -> None:
        self.arguments = [python, str(HERE / "worker.py"), task, name, json.dumps(size)]
        self.name, self.times, self.probes = name, [], []
        self.reached, self.spent = 0.0, 0.0
        self.facts: dict = {}
        self.error = ""
        self.start()

    def start(self) -> None:
        source = str(HERE.parent / "src")
        environment = {**os.environ, "PYTHONPATH": source, "WANDB_MODE": "disabled", "HF_HUB_OFFLINE": "1"}
        self.process = subprocess.Popen(
            self.arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=environment,
        )  # fmt: skip
        self.error = self.answer().get("error", "")

    def answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            return {"error": f"the process ended with status {self.process.wait()}"}
        return json.loads(line)

    def ask(self, command: str) -> dict:
        if self.error:
            return {}
        try:
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        found = self.answer()
        self.error = found.get("error", "")
        return found

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    @property
    def median(self) -> float:
        return statistics.median(self.times) if self.times else math.nan


def interleave(contenders: list[Contender], rounds: int, budget: float) -> None:
    begun = time.monotonic()
    for number in range(rounds + 1):
        for contender in contenders:
            probe = contender.ask("probe").get("seconds")
            found = contender.ask("run")
            if number and "seconds" in found:  # the first turn compiles and fills caches
                contender.times.append(found["seconds"] / found.get("units", 1))
                contender.probes.append(probe)
        if number >= 3 and time.monotonic() - begun > budget:
            break


def race(contenders: list[Contender], target: float, budget: float) -> None:
    """Turns until each has reached the target or spent its budget."""
    for contender in contenders:
        contender.ask("warm")
    while True:
        running = [c for c in contenders if not c.error and c.reached < target and c.spent < budget]
        if not running:
            break
        for contender in running:
            probe = contender.ask("probe").get("seconds")
            found = contender.ask("run")
            if "seconds" in found:
                contender.probes.append(probe)
                contender.spent += found["seconds"]
                contender.reached = found["reached"]
    for contender in contenders:
        if contender.reached >= target:
            contender.times = [contender.spent]
        elif not contender.error:
            contender.error = f"reached {contender.reached:.3f} after {contender.spent:.0f} s"


def retry_wrong(task, contenders: list[Contender], rounds: int) -> dict[str, str]:
    """Check results; a peer that is wrong gets a fresh process a few times before it is set aside."""
    for attempt in range(TRIES):
        checks = {c.name: (c.facts if c.error else c.ask("check")) for c in contenders}
        for contender in contenders:
            contender.facts = {**contender.facts, **checks[contender.name]}
        wrong = task.verify({c.name: c.facts for c in contenders if not c.error})
        again = [c for c in contenders if c.name in wrong and not c.name.startswith("unmix")]
        if not again or attempt == TRIES - 1:
            return {name: f"{why} (in each of {attempt + 1} processes)" for name, why in wrong.items()}
        for contender in again:
            print(f"  {contender.name}: {wrong[contender.name]}; trying a fresh process", flush=True)
            contender.end()
            contender.times, contender.probes, contender.facts = [], [], {"retries": attempt + 1}
            contender.start()
        interleave(again, rounds, 60.0)
    raise AssertionError("unreachable")


def measure(name: str, size_name: str, size: dict, options: argparse.Namespace) -> dict:
    sys.path.insert(0, str(HERE))
    task = importlib.import_module(f"tasks.{name}")
    size = {**size, "threads": options.threads}
    print(f"\n{name} {size_name}: " + ", ".join(f"{key} {value}" for key, value in size.items()), flush=True)
    # All run where the peers do, so that all share one torch.
    python = options.peers if Path(options.peers).exists() else sys.executable
    contenders = []
    for contender in task.CONTENDERS:
        if options.only and contender not in options.only and not contender.startswith("unmix"):
            continue
        contenders.append(Contender(python, name, contender, size))
    if getattr(task, "CUMULATIVE", False):
        race(contenders, size["target"], size["budget"])
    else:
        interleave(contenders, options.rounds, options.budget)
    wrong = retry_wrong(task, contenders, options.rounds)
    for contender in contenders:
        contender.end()
    return report(task, name, size_name, size, contenders, wrong)


def report(task, name: str, size_name: str, size: dict, contenders: list[Contender], wrong: dict[str, str]) -> dict:
    by_name = {c.name: c for c in contenders}
    own, floor = by_name["unmix"], by_name.get(task.FLOOR)
    print(f"  {'contender':<22} {'ms a ' + task.UNIT:>12} {'x floor':>8} {'unmix is':>13}  result")
    for c in contenders:
        if c.error or c.name in wrong:
            print(f"  {c.name:<22} {'-':>12} {'-':>8} {'-':>13}  {c.error or wrong[c.name]}")
            continue
        share = f"{c.median / floor.median:8.2f}" if floor and floor.times else f"{'':>8}"
        ratio = "" if c in (own, floor) else f"{c.median / own.median:6.2f}x faster"
        facts = ", ".join(f"{k} {v:.4g}" for k, v in c.facts.items())
        print(f"  {c.name:<22} {1e3 * c.median:12.4g} {share} {ratio:>13}  {facts}")
    spread, steady = probe_spread(contenders)
    verdicts = []
    for goal_size, goals in task.GOALS.items():
        for contender, other, wanted in goals:
            if goal_size not in ("", size_name) or size_name not in task.SIZES:
                continue
            pair = by_name[contender], by_name.get(other)
            if pair[1] is None or any(c.error or c.name in wrong or not c.times for c in pair):
                continue
            found = pair[1].median / pair[0].median
            verdicts.append({"contender": contender, "other": other, "ratio": found, "wanted": wanted})
            if other == task.FLOOR:
                text = f"{contender} takes {1 / found:.2f} x the {other} (at most {1 / wanted:.2f})"
            else:
                text = f"{contender} is {found:.2f} x as fast as {other} (at least {wanted:.2f})"
            print(f"  {'reached' if found >= wanted else 'MISSED '}  {text}")
    if not steady:
        print(f"  the probe varied by {spread:.0%}: the machine was too noisy to tell; run again when it is quiet")
    return {
        "task": name,
        "size": {"name": size_name, **size},
        "unit": task.UNIT,
        "contenders": {
            c.name: {
                "seconds": c.times,
                "median": None if math.isnan(c.median) else c.median,
                "probe": c.probes,
                "facts": {k: v for k, v in c.facts.items() if not isinstance(v, float) or math.isfinite(v)},
                "left out": c.error or wrong.get(c.name),
            }
            for c in contenders
        },
        "goals": verdicts,
        "probe spread": spread,
        "quiet": steady,
    }


def probe_spread(contenders: list[Contender]) -> tuple[float, bool]:
    """Distance of the quartiles of all probes over their median, and whether that is little enough."""
    probes = sorted(probe for c in contenders for probe in c.probes if probe)
    if len(probes) < 4:
        return 0.0, True
    low, middle, high = statistics.quantiles(probes, n=4)
    spread = (high - low) / middle
    return spread, spread <= NOISY


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("task", nargs="?", default="all", choices=[*TASKS, "all"])
    parser.add_argument("--peers", default=str(HERE / ".peers/bin/python"), help="python of setup_peers.sh")
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds: does it run?")
    parser.add_argument("--only", nargs="*", default=[], help="peers to run beside unmix")
    parser.add_argument("--size", help="only the size of this name")
    parser.add_argument("--rounds", type=int, help="timed turns of each contender (7, with --quick 3)")
    parser.add_argument("--budget", type=float, default=300.0, help="seconds after which no new turn begins")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    options = parser.parse_args()
    options.rounds = options.rounds or (3 if options.quick else 7)
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = str(options.threads)
    if not Path(options.peers).exists():
        print(f"no peers at {options.peers}: only unmix and the floors; bash benchmarks/setup_peers.sh makes them")
    results = []
    for name in TASKS if options.task == "all" else (options.task,):
        sys.path.insert(0, str(HERE))
        task = importlib.import_module(f"tasks.{name}")
        for size_name, size in (task.QUICK if options.quick else task.SIZES).items():
            if options.size in (None, size_name):
                results.append(measure(name, size_name, size, options))
    if options.out:
        whole = {"command": sys.argv, "machine": platform.processor() or platform.machine(), "results": results}
        options.out.write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    main()
