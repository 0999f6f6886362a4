"""One contender in a process of its own: answers one JSON line for each command line on its standard input.

python worker.py TASK CONTENDER SIZE, where SIZE is JSON. Commands: probe (a matrix product), warm (compile and fill
caches by work that is thrown away), run (one timed unit of
work), check (facts about the result), quit.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import time
from pathlib import Path

TORCHVISION = ("nms", "qnms", "roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d")


def declare_torchvision() -> object:
    """torchvision beside CPU-only torch lacks compiled operators that its import asks for: declare them, empty.

    Keep what this returns: the operators go with it. No contender uses any of them.
    """
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in TORCHVISION:
        library.define(f"{name}(Tensor x) -> Tensor")
        library.define(f"_{name}_backward(Tensor x) -> Tensor")
    return library


def probe(state: dict) -> float:
    import torch

    if "probe" not in state:
        state["probe"] = torch.ones(1536, 1536), torch.empty(1536, 1536)
    a, out = state["probe"]
    begun = time.perf_counter()
    torch.mm(a, a, out=out)
    return time.perf_counter() - begun


def main() -> None:
    # Peers print as they like; answers go to the first standard output alone.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    task, name, size = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    sys.path.insert(0, str(Path(__file__).parent))

    def answer(**facts: object) -> None:
        answers.write(json.dumps(facts) + "\n")
        answers.flush()

    state: dict = {}
    try:
        import torch

        torch.set_num_threads(size["threads"])
        if importlib.util.find_spec("torchvision") and not hasattr(torch.ops.torchvision, "nms"):
            state["operators"] = declare_torchvision()
        make = importlib.import_module(f"tasks.{task}").CONTENDERS[name]
        contender = make(size)
        answer(ready=True)
    except Exception as error:
        answer(error=f"{type(error).__name__}: {error}".splitlines()[0])
        return
    for line in sys.stdin:
        command = line.strip()
        try:
            if command == "quit":
                return
            if command == "probe":
                answer(seconds=probe(state))
            elif command == "warm":
                contender.run()
                contender = make(size)
                answer(warm=True)
            elif command == "check":
                answer(**contender.check())
            else:
                begun = time.perf_counter()
                facts = contender.run() or {}
                answer(**{"seconds": time.perf_counter() - begun, **facts})
        except Exception as error:
            answer(error=f"{type(error).__name__}: {error}".splitlines()[0])


if __name__ == "__main__":
    main()
