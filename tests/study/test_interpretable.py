"""Bases side by side: planted superposition is found, its absence is said, and every control is beside the score."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from unmix.activations.recordings import open_recording
from unmix.core.errors import UsageError
from unmix.core.rows import gather
from unmix.core.seeds import Stream
from unmix.finders.clusters import SphericalKMeans
from unmix.finders.dictionary import SparseCoding
from unmix.finders.linear import PCA, FastICA
from unmix.scores.interpretability.sets import interpretability_index
from unmix.scores.interpretability.synergy import synergy
from unmix.scores.matching import dictionary_mcc
from unmix.scores.similarity.base import embedded
from unmix.scores.similarity.pixels import Pixels
from unmix.study.interpretable import (
    compare_bases,
    findings,
    halves_of_images,
    over_splits,
    power_law,
    rotation_test,
)
from unmix.worlds.superposition import SuperpositionWorld

FOLDER = os.environ.get("UNMIX_DATA")


def sparse(width=32):
    return SparseCoding(width=width, penalty=0.05, passes=100)


def value(table, basis, read):
    found = over_splits(table)
    return found[(found["basis"] == basis) & (found["read"] == read)].iloc[0]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_planted_superposition_is_found(seed):
    world = SuperpositionWorld(seed=seed)
    sample = world.sample(4000, seed)
    clusters = SphericalKMeans(width=32, starts=10)
    fit, _ = halves_of_images(sample.x, seed)
    assert dictionary_mcc(sparse().fit(sample.h[fit]).atoms, world.atoms).value >= 0.95
    assert dictionary_mcc(clusters.fit(sample.h[fit]).atoms, world.atoms).value >= 0.90
    table = compare_bases(sample.h, sample.x, [sparse(), clusters], Pixels(), rng=seed)
    neurons, angles = value(table, "neurons", "columns"), value(table, "neurons", "angles")
    codes = value(table, str(sparse()), "codes")
    assert codes["value"] >= 1.5 * neurons["value"]
    assert min(value(table, str(finder), "angles")["z"] for finder in (sparse(), clusters)) > angles["z"] + 3
    assert codes["z"] > value(table, str(sparse()), "projections")["z"] > neurons["z"]
    assert abs(value(table, "random directions", "projections")["value"] - neurons["value"]) <= 0.08
    assert abs(value(table, "shuffled activations", "columns")["z"]) < 0.5
    assert findings(table)[-1].startswith("Directions other than the neurons are more interpretable: SparseCoding")


def test_without_superposition_nothing_beats_the_neurons_and_it_is_said():
    world = SuperpositionWorld(latents=16, width=16, dictionary="identity")
    sample = world.sample(4000, 0)
    finders = [sparse(16), SphericalKMeans(width=16, starts=5), FastICA(width=16)]
    table = compare_bases(sample.h, sample.x, finders, Pixels())
    bases = table[(table["role"] == "basis") & (table["basis"] != "neurons")].set_index(["basis", "read"])
    angles = bases.xs("angles", level="read")["beside"]
    assert angles.max() <= 1.0 and angles.min() > -1.5
    # By projection centred k-means gains: it weighs the other neurons a little against one, and so picks images that
    # show it alone. On shuffled neurons it gains as much, and by angle nothing.
    clusters = str(finders[1])
    projected, apart = (value(table, f"{clusters}{more}", "projections") for more in ("", " on shuffled neurons"))
    assert projected["beside"] > 1.0 and abs(projected["z"] - apart["z"]) < 0.5
    rest = bases.drop(index=[(clusters, "codes"), (clusters, "projections")])["beside"]
    assert rest.max() <= 1.0 and rest.min() > -1.5
    assert value(table, "random directions", "projections")["beside"] < 0
    assert (bases["aligned"] >= 0.75).all()
    told = findings(table)
    assert "no sign of superposition" in told[-1]
    assert not any("above every control" in words for words in told)
    special = rotation_test(sample.h, Pixels().bind(sample.x), rotations=19)
    assert special["z"] > 3 and special["p"] == pytest.approx(1 / 20)


def test_rotations_of_a_space_without_axes_are_like_it():
    found = []
    for seed in range(6):
        sample = SuperpositionWorld(latents=64, width=8, rate=0.03, side=8, seed=seed).sample(1500, 0)
        found.append(rotation_test(sample.h, Pixels().bind(sample.x), rotations=19)["p"])
    assert np.median(found) > 0.1


def test_the_table_has_every_control_and_copies_stay_on_one_side():
    world = SuperpositionWorld(latents=8, width=6, side=8)
    sample = world.sample(300, 0)
    images = torch.cat([sample.x, sample.x[:100]])
    rows = torch.cat([sample.h, sample.h[:100]])
    start = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    fit, score = halves_of_images(images, 0)
    assert not set((fit % 300).tolist()) & set((score % 300).tolist()) and len(fit) + len(score) == 400
    table = compare_bases(
        rows, images, ["SphericalKMeans"], Pixels(), splits=2, whiten=0.1, untrained=start, draws=50
    )
    assert set(table["basis"]) == {
        "neurons", "shuffled activations", "random directions", "random pools", "untrained neurons",
        "SphericalKMeans()", "SphericalKMeans() on shuffled neurons",
    }  # fmt: skip
    columns = ["value", "low", "high", "chance", "z", "effective", "unique", "redundancy", "brightness_z", "colour_z"]
    assert np.isfinite(table[columns].to_numpy(float)).all()
    assert (table[table["basis"] == "neurons"]["beside"] == 0).all()
    for split, part in table.groupby("split"):
        _, held = halves_of_images(images, Stream(0).child("compare bases").child(split))
        assert (part["images"] == len(set((held % 300).tolist()))).all() and part["copies"].iloc[0] > 10
        assert (part["images"] + part["copies"] == len(held)).all()
    again = compare_bases(
        rows, images, ["SphericalKMeans"], Pixels(), splits=2, whiten=0.1, untrained=start, draws=50
    )
    assert table.equals(again)
    with pytest.raises(UsageError, match="300 for 400 rows"):
        compare_bases(rows, sample.x, ["SphericalKMeans"])
    with pytest.raises(UsageError, match="proves nothing"):
        compare_bases(rows, images, ["SphericalKMeans"], embedded(rows))
    with pytest.raises(UsageError, match="none are left"):
        halves_of_images(images, share=0.999)


def test_a_common_offset_of_float64_rows_changes_nothing():
    sample = SuperpositionWorld(latents=8, width=6, side=8).sample(300, 0)
    rows = sample.h.double().numpy()
    plain, moved = (compare_bases(rows + off, sample.x, [PCA(width=5)], Pixels(), draws=20) for off in (0.0, 1e7))
    np.testing.assert_allclose(plain["z"], moved["z"], atol=0.02)


def test_sparse_neurons_and_features_without_images_enough_are_said_to_be_left_out():
    draw = np.random.default_rng(0)
    rows, images = draw.random((120, 5)), draw.integers(0, 255, (120, 8, 8)).astype(np.uint8)
    table = compare_bases(rows, images, [SphericalKMeans(width=20)], Pixels(), 15, draws=20)
    codes = value(table, "SphericalKMeans(width=20)", "codes")
    assert codes["few"] + codes["constant"] == 20 and np.isnan(codes["z"]) and np.isnan(codes["value"])
    assert any("(codes): left out, no feature is active on as many" in told for told in findings(table))
    alike = compare_bases(rows, images, ["SphericalKMeans"], embedded(np.ones((120, 2)), images=images), draws=20)
    assert findings(alike) == [
        "All sets of images are equally alike by this similarity: nothing can be said of any feature."
    ]


def test_images_that_are_scored_on_say_nothing_to_what_is_fitted():
    """Standardising and whitening are of the fitted images: others may change as they like."""
    world = SuperpositionWorld(latents=8, width=6, side=8)
    sample = world.sample(300, 0)
    fit, score = halves_of_images(sample.x, Stream(0).child("compare bases").child(0))
    seen = []

    class Seen(SphericalKMeans):
        def _fit(self, rows, rng, watch, device):
            seen.append(gather(rows).clone())
            return super()._fit(rows, rng, watch, device)

    for factor in (1.0, 7.0):
        rows = sample.h.clone()
        rows[score] *= factor
        compare_bases(rows, sample.x, [Seen(width=4)], Pixels(), standardise=True, whiten=0.1, draws=20)
    assert len(seen) == 4 and len(seen[0]) == len(fit)
    assert torch.equal(seen[0], seen[2]) and torch.equal(seen[1], seen[3])


def test_features_that_are_only_bright_are_seen_to_be():
    draw = np.random.default_rng(0)
    bright = draw.random(600)
    images = np.clip(bright[:, None, None] + 0.1 * draw.standard_normal((600, 8, 8)), 0, 1).astype(np.float32)
    rows = np.abs(bright[:, None] - np.linspace(0, 1, 5)) + 0.01 * draw.random((600, 5))
    table = compare_bases(-rows, images, ["SphericalKMeans"], Pixels(), draws=200)
    assert value(table, "neurons", "columns")["brightness_z"] > 1


def test_the_exponent_of_a_planted_power_law_is_found():
    draw = np.random.default_rng(0)
    rows = draw.standard_normal((20000, 60)) * np.arange(1, 61) ** -0.6
    found = power_law(rows)
    assert found["alpha"] == pytest.approx(1.2, abs=0.05) and found["r2"] > 0.98
    assert found["variances"].sum() == pytest.approx(1)
    with pytest.raises(UsageError, match="too few"):
        power_law(rows[:, :4])


def test_synergy_of_planted_pairs_is_found_and_of_others_is_not():
    """Concept c of the first three shows where features 2c and 2c + 1 are both high, and neither alone tells it."""
    draw = np.random.default_rng(0)
    a = draw.random((3000, 12))
    shown = np.zeros((3000, 12))
    for c in range(3):
        shown[:, c] = a[:, 2 * c] + a[:, 2 * c + 1] > 1.9
    shown += 0.05 * draw.standard_normal(shown.shape)
    every = np.array([(i, j) for i in range(12) for j in range(i + 1, 12)])
    found = synergy(a, embedded(shown), every, draws=4000)
    planted = np.isin(every[:, 0] * 100 + every[:, 1], [1, 203, 405])
    assert found["rejected"][planted].all() and found["rejected"].sum() <= 4
    assert found["gain"][planted].min() > 0.2
    noise = synergy(a, embedded(draw.standard_normal((3000, 5))), every, draws=4000)
    assert not noise["rejected"].any()
    with pytest.raises(UsageError, match=r"0 \.\. 11"):
        synergy(a, embedded(shown), [(0, 12)])


@pytest.mark.skipif(FOLDER is None, reason="UNMIX_DATA, the folder of the recordings, is not set")
@pytest.mark.parametrize("session", ["201025", "190923"])
def test_clusters_of_recorded_neurons_beat_neurons_and_random_pools_come_near(session):
    folder = Path(FOLDER or "") / "v4-recordings"
    found = open_recording(folder / f"responses_{session}.npy", folder / f"images_{session}.zip")
    clusters = SphericalKMeans(width=found.responses.shape[1])
    table = compare_bases(found.responses, found.items, [clusters], splits=3, standardise=True, draws=400)
    projected = value(table, str(clusters), "projections")
    assert projected["beside"] >= 0.5
    assert projected["z"] - value(table, "random pools", "projections")["z"] < 1.0
    assert projected["redundancy"] > value(table, "neurons", "columns")["redundancy"]
    assert abs(value(table, "shuffled activations", "columns")["z"]) < 0.5
    assert any("random pools" in told and "no evidence" in told for told in findings(table))


def test_neurons_that_only_repeat_noise_are_at_chance():
    draw = np.random.default_rng(0)
    images = draw.integers(0, 255, (400, 16, 16)).astype(np.uint8)
    found = interpretability_index(draw.standard_normal((400, 40)), Pixels().bind(images))
    assert abs(found.mean_z) < 0.5
