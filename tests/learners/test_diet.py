"""DIET: heads that are one loss in several ways, numbers of data that stay, soft targets, and the linear theory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unmix.core.errors import Failure, UsageError
from unmix.core.seeds import Stream
from unmix.learners.diet import Diet
from unmix.learners.heads import GroupedHead, LowRankHead, drawn, require_memory
from unmix.learners.losses import smoothing_floor, soft_floor
from unmix.learners.mixing import cutmix, mixup
from unmix.learners.row_heads import RowHead, StoredHead
from unmix.learners.supervised import InstanceDiscrimination
from unmix.networks.mlp import MLP
from unmix.networks.resnet import ResNet
from unmix.study.learning import Learning, measure
from unmix.worlds.cluster import ClusterWorld
from unmix.worlds.images import Images

from ..contracts.test_learners import Keeping
from .tiny import Clusters

FIELDS = {"network": MLP(hidden=(16,)), "width": 3, "steps": 12, "batch": 64, "schedule": "cosine"}


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_the_fused_head_learns_what_the_exact_one_does(optimiser):
    fields = {**FIELDS, "head_rate": 3.0, "optimiser": optimiser}
    exact, fused = (Diet(**fields, head=head).fit(Clusters(), 1) for head in ("exact", "fused"))
    assert torch.allclose(exact.parts["weights"], fused.parts["weights"], atol=1e-5)
    ours, theirs = ([line["excess"] for line in learnt.trace] for learnt in (fused, exact))
    assert ours == pytest.approx(theirs, abs=1e-5)


def test_without_smoothing_it_is_instance_discrimination():
    common = {**FIELDS, "optimiser": "adamw", "lr": 1e-2, "steps": 200, "head_rate": 5.0}
    own = Diet(**common, smoothing=0.0).fit(Clusters(), 0).trace[-1]["loss"]
    other = InstanceDiscrimination(**common).fit(Clusters(), 0).trace[-1]["loss"]
    assert own == pytest.approx(other, abs=0.15)


HEADS = {
    "fused": {},
    "sharded": {},
    "batch": {},
    "sampled": {"negatives": 5},
    "grouped": {"groups": 20},
    "low_rank": {"rank": 2},
}


@pytest.mark.parametrize("head", list(HEADS))
def test_any_head_goes_on_in_the_middle_of_a_gap(head):
    world = Clusters(instances=300)
    learner = Diet(**{**FIELDS, "batch": 16}, head=head, **HEADS[head])
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
    assert torch.allclose(head.parts()["weights"], reference, atol=1e-13)


def test_a_stored_head_gives_the_numbers_of_one_in_memory(tmp_path):
    world = Clusters(instances=300)
    fields = {**FIELDS, "batch": 16, "head_rate": 5.0}
    kept = Diet(**fields, head="batch").fit(world, 2)
    learner = Diet(**fields, head="batch", store=str(tmp_path))
    learnt = learner.fit(world, 2)
    assert learner.digest == Diet(**fields, head="batch").digest
    assert torch.equal(learnt(world.sample(9).x), kept(world.sample(9).x)) and list(learnt.trace) == list(kept.trace)
    (file,) = tmp_path.glob("*/weights.npy")
    assert np.array_equal(np.load(file), kept.parts["weights"].numpy()) and set(learnt.parts) == {"beta"}
    before = file.read_bytes()
    learner.untrained(world, 2)
    learner.flops(world)
    assert file.read_bytes() == before


class Twice(Keeping):
    """Keeps states 5 and 8, and stops after the tenth step."""

    def save(self, state):
        if len(self.seen) in (5, 8):
            self.kept = (*getattr(self, "kept", ()), {name: tensor.clone() for name, tensor in state().items()})
        if len(self.seen) == 10:
            raise KeyboardInterrupt


@pytest.mark.parametrize("state", [0, 1])
def test_a_stored_head_is_put_back_to_either_of_the_last_two_states(state, tmp_path):
    world = Clusters(instances=300)
    learner = Diet(**{**FIELDS, "batch": 16, "head_rate": 5.0}, head="sampled", negatives=9, store=str(tmp_path))
    whole = learner.but(store=None).fit(world, 2)
    watch = Twice()
    with pytest.raises(KeyboardInterrupt):
        learner.fit(world, 2, watch)
    learnt = learner.fit(world, 2, Keeping(state=watch.kept[state]))
    assert learnt.digest == learner.fit(world, 2).digest
    (file,) = tmp_path.glob("*/weights.npy")
    assert np.array_equal(np.load(file), whole.parts["weights"].numpy())
    with pytest.raises(UsageError, match="not the files of this checkpoint"):
        learner.fit(world, 2, Keeping(state=watch.kept[state]))  # the run before made new ones


def test_a_journal_that_is_cut_off_puts_back_what_it_holds(tmp_path):
    head = StoredHead(tmp_path, 50, 4, Stream(0), [0.1] * 9, 0.01)
    draw = torch.Generator().manual_seed(0)

    def step():
        h = torch.randn(6, 4, generator=draw).requires_grad_()
        head.loss(h, torch.randint(50, (6,), generator=draw), 0.1, None, Stream(0))[0].backward()
        head.stepped()

    step()
    state = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    before = [getattr(head, name).clone() for name in ("weights", "first", "second")]
    step()
    (journal,) = tmp_path.glob("journal-1.bin")
    journal.write_bytes(journal.read_bytes() + b"\x09" + bytes(20))  # killed while it wrote on
    assert not torch.equal(head.weights, before[0])
    again = StoredHead(tmp_path, 50, 4, Stream(0), [0.1] * 9, 0.01)
    again.load_state_dict(state)
    assert all(torch.equal(getattr(again, n), t) for n, t in zip(("weights", "first", "second"), before, strict=True))


def test_rows_are_drawn_alike_whatever_share_is_asked_for():
    whole = drawn(10_000, 5, Stream(3))
    assert torch.equal(drawn(10_000, 5, Stream(3), 4000, 8500), whole[4000:8500])
    assert whole.std().item() == pytest.approx(5**-0.5, rel=0.02)


def test_low_rank_and_groups_are_the_losses_they_say():
    draw = torch.Generator().manual_seed(1)
    h, y = torch.randn(5, 6, generator=draw), torch.tensor([0, 7, 7, 3, 29])
    rows, projection = torch.randn(30, 2, generator=draw), torch.randn(2, 6, generator=draw)
    loss, _ = LowRankHead(rows, projection).loss(h, y, 0.3, None, Stream(0))
    dense = torch.nn.functional.cross_entropy(h @ (rows @ projection).T, y, label_smoothing=0.3)
    assert loss.item() == pytest.approx(dense.item(), abs=1e-5)
    grouped = GroupedHead(torch.randn(4, 6, generator=draw), 30, Stream(0))
    assert sorted(torch.bincount(grouped.groups).tolist()) == [7, 7, 8, 8]
    loss, _ = grouped.loss(h, y, 0.3, None, Stream(0))
    dense = torch.nn.functional.cross_entropy(h @ grouped.weights.T, grouped.groups[y], label_smoothing=0.3)
    assert loss.item() == pytest.approx(dense.item(), abs=1e-5)


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
    for fields, match in (
        ({"head": "exact", "store": "x"}, "uses all rows in every step"),
        ({"head": "batch", "rank": 3}, "rank=3 belongs to head=low_rank"),
        ({"head": "low_rank", "rank": 64, "width": 64}, "saves nothing at width 64"),
        ({"head": "sharded", "clip": 1.0}, "clip=None"),
    ):
        with pytest.raises(UsageError, match=match):
            Diet(**fields)
    assert "there are 20 data" in Diet(**FIELDS, head="grouped", groups=20).refusal(Clusters())
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
    assert not torch.equal(mixed(x), plain(x)) and all(line["excess"] > 0 for line in mixed.trace)


def test_a_box_of_another_picture_has_its_share_of_the_label():
    x = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 1, 8, 6)
    y = torch.arange(5)
    for number in range(20):
        mixed, both, shares = cutmix(x, y, 1.0, Stream(number))
        means = (both * shares).sum(1)
        assert torch.allclose(mixed.mean((1, 2, 3)), means, atol=1e-5)
        assert torch.equal(both[:, 0], y) and sorted(both[:, 1].tolist()) == y.tolist()
        assert shares[0, 0] == shares[4, 0]
    one, _, shares = mixup(x, y, 0.5, Stream(0))
    assert torch.allclose(one[:, 0, 0, 0], (mixup(x, y, 0.5, Stream(0))[1] * shares).sum(1))
    with pytest.raises(UsageError, match="takes images"):
        cutmix(x[:, 0], y, 1.0, Stream(0))
    assert "cuts images" in Diet(**FIELDS, cutmix=1.0).refusal(Clusters())


def test_a_share_of_the_batches_is_mixed_each_in_one_way():
    learner = Diet(mixup=0.8, cutmix=1.0, mix_share=0.5)
    x, y = torch.arange(256.0).view(4, 1, 8, 8) / 256, torch.arange(4)
    made = [learner._mixed(x, y, Stream(number)) for number in range(200)]
    plain = [torch.equal(own, x) and shares is None for own, _, shares in made]
    boxes = [shares is not None and bool((shares == shares[0]).all()) for _, _, shares in made]
    assert 70 < sum(plain) < 130 and 30 < sum(boxes) < 70


@pytest.mark.parametrize("smoothing", [0.0, 0.8])
def test_the_floor_of_mixed_targets_is_their_entropy(smoothing):
    y = torch.tensor([[0, 3], [2, 2], [4, 1]])
    shares = torch.tensor([[0.3, 0.7], [0.4, 0.6], [1.0, 0.0]], dtype=torch.float64)
    target = torch.zeros(3, 6, dtype=torch.float64).scatter_add_(1, y, shares) * (1 - smoothing) + smoothing / 6
    entropy = -torch.special.xlogy(target, target).sum(1).mean().item()
    assert soft_floor(6, smoothing, y, shares).item() == pytest.approx(entropy, abs=1e-12)
    assert soft_floor(6, smoothing, y[1:2], shares[1:2]).item() == pytest.approx(smoothing_floor(6, smoothing))


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
