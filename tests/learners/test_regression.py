"""Regression on real targets, and any learner with an initialisation recipe and monitors."""

from __future__ import annotations

import json

import pytest
import torch

from unmix.core.errors import UsageError
from unmix.core.sample import Sample
from unmix.core.watch import Watch
from unmix.learners.loop import moved
from unmix.learners.supervised import Regression, Supervised
from unmix.networks.mlp import MLP
from unmix.regimes.balance import unit_balance
from unmix.regimes.initialise import Upstream
from unmix.regimes.monitors import RegimeWatch
from unmix.study.learning import Learning, learn
from unmix.study.present import show_learned
from unmix.worlds.parity import Parity
from unmix.worlds.teacher import TeacherStudent

NET = MLP(hidden=(16,), activation="relu", normalise="none", bias=False)
WORLD = TeacherStudent(dimensions=4, teachers=1, rows=128)
PLAIN = Regression(
    network=NET, width=1, head=False, steps=60, batch=128, optimiser="sgd", momentum=0, lr=0.3, schedule="constant"
)


def test_real_targets_stay_real_and_labels_stay_whole():
    assert moved(Sample(x=torch.zeros(2, 1), y=torch.tensor([0.25, 0.5])), "cpu").y.tolist() == [0.25, 0.5]
    assert moved(Sample(x=torch.zeros(2, 1), y=torch.tensor([3, 4], dtype=torch.int32)), "cpu").y.dtype == torch.long


def test_regression_finds_a_teacher():
    learner = Regression(network=MLP(hidden=(64,), normalise="none"), width=8, steps=600, batch=128, lr=5e-3)
    learnt = learner.fit(WORLD)
    test = WORLD.held_out.sample(500, 1)
    made = learnt(test.x) @ learnt.parts["head.0.weight"].T + learnt.parts["head.0.bias"]
    assert float((made[:, 0] - test.y).square().mean()) < 0.05 * float(test.y.var())


def test_regression_refuses_classes_and_a_width_that_cannot_be():
    with pytest.raises(UsageError, match="for classes use Supervised"):
        Regression(network=NET, batch=8).fit(Parity(bits=6, order=2, rows=8))
    with pytest.raises(UsageError, match="without a head it must be 1"):
        PLAIN.but(width=2).fit(WORLD)


def test_an_initialisation_keeps_the_function_and_moves_the_balance():
    up = PLAIN.but(init=Upstream(alpha=10))
    plain, moved_up = PLAIN.untrained(WORLD), up.untrained(WORLD)
    x = WORLD.sample(20).x
    assert torch.allclose(plain(x), moved_up(x), atol=1e-5)
    one, other = (next(iter(unit_balance(r.module).values())).mean() for r in (plain, moved_up))
    assert one < 0 and other > 1
    again = Regression(**{k: v for k, v in up.as_dict().items() if k != "kind"})
    assert again == up and "init" not in PLAIN.as_dict()
    with pytest.raises(UsageError, match="no such initialisation"):
        PLAIN.but(init="Sideways")


class Stopping(Watch):
    """Keeps the state, and stops after a step."""

    def __init__(self, stop=None, state=None):
        self.stop, self.state = stop, state

    def on_step(self, step, total, facts):
        self.now = step

    def save(self, state):
        self.state = {name: tensor.clone() for name, tensor in state().items()}
        if self.now == self.stop:
            raise KeyboardInterrupt

    def restore(self):
        return self.state


def test_monitors_of_an_interrupted_fit_go_on_from_its_start():
    probe, up = WORLD.held_out.sample(16, 3), PLAIN.but(init=Upstream(alpha=3))

    def watch(**inner):
        return RegimeWatch(probe.x, probe.y, every=20, inner=Stopping(**inner))

    whole = watch()
    up.fit(WORLD, 1, whole)
    broken = watch(stop=33)
    with pytest.raises(KeyboardInterrupt):
        up.fit(WORLD, 1, broken)
    resumed = watch(state=broken.inner.state)
    up.fit(WORLD, 1, resumed)
    assert [r["step"] for r in resumed.records] == [0, 20, 40, 60]
    assert resumed.records == whole.records
    assert resumed.records[-1]["conservation"] == "applies" and resumed.records[-1]["drift"] < 1e-5
    other = RegimeWatch(probe.x, every=20, inner=Stopping(state=broken.inner.state), pairs=[])
    with pytest.raises(UsageError, match="the checkpoint followed the pairs"):
        up.fit(WORLD, 1, other)


def test_learn_stores_what_the_monitors_saw(tmp_path, capsys):
    up, plain = PLAIN.but(init=Upstream(alpha=10)), Supervised(network=NET, width=2, steps=10, batch=32)
    learned = learn(WORLD, [up], tmp_path, watch="regime")
    table = learned.table()
    show_learned(learned)
    assert "…" not in (shown := capsys.readouterr().out) and f"{table['hamming'][0]:.3f}" in shown
    job = Learning(world=WORLD, learner=up, watch="regime")
    records = json.loads((tmp_path / "learned" / job.digest / "regime.json").read_text())
    assert table["verdict"].tolist() == [records[-1]["verdict"]] and records[0]["kernel distance"] < 1e-9
    assert 0 <= table["hamming"][0] <= 1
    assert job.but(watch=None).digest != job.digest
    # The same pair given by hand is another job with the same numbers; one that is not there is refused in time.
    (name,) = records[0]["balance"]
    learn(WORLD, [up], tmp_path, watch="regime", pairs=[name])
    by_hand = job.but(pairs=(name,))
    assert by_hand.digest != job.digest
    assert json.loads((tmp_path / "learned" / by_hand.digest / "regime.json").read_text()) == records
    with pytest.raises(UsageError, match=r"watch\.pairs: .*no layer 'encoder\.9'.*modules of Regression are encoder"):
        learn(WORLD, [up], tmp_path / "no", watch="regime", pairs=["encoder.9 -> encoder.2"])
    with pytest.raises(UsageError, match="give watch=regime"):
        learn(WORLD, [up], tmp_path / "no", pairs=[name])
    assert not (tmp_path / "no").exists()
    # A head of classes, and an optimiser without a law of conservation.
    world = Parity(bits=8, order=2, rows=32)
    table = learn(world, [plain], tmp_path / "classes", test=64, watch="regime").table()
    assert table["relative_motion"][0] > 0 and table["drift"].isna().all()
