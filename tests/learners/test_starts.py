"""How learners start: heat, resumed as it was and absent where unused; an init that fits nothing is refused."""

from __future__ import annotations

import pytest
import torch

from unmix.core.errors import UsageError
from unmix.core.watch import Watch
from unmix.learners import LEARNERS
from unmix.learners.slow import AdaGVAE, SlowVAE
from unmix.learners.supervised import Supervised
from unmix.learners.vae import BetaTCVAE, BetaVAE
from unmix.networks.mlp import MLP
from unmix.regimes.initialise import Upstream
from unmix.worlds.cluster import ClusterWorld
from unmix.worlds.motion import TransitionWorld

WORLD = TransitionWorld(latents=2, transition={"kind": "Laplace", "rate": 2.0})
SHARED = {"network": MLP(hidden=(8,), normalise="none"), "width": 2, "steps": 8, "batch": 16}
WARM = {"heat": 16.0, "cooling": 0.5}


class Seen(Watch):
    """Notes the heat before every step; stops after `last` steps with a checkpoint, and hands it on."""

    def __init__(self, last=None, state=None):
        self.last, self.state, self.levels, self.done_steps = last, state, [], 0

    def before_step(self, step, module, optimiser):
        self.levels.append(float(module["heat"].now))

    def on_step(self, step, total, facts):
        self.done_steps = step

    def save(self, state):
        if self.done_steps == self.last:
            self.state = {name: tensor.clone() for name, tensor in state().items()}
            raise KeyboardInterrupt

    def restore(self):
        return self.state


def test_heat_falls_over_its_share_of_the_steps():
    watch = Seen()
    learnt = SlowVAE(**SHARED, **WARM).fit(WORLD, watch=watch)
    assert watch.levels == pytest.approx([16, 8, 4, 2, 1, 1, 1, 1])
    assert "heat.now" not in learnt.parts


def test_an_interrupted_run_goes_on_with_its_heat():
    learner = SlowVAE(**SHARED, **WARM)
    whole, first = learner.fit(WORLD), Seen(last=3)
    with pytest.raises(KeyboardInterrupt):
        learner.fit(WORLD, watch=first)
    second = Seen(state=first.state)
    resumed = learner.fit(WORLD, watch=second)
    assert second.levels[0] == pytest.approx(2)
    x = WORLD.sample(10, 3).x
    assert torch.equal(whole(x), resumed(x))


@pytest.mark.parametrize("cls", [SlowVAE, BetaVAE, AdaGVAE, BetaTCVAE])
def test_heat_changes_what_is_learnt_and_its_absence_nothing(cls):
    plain, x = cls(**SHARED), WORLD.sample(10, 3).x
    assert not {"heat", "cooling"} & set(plain.as_dict())
    assert not torch.equal(plain.fit(WORLD)(x), plain.but(heat=8.0).fit(WORLD)(x))
    assert LEARNERS.make(plain.but(heat=8.0).as_dict()) == plain.but(heat=8.0)


def test_an_init_that_fits_nothing_is_refused_before_training():
    world, learner = ClusterWorld(), Supervised(init=Upstream(layers="embeddings"))
    told = learner.refusal(world)
    assert told is not None and told.startswith("Supervised.init=Upstream") and "Embedding" in told
    assert "normalises" in str(Supervised(init=Upstream()).refusal(world))
    assert Supervised(network=MLP(normalise="none"), init=Upstream()).refusal(world) is None
    with pytest.raises(UsageError, match="init=Upstream"):
        learner.fit(world)
