"""The verb learn as a person meets it."""

from __future__ import annotations

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
