"""TopK, BatchTopK and JumpReLU autoencoders: sparsity as asked for, thresholds that move, resume, going on."""

from __future__ import annotations

import pytest
import torch

from unmix.core.errors import UsageError
from unmix.core.watch import Watch
from unmix.encoders.amortised import TopK
from unmix.finders.features import assemble
from unmix.finders.thresholds import BatchTopKSAE, JumpReLUSAE
from unmix.finders.topk_sae import TopKSAE
from unmix.scores.sparsity import fvu
from unmix.worlds.sparse import SparseWorld

SMALL = {
    "topk": TopKSAE(width=40, k=3, steps=120, batch=128, dead_after=2000, aux_k=8),
    "batch": BatchTopKSAE(width=40, k=3, steps=120, batch=128, dead_after=2000, aux_k=8),
    "jump": JumpReLUSAE(width=40, active=3.0, steps=120, batch=128, dead_after=2000, aux_k=8),
}


@pytest.fixture(scope="module")
def world():
    return SparseWorld(latents=64, width=32, active=3)


@pytest.fixture(scope="module")
def train(world):
    return 3.0 * world.sample(4096, 0).x + 5.0


@pytest.fixture(scope="module")
def test(world):
    return 3.0 * world.sample(2048, 1).x + 5.0


class Stopped(Exception):
    pass


class Keeping(Watch):
    """Keeps one state at a step and stops there, or goes on from it."""

    def __init__(self, stop=None, state=None):
        self.stop, self.state, self.step = stop, state, 0

    def on_step(self, step, total, facts):
        self.step = step

    def save(self, state):
        if self.step == self.stop:
            self.state = {name: tensor.clone() for name, tensor in state().items()}
            raise Stopped

    def restore(self):
        return None if self.state is None else dict(self.state)


def test_batch_topk_has_the_mean_l0_on_held_out_rows_and_no_batch_dependence(train, test):
    features = BatchTopKSAE(width=64, k=3, steps=1200).fit(train)
    codes = features.encode(test)
    assert abs(codes.l0().double().mean().item() / 3 - 1) < 0.05
    assert codes.l0().double().std() > 0.1
    whole = codes.dense()
    alone = torch.cat([features.encode(test[i : i + 1]).dense() for i in range(64)])
    torch.testing.assert_close(alone, whole[:64], rtol=1e-6, atol=1e-5)
    assert torch.equal(alone != 0, whole[:64] != 0)
    assert fvu(test, features.reconstruct(test)).value < 0.1


def test_jump_relu_is_sparser_under_a_larger_penalty_and_its_thresholds_move(train, test):
    found = {}
    for penalty in (1e-3, 1e-1):
        features = JumpReLUSAE(width=64, penalty=penalty, steps=1500).fit(train)
        found[penalty] = features.encode(test).l0().double().mean().item()
        threshold = features.encoder.tensors["threshold"]
        assert threshold.std() > 0.05 * threshold.mean()
        alone = torch.cat([features.encode(test[i : i + 1]).dense() for i in range(32)])
        torch.testing.assert_close(alone, features.encode(test[:32]).dense(), rtol=1e-6, atol=1e-5)
    assert found[1e-3] > 5 * found[1e-1] > 0


def test_jump_relu_reaches_the_wanted_sparsity(train, test):
    features = JumpReLUSAE(width=64, active=3.0, steps=1500).fit(train)
    assert abs(features.encode(test).l0().double().mean().item() / 3 - 1) < 0.15
    assert fvu(test, features.reconstruct(test)).value < 0.15


@pytest.mark.parametrize("name", list(SMALL))
def test_a_resumed_fit_is_the_uninterrupted_one_bit_for_bit(name, train):
    whole = SMALL[name].fit(train)
    watch = Keeping(stop=70)
    with pytest.raises(Stopped):
        SMALL[name].fit(train, watch=watch)
    again = SMALL[name].fit(train, watch=Keeping(state=watch.state))
    assert again.digest == whole.digest


@pytest.mark.parametrize("name", list(SMALL))
def test_one_thread_and_two_agree_and_atoms_have_unit_norm(name, train):
    found = []
    before = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(SMALL[name].but(steps=30).fit(train))
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(found[0].atoms, found[1].atoms, rtol=1e-5, atol=1e-5)
    assert (found[0].atoms.double().norm(dim=1) - 1).abs().max() < 1e-6


@pytest.mark.parametrize("name", list(SMALL))
def test_centre_and_scale_are_folded_away(name, train, test):
    """Rows that are moved and stretched give the same codes, stretched."""
    one = SMALL[name].fit(train)
    other = SMALL[name].fit(4.0 * train - 8.0)
    torch.testing.assert_close(
        other.encode(4.0 * test - 8.0).dense(), 4.0 * one.encode(test).dense(), rtol=2e-3, atol=2e-2
    )
    torch.testing.assert_close(other.bias, 4.0 * one.bias - 8.0, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("name", list(SMALL))
def test_going_on_starts_where_the_other_ended(name, train, test):
    recipe = SMALL[name].but(steps=600)
    start = recipe.fit(train)
    short = recipe.but(steps=20, lr=1e-5, **({"warm_up": 0.0} if name == "jump" else {}))
    again = short.fit(train, start=start)
    torch.testing.assert_close(again.atoms, start.atoms, atol=1e-2, rtol=0)
    torch.testing.assert_close(again.bias, start.bias, atol=0.1, rtol=0)
    errors = [fvu(test, features.reconstruct(test)).value for features in (start, again, short.fit(train))]
    assert errors[1] < errors[0] + 0.03 < errors[2]
    norms = torch.linspace(0.5, 2, 40)
    stretched = type(start)(start.atoms * norms[:, None], start.bias, start.encoder)
    assert torch.isfinite(short.fit(train, start=stretched).atoms).all()


@pytest.mark.parametrize("name", list(SMALL))
def test_dead_latents_come_back_through_auxk(name, train):
    """Half of the latents read too weakly to be chosen; trained on the residual they fire again."""
    draw = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(40, 32, generator=draw))
    weak = torch.where(torch.arange(40) < 20, 1.0, 0.02)
    tensors = {"weight": atoms * weak[:, None], "shift": torch.zeros(40)}
    start = assemble(atoms, train.mean(0), TopK(k=3), tensors)
    dead = {}
    for aux_k in (0, 8):
        features = SMALL[name].but(steps=200, dead_after=300, aux_k=aux_k, lr=1e-3).fit(train, start=start)
        dead[aux_k] = int((features.encode(train).firing() == 0).sum())
    assert dead[8] <= dead[0] / 2 > 0


def test_impossible_options_are_refused():
    for wrong in ({}, {"active": 70.0}, {"penalty": -1.0}, {"active": 2.0, "bandwidth": 0.0}):
        with pytest.raises(UsageError):
            JumpReLUSAE(width=64, **wrong)
    with pytest.raises(UsageError, match="k=9 must be at most"):
        BatchTopKSAE(width=8, k=9)
