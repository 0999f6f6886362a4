"""DIET: heads that are one loss in several ways, numbers of data that stay, soft targets, and the linear theory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unmix.core.errors import Failure, UsageError
from unmix.core.seeds import Stream
from unmix.learners.diet import Diet
from unmix.learners.heads import RowHead, require_memory
from unmix.learners.supervised import InstanceDiscrimination
from unmix.networks.mlp import MLP
from unmix.networks.resnet import ResNet
from unmix.study.learning import Learning, measure
from unmix.worlds.cluster import ClusterWorld
from unmix.worlds.images import Images

from ..contracts.test_learners import Keeping
from .tiny import Clusters

FIELDS = {"network": MLP(hidden=(16,)), "width": 3, "steps": 12, "batch": 64, "schedule": "cosine"}


def test_the_fused_head_learns_what_the_exact_one_does():
    exact, fused = (Diet(**FIELDS, head=head, head_rate=3.0).fit(Clusters(), 1) for head in ("exact", "fused"))
    assert torch.allclose(exact.parts["weights"], fused.parts["weights"], atol=1e-5)
    ours, theirs = ([line["excess"] for line in learnt.trace] for learnt in (fused, exact))
    assert ours == pytest.approx(theirs, abs=1e-5)


def test_without_smoothing_it_is_instance_discrimination():
    common = {**FIELDS, "optimiser": "adamw", "lr": 1e-2, "steps": 200, "head_rate": 5.0}
    own = Diet(**common, smoothing=0.0).fit(Clusters(), 0).trace[-1]["loss"]
    other = InstanceDiscrimination(**common).fit(Clusters(), 0).trace[-1]["loss"]
    assert own == pytest.approx(other, abs=0.15)


@pytest.mark.parametrize("head", ["fused", "batch", "sampled"])
def test_a_head_that_moves_itself_goes_on_in_the_middle_of_a_gap(head):
    world = Clusters(instances=300)
    learner = Diet(**{**FIELDS, "batch": 16}, head=head, negatives=5)
    whole = learner.fit(world, 2)
    watch = Keeping(stop=5)
    with pytest.raises(KeyboardInterrupt):
        learner.fit(world, 2, watch)
    learnt = learner.fit(world, 2, Keeping(state=watch.state))
    assert learnt.digest == whole.digest


def test_rows_of_a_batch_are_dense_adamw_on_the_loss_over_the_batch():
    draw = torch.Generator().manual_seed(0)
    weights = torch.randn(40, 4, generator=draw, dtype=torch.float64)
    lrs = [0.05 * (1 - step / 30) for step in range(30)]
    head, reference = RowHead(weights.clone(), lrs, 0.1), weights.clone().requires_grad_()
    optimiser = torch.optim.AdamW([reference], weight_decay=0.1)
    for step in range(30):
        h = torch.randn(6, 4, generator=draw, dtype=torch.float64).requires_grad_()
        y = torch.randint(40, (6,), generator=draw)
        rows, place = torch.unique(y, return_inverse=True)
        dense = torch.nn.functional.cross_entropy(h @ reference[rows].T, place, label_smoothing=0.5)
        loss, _ = head.loss(h, y, 0.5, None, Stream(step))
        assert loss.item() == pytest.approx(dense.item(), abs=1e-12)
        loss.backward()
        head.stepped()
        optimiser.zero_grad()
        dense.backward()
        optimiser.param_groups[0]["lr"] = lrs[step]
        optimiser.step()
    assert torch.allclose(head.settled(), reference, atol=1e-13)


def test_all_negatives_give_the_exact_loss():
    weights = torch.randn(30, 4, generator=torch.Generator().manual_seed(1))
    h, y = torch.randn(5, 4, generator=torch.Generator().manual_seed(2)), torch.arange(5)
    loss, _ = RowHead(weights, [0.1], 0.0, negatives=100).loss(h, y, 0.0, None, Stream(0))
    assert loss.item() == pytest.approx(torch.nn.functional.cross_entropy(h @ weights.T, y).item(), abs=1e-5)


def test_impossible_settings_are_refused():
    with pytest.raises(UsageError, match="give optimiser=adamw"):
        Diet(head="fused", optimiser="sgd")
    with pytest.raises(UsageError, match="accumulate=1"):
        Diet(head="batch", accumulate=2)
    with pytest.raises(Failure, match="this machine has"):
        require_memory("Diet", 10**12, 512)
    with pytest.raises(UsageError, match="one datum"):
        Diet(**FIELDS).fit(Clusters(instances=1))


def test_mixed_rows_have_mixed_targets_and_the_online_probe_leaves_the_network_alone():
    world = Images(path="digits")
    fields = {"network": ResNet(channels=4, blocks=(1,)), "width": 4, "steps": 6, "augment": None}
    plain, probed = (Diet(**fields, online=online).fit(world, 0) for online in (False, True))
    x = world.sample(20, 3).x
    assert torch.equal(plain(x), probed(x))
    assert probed.parts["probe.weight"].shape == (10, 4) and "online" in probed.trace[-1]
    assert probed.trace[-1]["loss"] == plain.trace[-1]["loss"]
    mixed = Diet(**fields, mixup=0.8).fit(world, 0)
    assert not torch.equal(mixed(x), plain(x)) and "excess" not in mixed.trace[-1]


def test_going_on_from_a_network_keeps_its_weights():
    world = Images(path="digits", held=0.5)
    fields = {"network": ResNet(channels=4, blocks=(1,)), "width": 4, "steps": 3, "augment": None}
    start = Diet(**fields).fit(world, 0)
    other = Images(path="digits", held=0.7)
    learnt = Diet(**fields, lr=1e-9).fit(other, 1, start=start)
    ours, theirs = (next(r.module.parameters()) for r in (learnt, start))
    assert torch.allclose(ours, theirs, atol=1e-6)
    assert len(learnt.parts["weights"]) == other.size != len(start.parts["weights"])


def test_linear_diet_with_squares_has_the_closed_form():
    """min over A, W of E|e_i - W A x|^2 is 1 - mean of the k largest eigenvalues of (S, C), over N data."""
    draw = np.random.default_rng(0)
    data, views, width, k = 12, 4000, 6, 3
    centres = draw.normal(size=(data, width)) * np.asarray([3.0, 2.0, 1.5, 1.0, 0.5, 0.2])
    x = centres[:, None] + draw.normal(size=(data, views, width))
    flat, index = x.reshape(-1, width), np.repeat(np.arange(data), views)
    c = flat.T @ flat / len(flat)
    means = x.mean(1)
    s = means.T @ means / data
    from scipy.linalg import eigh

    values, vectors = eigh(s, c)
    best = 1 - values[::-1][:k].sum() / data
    # The best W for features A x is least squares on the one-hot numbers.
    features = flat @ vectors[:, ::-1][:, :k]
    onehot = np.eye(data)[index]
    weights = np.linalg.lstsq(features, onehot, rcond=None)[0]
    reached = ((onehot - features @ weights) ** 2).sum(1).mean()
    # S a = lambda C a with E over all rows: sum_i |E[x 1_i]|^2 = S / N, hence the factor 1 / N.
    assert reached == pytest.approx(best, abs=1e-10)
    sizes = ((width, k), (k, data))
    encoder, head = (torch.from_numpy(draw.normal(size=size) * 0.3).requires_grad_() for size in sizes)
    ct, mt = torch.from_numpy(c), torch.from_numpy(means)

    def loss():
        w = encoder @ head
        return 1 - 2 * (mt @ w).diagonal().mean() + (w.T @ ct @ w).trace()

    optimiser = torch.optim.LBFGS([encoder, head], max_iter=800, tolerance_grad=1e-12, tolerance_change=1e-15,
                                  line_search_fn="strong_wolfe")  # fmt: skip

    def closure():
        optimiser.zero_grad()
        value = loss()
        value.backward()
        return value

    optimiser.step(closure)
    assert loss().item() == pytest.approx(best, abs=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_diet_recovers_the_latents_of_a_cluster_world(seed):
    world = ClusterWorld(latents=5, classes=100, concentration=10, instances=1000, seed=seed)
    learner = Diet(network=MLP(), width=5, steps=2000, batch=1024, lr=2e-3, smoothing=0.0, weight_decay=0.0,
                   schedule="cosine", head_rate=5.0)  # fmt: skip
    scores = measure(Learning(world=world, learner=learner, seed=seed), learner.fit(world, seed))["scores"]
    assert scores["r2"]["value"] >= 0.985
