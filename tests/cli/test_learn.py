"""The verb learn as a person meets it."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

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


def test_learn_probes_a_folder_of_images_exports_the_encoder_and_goes_on_after_a_kill(tmp_path):
    draw = np.random.default_rng(0)
    for number, kind in enumerate(("above", "below")):
        (tmp_path / "pictures" / kind).mkdir(parents=True)
        for place in range(20):
            values = draw.integers(0, 90, (8, 8, 3), dtype=np.uint8)
            values[4 * number : 4 * number + 4] += 120
            Image.fromarray(values).save(tmp_path / "pictures" / kind / f"{place}.png")
    words = ["learn", tmp_path / "pictures", "learner=Diet", "learner.width=4", "learner.batch=16",
             'learner.network={"kind":"ResNet","channels":4,"blocks":[1]}']  # fmt: skip
    done = unmix(*words, "learner.steps=8", "-o", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    for told in ("accuracy on 8 held-out rows", "untrained", "raw x", "majority", "fitted on 26 training rows"):
        assert told in done.stdout, done.stdout
    bare = unmix(*words, "learner.steps=8", "--no-probes", "-o", tmp_path / "run")
    assert bare.returncode == 0 and "raw x" not in bare.stdout
    written = unmix("export", tmp_path / "run", "--encoder", tmp_path / "encoder.pt2")
    assert written.returncode == 0 and (tmp_path / "encoder.pt2").is_file(), written.stderr


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_to_the_same_weights(tmp_path):
    words = ["learn", "digits", "learner=Diet", "learner.width=8", "learner.batch=64", "learner.steps=600",
             'learner.network={"kind":"ResNet","channels":4,"blocks":[1]}', "--no-probes"]  # fmt: skip
    command = [sys.executable, "-m", "unmix", *words, "-o", str(tmp_path / "killed")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "killed").glob("learned/*.working/checkpoint.safetensors")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert not list((tmp_path / "killed").glob("learned/*/representation.json"))
    for name in ("killed", "whole"):
        assert unmix(*words, "-o", tmp_path / name).returncode == 0
    one, other = (next((tmp_path / name).glob("learned/*/tensors.safetensors")) for name in ("killed", "whole"))
    assert one.read_bytes() == other.read_bytes()


def test_a_dry_run_measures_few_rows_and_proposes_a_smaller_network_for_few_images(tmp_path):
    from unmix.learners.diet import Diet
    from unmix.study import learning_costs
    from unmix.worlds.images import Images

    np.save(tmp_path / "pictures.npy", np.random.default_rng(0).integers(0, 255, (400, 96, 96, 3), dtype=np.uint8))
    world, diet = Images(path=str(tmp_path / "pictures.npy")), Diet(width=8, steps=1000, batch=32)
    costs = learning_costs.estimate(world, [diet], 1)
    small = learning_costs.smaller_network(world, diet)
    assert small.channels == 8 and small.stem == "standard"
    less = learning_costs.estimate(world, [diet.but(network=small)], 1)
    assert less["flops"] < costs["flops"] / 4 and less["memory_bytes"] < costs["memory_bytes"] / 4
    # What a step keeps for its gradient: at least the output of the first convolution, for every row of the batch.
    assert costs["memory_bytes"] > 32 * 16 * 96 * 96 * 4
    assert learning_costs.smaller_network(world, diet.but(network=small)) is None
