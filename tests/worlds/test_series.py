"""Observations over time from a file of arrays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from unmix.core.errors import UsageError
from unmix.learners.slow import SlowVAE
from unmix.networks.mlp import MLP
from unmix.worlds.series import Series


@pytest.fixture
def arrays():
    """Five groups of 30 rows in a random order; x says which row it is."""
    group, time = np.repeat(np.arange(5), 30), np.tile(np.arange(30), 5)
    x = np.stack([group, time, group * time], 1).astype(np.float64)
    order = np.random.default_rng(0).permutation(150)
    return {"x": x[order], "group": group[order], "time": time[order], "z": x[order, :2]}


def saved(tmp_path, **arrays):
    np.savez(tmp_path / "series.npz", **arrays)
    return Series(path=str(tmp_path / "series.npz"))


def test_rows_are_consecutive_times_of_one_group(tmp_path, arrays):
    world = saved(tmp_path, **arrays).but(length=3, gap=2, split="all")
    sample = world.sample(300, 1)
    x = sample.x.reshape(100, 3, 3)
    assert (x[:, :, 0] == x[:, :1, 0]).all()
    steps = x[:, :, 1].diff(dim=1)
    assert set(steps.flatten().tolist()) == {1.0, 2.0}
    assert (steps == sample.time.reshape(100, 3).diff(dim=1)).all()
    assert (arrays["x"][sample.index] == sample.x.numpy()).all() and world.factors == ("z0", "z1")
    assert sample.provides == world.provides


def test_numbers_that_numpy_lacks_are_read(tmp_path, arrays):
    tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
    save_file({**tensors, "x": tensors["x"].bfloat16(), "other": tensors["x"].bfloat16()}, tmp_path / "a.safetensors")
    world = Series(path=str(tmp_path / "a.safetensors"), split="all")
    sample = world.sample(10, 0)
    assert np.array_equal(sample.x.numpy(), tensors["x"].bfloat16().float().numpy()[sample.index])
    assert world.digest == Series(path=str(tmp_path / "a.safetensors"), split="all").digest


def test_a_group_is_never_on_both_sides(tmp_path, arrays):
    world = saved(tmp_path, **arrays)
    train, test = (set(w.sample(400, 0).x[:, 0].tolist()) for w in (world, world.held_out))
    assert train and test and not train & test and train | test == set(range(5))
    assert world.size + world.held_out.size == 150


def test_slowvae_learns_from_arrays_without_truth(tmp_path, arrays):
    del arrays["z"]
    world = saved(tmp_path, **arrays)
    learner = SlowVAE(network=MLP(hidden=(8,), normalise="none"), width=2, steps=3, batch=16)
    assert learner.fit(world)(world.sample(4).x).shape == (4, 2) and world.factors == ()


def test_bad_files_are_refused_with_a_sentence(tmp_path, arrays):
    for wrong, sentence in (
        ({"time": arrays["time"] + 0.5}, "whole numbers"),
        ({"time": 0 * arrays["time"]}, "there twice"),
        ({"x": arrays["x"][:, 0]}, "must have x"),
        ({"x": np.full((150, 2), np.nan)}, "not finite"),
        ({"group": 0 * arrays["group"], "time": np.arange(150)}, "only split='all'"),
    ):
        with pytest.raises(UsageError, match=sentence):
            saved(tmp_path, **{**arrays, **wrong}).sample(4)
    with pytest.raises(UsageError, match="multiple"):
        saved(tmp_path, **arrays).sample(3)
    with pytest.raises(UsageError, match="no track of the train split has 31"):
        saved(tmp_path, **arrays).but(length=31).sample(31)
    with pytest.raises(UsageError, match="no such file"):
        Series(path="none.npz").sample(2)
