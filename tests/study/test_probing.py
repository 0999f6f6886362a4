"""Probes of learnt representations: chosen without the test rows, encoders left alone; the verb on a run."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from unmix.core.errors import Notice, UsageError
from unmix.learners.augment import Augment
from unmix.learners.diet import Diet
from unmix.networks.resnet import ResNet
from unmix.study.learning import Learned, Learning, learn
from unmix.study.probing import Parts, labelled, linear_probe, nearest, neighbours_probe, probe_learned, shown, split
from unmix.worlds.cluster import ClusterWorld
from unmix.worlds.images import Images

from ..cli.test_cli import unmix

VIEWS = Augment(crop=0.5, flip=0.0, rotate=10.0)


def _parts(seed=0):
    draw = np.random.default_rng(seed)
    y = draw.integers(0, 3, 360)
    h = (np.eye(3)[y] * 3 + draw.normal(size=(360, 3))).astype(np.float32)
    return Parts(*((h[a:b], y[a:b]) for a, b in ((0, 200), (200, 260), (260, 360))))


@pytest.mark.parametrize("probe", [linear_probe, neighbours_probe])
def test_a_probe_chooses_without_the_test_rows(probe):
    parts = _parts()
    found = probe(parts)
    assert found.accuracy > 0.9 and found.low < found.accuracy < found.high
    shuffled = parts._replace(test=(parts.test[0], np.random.default_rng(1).permutation(parts.test[1])))
    other = probe(shuffled)
    assert (other.chosen, other.validation) == (found.chosen, found.validation) and other.accuracy < 0.6
    with pytest.raises(UsageError, match="only one class"):
        probe(parts._replace(train=(parts.train[0], parts.train[1] * 0)))
    with pytest.raises(UsageError, match="not finite"):
        probe(parts._replace(test=(parts.test[0] * np.nan, parts.test[1])))


def test_the_strength_is_the_one_that_separate_fits_would_choose():
    from sklearn.linear_model import LogisticRegression

    draw = np.random.default_rng(3)
    y = draw.integers(0, 3, 300)
    h = (np.eye(3)[y] @ draw.normal(size=(3, 20)) + 2 * draw.normal(size=(300, 20))).astype(np.float32)
    parts = Parts(*((h[a:b], y[a:b]) for a, b in ((0, 120), (120, 200), (200, 300))))
    mean, deviation = parts.train[0].mean(0), parts.train[0].std(0)
    scaled = [((rows - mean) / deviation, labels) for rows, labels in parts]
    rates = {}
    for strength in (0.01, 0.1, 1.0, 10.0, 100.0):
        model = LogisticRegression(C=strength, max_iter=2000).fit(*scaled[0])
        rates[strength] = [model.score(*rows) for rows in scaled[1:]]
    best = max(rates, key=lambda strength: rates[strength][0])
    found = linear_probe(parts)
    assert found.chosen == best and found.validation == pytest.approx(rates[best][0])
    assert found.accuracy == pytest.approx(rates[best][1], abs=0.011)


def test_the_table_has_limits_for_one_seed_and_the_range_for_several():
    line = {
        "learner": "Diet",
        "recipe": "Diet()",
        "train": 100,
        "chosen on": 25,
        "test": 40,
        "validation": 1,
        "chosen": 1,
    }
    frame = pd.DataFrame(
        {
            **line,
            "seed": seed,
            "read from": source,
            "probe": probe,
            "accuracy": value,
            "low": value - 0.1,
            "high": 1.0,
        }
        for seed, value in ((0, 0.5), (1, 0.7))
        for source, probe in (("learnt", "linear"), ("learnt", "linear, online"), ("majority", ""))
    )
    several, one = shown(frame), shown(frame[frame["seed"] == 0])
    assert "0.600 [0.500, 0.700]" in several and "mean, least and most of 2 seeds" in several
    assert "0.500 [0.400, 1.000]" in one and "95 % interval" in one and "beside the network" in one
    assert all(word in several for word in ("100 training rows", "25 others", "40 held-out"))
    assert "Diet()" not in several, "one recipe of a learner goes by its name"
    two = pd.concat([frame, frame.assign(recipe="Diet(width=3)")])
    assert "Diet(width=3)" in shown(two)


def test_one_neighbour_is_the_row_of_largest_cosine():
    train = np.asarray([[1.0, 0], [0, 1], [-1, 0], [0, -1]], np.float32)
    test = np.asarray([[5.0, 1], [0.1, 9]], np.float32)
    parts = Parts((train, np.arange(4) % 2), (test, np.asarray([0, 1])), (test, np.asarray([0, 1])))
    assert neighbours_probe(parts, (1,)).accuracy == 1
    assert nearest(np.vstack([train, test]), [0, 1], 1).tolist() == [[4], [5]]
    with pytest.raises(UsageError, match="other rows"):
        nearest(train, [0], 4)


def test_a_fifth_of_every_class_chooses():
    fitted, aside = split(np.repeat([0, 1], [50, 10]))
    assert len(aside) == 12 and (aside >= 50).sum() == 2 and not set(fitted) & set(aside)


def test_small_classes_and_copies_are_split_and_what_cannot_be_is_refused():
    fitted, aside = split(np.repeat(np.arange(5), 3))
    assert len(aside) == 5 and len(set(aside // 3)) == 5, "one of each class where a fifth is none"
    with pytest.raises(UsageError, match="every class has copies of a single training row"):
        split(np.repeat([0, 1], 2), np.repeat(np.eye(2), 2, 0))
    x = np.tile(np.random.default_rng(0).standard_normal((50, 4)), (2, 1))
    fitted, aside = split(np.random.default_rng(1).integers(0, 2, 100), x)
    assert 10 <= len(aside) <= 20 and not set(fitted % 50) & set(aside % 50)


def _world(tmp_path, labels, **more):
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 4, 4), np.uint8)
    np.savez(tmp_path / "x.npz", images=images, labels=np.asarray(labels))
    return Images(path=str(tmp_path / "x.npz"), **more)


def test_labels_that_no_probe_can_use_are_refused_in_words(tmp_path):
    world = _world(tmp_path, np.zeros(40))
    with pytest.raises(UsageError, match="each of the 32 classes has a single training row"):
        labelled(world, np.arange(40))
    few = np.full(40, -1)
    few[world.numbers[:3]] = [0, 0, 1]
    with pytest.raises(UsageError, match="3 training and 0 held-out rows have one; label more"):
        labelled(world, few)
    few[world.held_out.numbers] = 2
    with pytest.raises(UsageError, match="8 of 8 held-out rows are of classes without a training row; no probe can"):
        labelled(world, few)
    few[world.held_out.numbers[:5]] = 1
    with pytest.warns(Notice, match="3 of 8 held-out rows are of classes without a training row"):
        (x, y), (test, test_y) = labelled(world, few)
    assert y.tolist() == [0, 0, 1] and sorted(test_y) == [1] * 5 + [2] * 3 and len(x) == 3 and len(test) == 8
    with pytest.raises(UsageError, match=r"x\.npz: has none|x\.npz has none"):
        labelled(_world(tmp_path, np.full(40, np.nan)))


@pytest.mark.parametrize("none", [-1, np.nan, "", None, "nan"])
def test_rows_without_a_label_are_left_out_whatever_says_so(tmp_path, none):
    world = _world(tmp_path, np.zeros(40))
    labels = np.asarray([none if row < 10 else str(row % 2) for row in range(40)], dtype=object)
    (_, y), (_, test_y) = labelled(world, labels)
    rows = np.concatenate([world.numbers, world.held_out.numbers])
    assert len(y) + len(test_y) == 30 and set(y) == set(test_y) == {0, 1}
    assert np.concatenate([y, test_y]).tolist() == (rows[rows >= 10] % 2).tolist()


def test_a_run_is_probed_by_the_verb_and_the_encoder_left_alone(tmp_path):
    network = ResNet(channels=8, blocks=(1, 1))
    learner = Diet(network=network, width=16, steps=30, batch=128, lr=3e-3, augment=VIEWS, online=True)
    world = Images(path="digits")
    learn(world, [learner], tmp_path / "run")
    learnt = Learned(tmp_path / "run").representation(Learning(world=world, learner=learner))
    before = learnt.digest
    frame = probe_learned(tmp_path / "run")
    assert Learned(tmp_path / "run").representation(Learning(world=world, learner=learner)).digest == before
    assert set(frame["read from"]) == {"learnt", "untrained", "raw x", "majority"}
    assert {"linear", "nearest neighbours (cosine)", "linear, online"} <= set(frame["probe"])
    assert (frame["test"] == 359).all() and frame["accuracy"].between(0, 1).all()
    assert frame[frame["read from"] == "majority"]["accuracy"].item() < 0.2
    labels = np.where(np.arange(1797) % 7 == 0, np.nan, world.pictures.labels % 2)
    np.save(tmp_path / "even.npy", labels)
    told = unmix("probe", tmp_path / "run", str(tmp_path / "even.npy"), "learner=Diet")
    assert told.returncode == 0 and "untrained" in told.stdout, told.stderr
    assert unmix("probe", tmp_path / "run", "learner=SimCLR").returncode == 2


def test_worlds_without_end_are_probed_on_fresh_rows_and_others_refused(tmp_path):
    from unmix.learners.supervised import Supervised
    from unmix.networks.mlp import MLP

    world = ClusterWorld(latents=2, classes=4)
    learner = Supervised(network=MLP(hidden=(16,)), width=2, steps=100, batch=128)
    learn(world, [learner], tmp_path / "run", test=200)
    frame = probe_learned(tmp_path / "run")
    assert frame["accuracy"].max() > 0.5
    with pytest.raises(UsageError, match="only its own labels"):
        probe_learned(tmp_path / "run", np.zeros(5))


def test_learn_takes_a_folder_or_an_array_of_images(tmp_path):
    draw = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", draw.integers(0, 255, (40, 8, 8, 3), dtype=np.uint8))
    words = ['learner.network={"kind":"ResNet","channels":4,"blocks":[1]}', "learner.width=4", "learner.steps=3",
             "learner.batch=16"]  # fmt: skip
    done = unmix("learn", str(tmp_path / "x.npy"), "learner=Diet,SimCLR", *words, "-o", tmp_path / "run")
    assert done.returncode == 0 and "Diet" in done.stdout, done.stderr
    assert len(list((tmp_path / "run" / "learned").glob("*/representation.json"))) == 2
    refused = unmix("probe", tmp_path / "run")
    assert refused.returncode == 2 and "x.npy has none; give a file" in refused.stderr


@pytest.mark.slow
def test_diet_beats_the_untrained_network_on_digits_on_every_seed(tmp_path):
    learner = Diet(network=ResNet(channels=16, blocks=(1, 1)), width=64, steps=400, lr=3e-3, augment=VIEWS)
    learn(Images(path="digits"), [learner], tmp_path / "run", (0, 1, 2))
    frame = probe_learned(tmp_path / "run").set_index(["probe", "read from", "seed"])["accuracy"]
    for name in ("linear", "nearest neighbours (cosine)"):
        assert (frame[name]["learnt"] > frame[name]["untrained"]).all()
