"""bfloat16: what the networks compute in it, what stays float32, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unmix.core.errors import UsageError
from unmix.core.seeds import Stream
from unmix.core.watch import Watch
from unmix.learners.contrastive import InfoNCE
from unmix.learners.losses import (
    anisotropic_info_nce,
    cross_entropy_head,
    gcl,
    info_nce,
    logistic,
    pcl,
    spectral_contrastive,
    tcl,
)
from unmix.learners.supervised import InstanceDiscrimination, Regression, Supervised
from unmix.learners.temporal import Components, PermutationContrastive
from unmix.networks.mlp import MLP
from unmix.scores.identifiability.linear import r2
from unmix.worlds.teacher import TeacherStudent

from .tiny import Clusters, Walks

SMALL = {"network": MLP(hidden=(32, 32)), "width": 3, "steps": 20, "batch": 128}


def draw(*shape: int, name: str = "x") -> torch.Tensor:
    return torch.randn(*shape, generator=Stream(0).child(name).torch())


def losses() -> dict:
    """Every loss as a function of two matrices of features [64, 8], its scale such that bfloat16 logits are wrong."""
    order, label = torch.randperm(64, generator=Stream(1).torch()), torch.arange(64) % 16
    metric, bias = torch.linspace(0.5, 2, 8), draw(16, name="bias")
    pair, alone = Components(8, 1, 4, Stream(2)), Components(8, 8, 4, Stream(3))
    return {
        "cross_entropy_head": lambda a, b: cross_entropy_head(a, b[:16], 4.0, None, label, 0.1),
        "with a bias": lambda a, b: cross_entropy_head(a, b[:16], 4.0, bias, label),
        "tcl": lambda a, b: tcl(a, b[:16], bias, label),
        "info_nce": lambda a, b: info_nce(a, b, "vmf", 4.0),
        "laplace": lambda a, b: info_nce(a, b, similarity="laplace", beta=2.0),
        "anisotropic": lambda a, b: anisotropic_info_nce(a, b, metric),
        "spectral": spectral_contrastive,
        "logistic": lambda a, b: logistic(a[:, 0], b[:, 0]),
        "pcl": lambda a, b: pcl(a, b, order, pair),
        "gcl": lambda a, b: gcl(h=a, auxiliary=b, order=order, component=alone),
    }


@pytest.mark.parametrize("name", losses())
def test_losses_of_half_precision_features_are_those_of_float32(name):
    loss = losses()[name]
    a, b = (draw(64, 8, name=name).bfloat16().requires_grad_() for name in "ab")
    wide = loss(a.detach().float(), b.detach().float())
    with torch.autocast("cpu", torch.bfloat16):
        half = loss(a, b)
        half.backward()
    assert half.dtype == torch.float32 and torch.equal(half, wide)
    assert a.grad.dtype == torch.bfloat16 and torch.isfinite(a.grad).all() and a.grad.abs().sum() > 0


def test_double_precision_stays_double():
    a, b = draw(8, 3).double(), draw(8, 3, name="b").double()
    assert info_nce(a, b).dtype == cross_entropy_head(a, b, 1.0, None, torch.arange(8)).dtype == torch.float64


def test_autocast_alone_would_round_the_logits():
    a, b = draw(64, 8, name="a"), draw(64, 8, name="b")
    with torch.autocast("cpu", torch.bfloat16):
        rounded = nn.functional.cross_entropy(4 * a @ b.T, torch.arange(64))
        kept = info_nce(a, b, "vmf", 4.0, symmetric=False)
    assert abs(rounded - info_nce(a, b, "vmf", 4.0, symmetric=False)) > 1e-3
    assert torch.equal(kept, info_nce(a, b, "vmf", 4.0, symmetric=False))


class Kinds(Watch):
    """The kinds of numbers of a training step."""

    def before_step(self, step, module, optimiser):
        tensors = [*module.parameters(), *(p.grad for p in module.parameters()), *module.buffers()]
        moments = [value for state in optimiser.state.values() for value in state.values()]
        self.seen = {t.dtype for t in (*tensors, *moments) if isinstance(t, torch.Tensor) and t.is_floating_point()}


class Inside(Supervised):
    """Keeps what its network computed in and what the loss was given."""

    def _run(self, module, x):
        seen = []
        hook = module[0].register_forward_hook(lambda *given: seen.append(given[2].dtype))
        made = super()._run(module, x)
        hook.remove()
        DTYPES.append((seen[0], made.dtype))
        return made


DTYPES: list[tuple[torch.dtype, torch.dtype]] = []


@pytest.mark.parametrize("optimiser", ["adam", "muon"])
def test_networks_compute_in_bfloat16_and_everything_kept_is_float32(optimiser):
    DTYPES.clear()
    watch = Kinds()
    learnt = Inside(**SMALL, precision="bfloat16", optimiser=optimiser).fit(Clusters(), watch=watch)
    assert set(DTYPES) == {(torch.bfloat16, torch.float32)}
    assert watch.seen == {torch.float32}
    assert {tensor.dtype for tensor in learnt.module.state_dict().values()} == {torch.float32, torch.int64}
    assert learnt(Clusters().sample(8).x).dtype == torch.float32
    DTYPES.clear()
    Inside(**SMALL).fit(Clusters())
    assert set(DTYPES) == {(torch.float32, torch.float32)}


@pytest.mark.parametrize(
    ("learner", "world"),
    [
        (Supervised(**SMALL, unit_features=True, unit_weights=True), Clusters()),
        (InstanceDiscrimination(**SMALL, smoothing=0.1), Clusters()),
        (InfoNCE(**SMALL), Walks()),
        (PermutationContrastive(**SMALL), Walks()),
        (Regression(**{**SMALL, "network": MLP(hidden=(32,), normalise="none")}), TeacherStudent(dimensions=5)),
    ],
    ids=lambda given: getattr(given, "kind", ""),
)
def test_training_steps_follow_those_of_float32(learner, world):
    wide, half = (learner.but(precision=kind).fit(world) for kind in ("float32", "bfloat16"))
    first, last = (abs(half.trace[i]["loss"] / wide.trace[i]["loss"] - 1) for i in (0, -1))
    assert 0 < first < 0.02 and last < 0.1
    assert half.trace[-1]["loss"] < half.trace[0]["loss"]


def test_latents_come_back_as_well_as_in_float32():
    learner = Supervised(network=MLP(hidden=(32, 32)), width=3, steps=300, batch=256, lr=1e-2, head_rate=5.0)
    sample = Clusters().sample(2000, 9)
    wide, half = (r2(learner.but(precision=p).fit(Clusters())(sample.x), sample.z) for p in ("float32", "bfloat16"))
    assert wide.value > 0.95 and half.value > wide.value - 0.02


def test_a_checkpoint_of_bfloat16_goes_on_to_the_same_numbers():
    learner = Supervised(**SMALL, precision="bfloat16")

    class Cut(Watch):
        def save(self, state):
            self.state = {name: tensor.clone() for name, tensor in state().items()}
            if int(self.state["step"]) == 7:
                raise KeyboardInterrupt

    class Resume(Watch):
        def restore(self):
            return cut.state

    cut = Cut()
    with pytest.raises(KeyboardInterrupt):
        learner.fit(Clusters(), watch=cut)
    assert learner.fit(Clusters(), watch=Resume()).digest == learner.fit(Clusters()).digest


@pytest.mark.parametrize("precision", ["float16", "half", "float64"])
def test_other_precisions_are_refused(precision):
    with pytest.raises(UsageError, match=r"precision.*float32.*bfloat16"):
        Supervised(precision=precision)
