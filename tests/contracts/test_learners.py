"""Every learner: shapes, determinism, resumption, refusals, save and load, and inputs left alone."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch

from unmix.core.errors import UsageError
from unmix.core.sample import Sample
from unmix.core.watch import Watch
from unmix.learners import LEARNERS
from unmix.learners.representation import Representation
from unmix.networks.mlp import MLP
from unmix.worlds.base import World
from unmix.worlds.images import Images
from unmix.worlds.teacher import TeacherStudent

from ..learners.tiny import Clusters, Segments, Walks

SMALL = {"network": MLP(hidden=(16,)), "width": 3, "steps": 12, "batch": 64}
NOISY = {"augment": "Noise", "hidden": (16,), "projection": 8}
# The world a learner is tried on, and its fields.
QUICK = {
    "Supervised": (Clusters(), {}),
    "Regression": (TeacherStudent(dimensions=5, rows=200), {}),
    "InstanceDiscrimination": (Clusters(), {"unit_features": True, "unit_weights": True}),
    "Diet": (Clusters(), {"head_rate": 5.0}),
    "SupervisedViews": (Clusters(), {}),
    "SimCLR": (Clusters(), NOISY),
    "BarlowTwins": (Clusters(), NOISY),
    "VICReg": (Clusters(), NOISY),
    "BYOL": (Clusters(), {**NOISY, "tau": 0.9}),
    "Rotation": (Images(path="digits"), {"augment": None}),
    "Reconstruction": (Images(path="digits"), {"augment": None}),
    "InfoNCE": (Walks(), {"similarity": "laplace"}),
    "AnisotropicInfoNCE": (Walks(), {}),
    "SpectralContrastive": (Walks(), {"pairs": "time", "projection": None}),
    "TimeContrastive": (Segments(), {"segments": 8, "length": 64}),
    "PermutationContrastive": (Walks(), {}),
    "GeneralisedContrastive": (Walks(), {}),
    "BetaVAE": (Walks(), {}),
    "BetaTCVAE": (Walks(), {}),
    "SlowVAE": (Walks(), {"learn_prior": True}),
    "AdaGVAE": (Walks(), {}),
    "Slowness": (Walks(), {}),
}


class Bare(World):
    """Observations alone; everything it ever gave is kept."""

    provides: ClassVar[frozenset[str]] = frozenset({"x"})

    def sample(self, n, rng=0):
        return Sample(x=Walks().sample(n, rng).x)


class Keeping(Watch):
    """Keeps a copy of every state, and stops after a step."""

    def __init__(self, stop: int | None = None, state: dict | None = None) -> None:
        self.stop, self.state, self.seen = stop, state, []

    def on_step(self, step, total, facts):
        self.seen.append((step, total, {name: float(value) for name, value in facts.items()}))

    def save(self, state):
        self.state = {name: tensor.clone() for name, tensor in state().items()}
        if len(self.seen) == self.stop:
            raise KeyboardInterrupt

    def restore(self):
        return self.state


def quick(name: str, **changes):
    world, fields = QUICK[name]
    return world, LEARNERS[name](**{**SMALL, **fields, **changes})


def first(learnt: Representation) -> torch.Tensor:
    return next(learnt.module.parameters()).detach()


def test_every_learner_is_covered():
    assert set(QUICK) == set(LEARNERS)


@pytest.mark.parametrize("name", list(LEARNERS))
def test_fit_gives_a_representation_and_leaves_its_input_alone(name):
    world, learner = quick(name)
    watch = Keeping()
    learnt = learner.fit(world, 1, watch)
    x = world.sample(50, 9).x
    before = x.clone()
    h = learnt(x)
    assert torch.equal(x, before)
    assert h.shape == (50, 3) and h.dtype == torch.float32 and not h.requires_grad
    assert torch.isfinite(h).all()
    assert torch.equal(learnt(x.numpy()), h)
    assert torch.allclose(learnt(x, block=7), h, atol=1e-6)
    assert [step for step, _, _ in watch.seen] == list(range(1, 13))
    assert all(total == 12 and "loss" in facts for _, total, facts in watch.seen)
    assert [line["step"] for line in learnt.trace] == list(range(1, 13))
    assert learnt.about["learner"] == learner.as_dict() and learnt.about["seed"] == 1
    assert all(not tensor.requires_grad for tensor in learnt.parts.values())


@pytest.mark.parametrize("name", list(LEARNERS))
def test_training_moves_the_network_and_lowers_the_loss(name):
    world, learner = quick(name, steps=150, lr=5e-3)
    learnt = learner.fit(world, 1)
    losses = [line["loss"] for line in learnt.trace]
    assert sum(losses[-20:]) < sum(losses[:20])
    assert learnt.digest != learner.untrained(world, 1).digest


@pytest.mark.parametrize("name", list(LEARNERS))
def test_same_seed_same_numbers_other_seed_other_numbers(name):
    world, learner = quick(name)
    one, two, other = (learner.fit(world, seed) for seed in (3, 3, 4))
    assert one.digest == two.digest != other.digest


@pytest.mark.parametrize("name", list(LEARNERS))
def test_an_interrupted_fit_goes_on_to_the_same_numbers(name):
    world, learner = quick(name)
    whole = learner.fit(world, 2)
    watch = Keeping(stop=7)
    with pytest.raises(KeyboardInterrupt):
        learner.fit(world, 2, watch)
    assert int(watch.state["step"]) == 7
    again = Keeping(state=watch.state)
    learnt = learner.fit(world, 2, again)
    assert [step for step, _, _ in again.seen] == list(range(8, 13))
    assert learnt.digest == whole.digest
    assert list(learnt.trace) == list(whole.trace)
    for stranger, seed in ((learner.but(lr=1e-4), 2), (learner, 5)):
        with pytest.raises(UsageError, match="another recipe, world or seed"):
            stranger.fit(world, seed, Keeping(state=watch.state))


@pytest.mark.parametrize("name", list(LEARNERS))
def test_save_and_load_give_the_same_outputs(name, tmp_path):
    world, learner = quick(name)
    learnt = learner.fit(world)
    again = Representation.load(learnt.save(tmp_path / "learnt"))
    x = world.sample(40, 3).x
    assert torch.equal(again(x), learnt(x))
    assert again.digest == learnt.digest
    assert set(again.parts) == set(learnt.parts)
    assert list(again.trace) == list(learnt.trace) and dict(again.about) == dict(learnt.about)


@pytest.mark.parametrize("name", list(LEARNERS))
def test_going_on_from_a_representation(name):
    world, learner = quick(name)
    start = learner.fit(world)
    kept = start.digest
    learnt = learner.but(lr=1e-9).fit(world, 1, start=start)
    assert start.digest == kept == learnt.about["start"]
    x = world.sample(40, 3).x
    others = (learnt, learner.untrained(world, 1))
    near, far = ((first(start) - first(other)).abs().max() for other in others)
    assert near < 1e-3 < far
    assert torch.isfinite(learnt(x)).all()
    with pytest.raises(UsageError, match="start has network"):
        learner.but(network=MLP(hidden=(17,))).fit(world, start=start)
    with pytest.raises(UsageError, match="must be a Representation"):
        learner.fit(world, start=start.module)


@pytest.mark.parametrize("name", list(LEARNERS))
def test_a_world_without_what_is_needed_is_refused_with_a_sentence(name):
    world, learner = quick(name)
    assert learner.refusal(world) is None
    needed = sorted(LEARNERS[name].needs - {"x"})
    if needed:
        assert f"{name}: needs {', '.join(sorted(LEARNERS[name].needs))}" in learner.refusal(Bare())
        with pytest.raises(UsageError, match=f"{name}: needs .*Bare gives x, not {needed[0]}"):
            learner.fit(Bare())


def test_worlds_of_the_contract_give_what_they_say():
    for world in (Clusters(), Walks(), Segments()):
        assert world.sample(64).provides == world.provides
