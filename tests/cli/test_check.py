"""The verb `check` as a person meets it."""

from __future__ import annotations

import numpy as np
import pytest

from .test_cli import unmix


def test_check_says_what_holds_and_warns_in_words():
    done = unmix("check", "ClusterWorld", "world.latents=5", "world.classes=5", "samples=400")
    assert done.returncode == 0, done.stderr
    assert "WARN  class count" in done.stdout and "No case (C1-C4)" in done.stdout
    fine = unmix("check", "ClusterWorld", "world.mixing=CouplingFlow", "samples=400")
    assert fine.returncode == 0 and "Cases C1, C2, C3, C4" in fine.stdout, fine.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ClusterWrld"], "did you mean ClusterWorld"),
        (["ClusterWorld", "world.latnts=3"], "did you mean latents"),
        (["ClusterWorld", "smples=3"], "did you mean samples"),
        (["ClusterWorld", "world.classes=5,6"], "one at a time"),
        (["h.npy"], "latents are not known"),
        (["SparseWorld"], "no theorem is known here"),
    ],
)
def test_usage_errors_are_one_line(words, message, tmp_path):
    np.save(tmp_path / "h.npy", np.ones((5, 2)))
    done = unmix("check", *words, cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
