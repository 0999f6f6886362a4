"""Print the arithmetic of docs/scale.md: what a TopK autoencoder of a given size costs, before anything is run.

python docs/scale.py --atoms 131072 --width 4096 --k 64 --tokens 1e10 --batch 8192 --rate 2e14 --link 3e11
"""

from __future__ import annotations

import argparse
from types import SimpleNamespace

from unmix.finders.topk_sae import TopKSAE

FLOAT, HALF, INDEX = 4, 2, 8
PROCESSES = (1, 8)


def costs(atoms: int, width: int, k: int, tokens: float, batch: int, processes: int, split: str) -> dict[str, float]:
    """FLOPs, bytes and messages of one process; see docs/scale.md for the formulas."""
    steps = tokens / batch
    rows = SimpleNamespace(shape=(batch, width))
    work = TopKSAE(width=atoms, k=k, batch=batch, steps=1, split=split).estimate(rows)["flops"]
    adam = 24.0 * atoms * width
    own = atoms / processes if split == "atoms" else atoms
    held = 2 * own * width * FLOAT
    share = 2 * (processes - 1) / processes  # of a message that a ring sends to sum it over the processes
    sent = share * 2 * atoms * width * FLOAT
    if split == "atoms":
        sent = share * batch * width * FLOAT + (processes - 1) * batch * k * FLOAT
    return {
        "steps": steps,
        "FLOPs a step": (work - adam) / processes + (adam / processes if split == "atoms" else adam),
        "weights": held,
        "gradients": held,
        "moments": 2 * held,
        "rows and errors": 3 * (batch if split == "atoms" else batch / processes) * width * FLOAT,
        "sent a step": sent if processes > 1 else 0.0,
        "rows on disk": tokens * width * HALF,
        "features on disk": 2 * atoms * width * FLOAT,
        "codes on disk": tokens * k * (FLOAT + INDEX),
    }


def table(given: argparse.Namespace) -> str:
    """The table as Markdown: one column for each number of processes and each way to divide the work."""
    ways = [(1, "rows"), *((number, split) for number in PROCESSES[1:] for split in ("rows", "atoms"))]
    found = [costs(given.atoms, given.width, given.k, given.tokens, given.batch, *way) for way in ways]
    lines: list[tuple[str, list[str]]] = [("steps", [f"{c['steps']:,.0f}" for c in found])]
    lines.append(("FLOPs a step, each", [f"{c['FLOPs a step']:.2e}" for c in found]))
    lines.append(("FLOPs in all, each", [f"{c['FLOPs a step'] * c['steps']:.2e}" for c in found]))
    for name in ("weights", "gradients", "moments", "rows and errors"):
        lines.append((f"{name}, each", [size(c[name]) for c in found]))
    held = [sum(c[n] for n in ("weights", "gradients", "moments", "rows and errors")) for c in found]
    lines.append(("**memory of the device, each**", [f"**{size(h)}**" for h in held]))
    lines.append(("sent a step, each", [size(c["sent a step"]) for c in found]))
    compute = [c["FLOPs a step"] / given.rate for c in found]
    message = [c["sent a step"] / given.link for c in found]
    lines.append((f"computing a step at {given.rate:.0e} FLOP/s", [f"{1e3 * s:.1f} ms" for s in compute]))
    lines.append((f"sending at {given.link:.0e} B/s", [f"{1e3 * s:.1f} ms" for s in message]))
    whole = [(a + b) * c["steps"] for a, b, c in zip(compute, message, found, strict=True)]
    lines.append(("**hours in all**", [f"**{seconds / 3600:.1f}**" for seconds in whole]))
    reading = [c["rows on disk"] / seconds for c, seconds in zip(found, whole, strict=True)]
    lines.append(("reading that keeps up, each", [f"{size(rate)}/s" for rate in reading]))
    heads = [
        f"{number} device{'s' * (number > 1)}" + (f", split={split}" if number > 1 else "") for number, split in ways
    ]
    rows = [["", *heads], ["---"] * (len(ways) + 1), *([name, *cells] for name, cells in lines)]
    disk = ", ".join(f"{name.removesuffix(' on disk')} {size(found[0][name])}" for name in found[0] if "disk" in name)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + f"\n\nOn disk: {disk}."


def size(count: float) -> str:
    """Bytes as a person says them."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--atoms", type=int, default=131_072)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--k", type=int, default=64)
    parser.add_argument("--tokens", type=float, default=1e10)
    parser.add_argument("--batch", type=int, default=8192)
    parser.add_argument("--rate", type=float, default=2e14, help="FLOP/s that a device reaches in a product; assumed")
    parser.add_argument("--link", type=float, default=3e11, help="bytes/s that a device sends to others; assumed")
    print(table(parser.parse_args()))


if __name__ == "__main__":
    main()
