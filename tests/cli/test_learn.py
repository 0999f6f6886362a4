"""The verb learn as a person meets it."""

from __future__ import annotations

import numpy as np

from .test_cli import unmix


def test_learn_prints_a_table_warns_and_stores(tmp_path):
    words = ["learn", "ClusterWorld", "world.latents=2", "world.classes=6", "learner.width=2", "learner.steps=40",
             "learner.batch=128", 'learner.network={"kind":"MLP","hidden":[16]}', "test=500", "seed=0..1",
             "-o", tmp_path / "run"]  # fmt: skip
    planned = unmix(*words, "--dry-run")
    assert planned.returncode == 0 and "FLOPs" in planned.stdout, planned.stderr
    assert not (tmp_path / "run").exists()
    done = unmix(*words)
    assert done.returncode == 0, done.stderr
    assert "worst" in done.stdout and "…" not in done.stdout and "Supervised" in done.stdout
    assert len(list((tmp_path / "run" / "learned").glob("*/representation.json"))) == 2
    refused = unmix("learn", "ClusterWorld", "learner=InfoNCE", "-o", tmp_path / "other")
    assert refused.returncode == 2 and "InfoNCE: needs group, time, x" in refused.stderr
    assert not (tmp_path / "other").exists()
    assert unmix("learn", "ClusterWorld", "learner.stpes=3").returncode == 2


def test_learn_reads_series_from_a_file_and_says_what_a_bare_array_lacks(tmp_path):
    draw = np.random.default_rng(0)
    z = np.cumsum(draw.laplace(size=(6, 40, 2)), 1).reshape(-1, 2).astype(np.float32)
    np.savez(tmp_path / "series.npz", x=z @ np.float32([[1, 0.5], [-0.5, 1]]), z=z,
             group=np.repeat(np.arange(6), 40), time=np.tile(np.arange(40), 6))  # fmt: skip
    words = ["learner=SlowVAE", "learner.width=2", "learner.steps=20", "learner.batch=32", "test=60",
             'learner.network={"kind":"MLP","hidden":[8],"normalise":"none"}']  # fmt: skip
    done = unmix("learn", tmp_path / "series.npz", *words, "-o", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "SlowVAE" in done.stdout and len(list((tmp_path / "run" / "learned").glob("*/representation.json"))) == 1
    np.save(tmp_path / "rows.npy", z)
    refused = unmix("learn", tmp_path / "rows.npy", *words, "-o", tmp_path / "other")
    assert refused.returncode == 2 and "group" in refused.stderr
