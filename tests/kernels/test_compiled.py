"""How compiled loops run: no folder for the cache, several threads at once, nothing compiled at import."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

import unmix
from unmix.kernels._compiled import run_parts
from unmix.kernels.topk import encode_topk

SOURCE = Path(unmix.__file__).parents[1]


def run(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_package_works_where_nothing_can_be_written():
    # Every place numba could keep its cache in is refused, as on a read-only image.
    code = """
import numba.core.caching as caching
for kind in vars(caching).values():
    if hasattr(kind, "_locator_classes"):
        kind._locator_classes = []
import torch
from unmix.kernels.counting import TopRows
from unmix.kernels import _counting_compiled
top = TopRows(2, 1)
top.update(torch.tensor([[5.0, 0.0]]), None, 3)
print(top.result()[0].tolist(), type(_counting_compiled.insert._cache).__name__)
"""
    assert run(code, PYTHONPATH=str(SOURCE)) == "[[3], [-1]] NullCache"


def test_the_cache_goes_where_numba_is_told(tmp_path):
    code = """
import torch
from unmix.kernels.counting import TopRows
TopRows(2, 1).update(torch.tensor([[5.0, 0.0]]), None, 3)
"""
    run(code, PYTHONPATH=str(SOURCE), NUMBA_CACHE_DIR=str(tmp_path))
    assert list(tmp_path.rglob("*insert*.nbc"))


def test_importing_the_kernels_compiles_nothing_and_leaves_numba_out():
    code = """
import sys
import unmix.kernels
print("torch" in sys.modules)
import unmix.kernels.topk, unmix.kernels.omp, unmix.kernels.lasso, unmix.kernels.update, unmix.kernels.counting
print("numba" in sys.modules)
"""
    assert run(code, PYTHONPATH=str(SOURCE)).split() == ["False", "False"]


def test_several_threads_may_call_at_once():
    draw = torch.Generator().manual_seed(0)
    h, weight = torch.randn(200, 16, generator=draw), torch.randn(700, 16, generator=draw)
    wanted = encode_topk(h, weight, None, 4)
    found = {}

    def work(number):
        for _ in range(5):
            found[number] = encode_topk(h, weight, None, 4)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 4
    for values, indices in found.values():
        assert torch.equal(values, wanted[0])
        assert torch.equal(indices, wanted[1])


def test_an_error_in_any_part_is_raised():
    def fail(part, parts, wrong):
        if part == wrong:
            raise ValueError(f"part {part} of {parts}")

    for wrong in (0, 1):
        with pytest.raises(ValueError, match=f"part {wrong} of 2"):
            run_parts(fail, 2, wrong)
