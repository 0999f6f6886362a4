"""The verbs explain, choose and match as a person meets them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from unmix.activations.shards import ShardWriter
from unmix.core.items import TextItems
from unmix.worlds.sparse import SparseWorld

from .test_cli import unmix


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two views of one text, and arrays of a sparse world."""
    folder = tmp_path_factory.mktemp("practice")
    draw = np.random.default_rng(0)
    stream = draw.integers(0, 24, 120 * 50).astype(np.int32)
    items = TextItems(
        stream,
        np.arange(0, len(stream) + 1, 50),
        np.arange(len(stream)),
        tuple(f"word{i}" for i in range(24)),
        tuple(f"d{i}" for i in range(120)),
    )
    for name, width in (("layer1", 24), ("layer2", 30)):
        directions = np.linalg.qr(draw.standard_normal((width, width)))[0][:24].astype(np.float32)
        writer = ShardWriter(folder / name, width, key=name)
        writer.append(directions[stream] + 0.02 * draw.standard_normal((len(stream), width)).astype(np.float32))
        writer.finish(items)
        made = unmix("fit", folder / name, "finder=TopKSAE", "finder.width=24", "finder.k=1", "finder.steps=500",
                     "finder.batch=256", "seed=0..1", "-o", folder / f"run-{name}")  # fmt: skip
        assert made.returncode == 0, made.stderr
    np.save(folder / "h.npy", SparseWorld(latents=16, width=8, active=2, noise=0.02).sample(1500, 0).x.numpy())
    return folder


def test_explain_prints_words_and_controls(folder):
    run = folder / "run-layer1"
    done = unmix("explain", run, "features=5", "contexts=12", "seed=0", "judge=TokenJudge", "judge.prior=5")
    assert done.returncode == 0, done.stderr
    assert "fires on word" in done.stdout and "always yes" in done.stdout and "random directions" in done.stdout
    assert len(list((run / "explanations").glob("*.json"))) == 1
    two = unmix("explain", run, "finder=TopKSAE,TopKSAE", "features=4", "contexts=12", "controls=none")
    assert two.returncode == 0 and "features paired by firing rate: +0.000" in two.stdout


def test_match_seeds_by_atoms_and_layers_by_codes(folder, tmp_path):
    seeds = unmix("match", folder / "run-layer1", folder / "run-layer1", "seed=0,1")
    assert seeds.returncode == 0, seeds.stderr
    assert "|cosine| of atoms" in seeds.stdout and "chance" in seeds.stdout
    layers = unmix("match", folder / "run-layer1", folder / "run-layer2", "--csv", tmp_path / "pairs.csv")
    assert layers.returncode == 0, layers.stderr
    assert "|correlation| of codes on the same rows" in layers.stdout
    pairs = pd.read_csv(tmp_path / "pairs.csv")
    assert {"a", "b", "similarity", "chance", "shared", "best_b", "mutual"} <= set(pairs.columns) and len(pairs) == 24
    assert pairs["shared"].mean() > 0.5 and pairs["chance"].mean() < 0.2


def test_choose_suggests_and_draws_a_learning_curve(folder):
    words = ["finder=SparseCoding", "finder.width=8,16", "finder.active=2", "finder.passes=12", "finder.batch=128"]
    done = unmix("choose", folder / "h.npy", *words, "samples=200,1200", "-o", folder / "chosen")
    assert done.returncode == 0, done.stderr
    assert "Suggested: SparseCoding(width=16" in done.stdout and "not the true number of features" in done.stdout
    assert "a doubling" in done.stdout and (folder / "chosen" / "choose.csv").is_file()
    page = (folder / "chosen" / "choose.html").read_text(encoding="utf-8")
    assert page.count("<svg") >= 3 and "Suggested: SparseCoding(width=16" in page and "samples=200,1200" in page
    dry = unmix("choose", folder / "h.npy", *words, "--dry-run", "-o", folder / "dry")
    assert dry.returncode == 0 and "memory" in dry.stdout and not (folder / "dry").exists()


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["explain", "{run}", "judge=TokenJuge"], 2, "did you mean TokenJudge"),
        (["explain", "{run}", "judge=CommandJudge", "judge.command=no-such-program"], 2, "cannot be started"),
        (["explain", "{run}", "judge=CommandJudge", "judge.command=cat"], 1, "wanted {"),
        (["choose", "digits", "finder.widht=4"], 2, "did you mean width"),
        (["choose", "digits", "distorsion=.1"], 2, "did you mean distortion"),
        (["match", "{run}", "nowhere"], 2, "no run here"),
        (["match", "{run}", "{run}", "seed=1"], 2, "name two fits"),
    ],
)
def test_errors_are_one_line(folder, tmp_path, words, status, message):
    done = unmix(*(word.format(run=folder / "run-layer1") for word in words), cwd=tmp_path)
    assert done.returncode == status, done.stderr
    assert message in done.stderr and len(done.stderr.strip().splitlines()) == 1
