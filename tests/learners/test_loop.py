"""The loop: schedules, slices of a batch, clipping, precision, failures, monitors, several processes."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from unmix.core.errors import Failure, UsageError
from unmix.core.sample import Sample
from unmix.core.watch import Checkpoint, Watch
from unmix.learners.base import Learner
from unmix.learners.contrastive import InfoNCE
from unmix.learners.loop import cut, moved, schedule
from unmix.learners.representation import Representation
from unmix.learners.supervised import Supervised
from unmix.networks.mlp import MLP

from .tiny import Clusters, Walks

PLAIN = {"network": MLP(hidden=(16,), normalise="none"), "width": 3, "steps": 8, "batch": 64}


def weights(learnt: Representation) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in learnt.module.parameters()])


def test_schedules_rise_and_fall():
    assert [schedule("constant", s, 10, 0.2) for s in (0, 9)] == [1.0, 1.0]
    assert schedule("cosine", 0, 10, 0.2) == 1.0 and schedule("cosine", 5, 10, 0.2) == pytest.approx(0.5)
    assert schedule("cosine", 9, 10, 0.2) == pytest.approx(0.5 * (1 - 0.9510565))
    rise = [schedule("warm-cosine", s, 100, 0.1) for s in range(100)]
    assert rise[0] == pytest.approx(0.1) and rise[10] == 1.0 == max(rise) and rise[99] < 0.001
    assert all(a < b for a, b in itertools.pairwise(rise[:10]))
    assert all(a > b for a, b in itertools.pairwise(rise[10:]))
    decay = [schedule("warm-decay", s, 100, 0.1) for s in range(100)]
    assert decay[0] == pytest.approx(0.1) and decay[50] == 1.0 and decay[99] == pytest.approx(1 / 25)


def test_the_rate_of_a_step_reaches_the_optimiser_and_monitors_see_gradients_before_it_moves():
    seen = []

    class Monitor(Watch):
        def before_step(self, step, module, optimiser):
            rates = [group["lr"] for group in optimiser.param_groups]
            gradients = [p.grad is not None for p in module["encoder"].parameters()]
            seen.append((step, min(rates), max(rates), all(gradients), weights_of(module)))

    def weights_of(module):
        return next(module["encoder"].parameters()).detach().clone()

    learner = Supervised(**PLAIN, head_rate=3.0, lr=1e-2)
    learner.fit(Clusters(), 0, Monitor())
    assert [step for step, *_ in seen] == list(range(1, 9))
    assert all(given for *_, given, _ in seen)
    for step, low, high, *_ in seen:
        assert low == pytest.approx(learner.rate(step - 1)) and high == pytest.approx(3 * low)
    start = next(learner.untrained(Clusters(), 0).module.parameters())
    assert torch.equal(seen[0][-1], start) and not torch.equal(seen[1][-1], start)


@pytest.mark.parametrize("parts", [2, 4])
def test_a_batch_in_slices_gives_the_same_result(parts):
    whole = weights(Supervised(**PLAIN).fit(Clusters()))
    sliced = weights(Supervised(**PLAIN, accumulate=parts).fit(Clusters()))
    assert torch.allclose(whole, sliced, atol=1e-5)
    assert not torch.equal(whole, weights(Supervised(**PLAIN).untrained(Clusters())))


def test_slices_are_equal_and_never_part_a_sequence():
    sample = Walks(length=4).sample(32)
    pieces = [cut(sample, 4, number) for number in range(4)]
    assert [piece.group.unique().tolist() for piece in pieces] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert torch.equal(torch.cat([piece.x for piece in pieces]), sample.x)
    with pytest.raises(UsageError, match="not to be cut into 3"):
        cut(sample, 3, 0)
    with pytest.raises(UsageError, match="cut a sequence in two"):
        cut(sample, 16, 1)
    with pytest.raises(UsageError, match="compares all rows"):
        InfoNCE(**PLAIN, accumulate=2).fit(Walks())


def test_optimisers_decay_clip_and_precision_change_the_result_and_keep_it_finite():
    base = weights(Supervised(**PLAIN).fit(Clusters()))
    for changes in (
        {"optimiser": "sgd", "lr": 0.1},
        {"optimiser": "adamw", "weight_decay": 0.5},
        {"weight_decay": 0.5},
        {"clip": 1e-3, "optimiser": "sgd"},
        {"precision": "bfloat16"},
        {"schedule": "warm-cosine"},
    ):
        other = weights(Supervised(**{**PLAIN, **changes}).fit(Clusters()))
        assert torch.isfinite(other).all() and not torch.equal(other, base), changes


def test_clipping_bounds_the_gradient_that_the_optimiser_uses():
    class Norms(Watch):
        norms = []

        def before_step(self, step, module, optimiser):
            self.norms.append(torch.cat([p.grad.flatten() for p in module.parameters()]).norm().item())

    learnt = Supervised(**PLAIN, clip=0.01).fit(Clusters(), watch=Norms())
    assert max(Norms.norms) <= 0.01 * 1.001
    assert learnt.trace[0]["gradient"] > 0.01


def test_weight_decay_leaves_biases_and_scalars_alone():
    learner = Supervised(**PLAIN, weight_decay=0.1, bias=True)
    modules = learner._build((3,), Clusters(), as_stream())
    for group in learner._groups(modules):
        assert all((p.ndim > 1) == (group["weight_decay"] > 0) for p in group["params"])
    assert sum(len(group["params"]) for group in learner._groups(modules)) == len(list(modules.parameters()))


NORMED = {**PLAIN, "network": MLP(hidden=(16,))}


def test_batch_norm_takes_the_statistics_of_a_slice():
    learner = Supervised(**{**NORMED, "steps": 1, "optimiser": "sgd", "momentum": 0.0, "lr": 0.1, "accumulate": 2})
    sliced, whole = learner.fit(Clusters(), 1), learner.but(accumulate=1).fit(Clusters(), 1)
    begun = learner.untrained(Clusters(), 1)
    (_, batch), *_ = Clusters().batches(64, 1, as_stream(1).child("Supervised").child("batches"), 0)
    network, head = begun.module.train(), begun.parts["weights"]
    losses = [
        nn.functional.cross_entropy(network(batch.x[rows]) @ head.T, batch.y[rows])
        for rows in (slice(0, 32), slice(32, 64))
    ]
    (sum(losses) / 2).backward()
    for ours, theirs in zip(network.parameters(), sliced.module.parameters(), strict=True):
        assert torch.allclose(ours - 0.1 * ours.grad, theirs, atol=1e-6)
    assert (weights(sliced) - weights(whole)).abs().max() > 1e-4


def test_a_bias_that_batch_norm_takes_off_is_not_there_and_changes_no_other_draw():
    normed, plain = MLP(hidden=(16, 8)).build((3,), 2), MLP(hidden=(16, 8), normalise="none").build((3,), 2)
    linear = [[part for part in net if isinstance(part, nn.Linear)] for net in (normed, plain)]
    assert [part.bias is None for part in linear[0]] == [True, True, False]
    assert all(torch.equal(one.weight, two.weight) for one, two in zip(*linear, strict=True))


def test_what_processes_draw_for_themselves_is_named():
    learner = Supervised(**PLAIN)
    assert learner._drawn(nn.ModuleDict({"encoder": nn.Sequential(nn.ReLU(), nn.Dropout(0.5))}), (3,)) == ["dropout"]
    assert learner._drawn(nn.ModuleDict({"encoder": nn.Sequential(nn.ReLU(), nn.Dropout(0.0))}), (3,)) == []
    from unmix.learners.diet import Diet

    assert Diet(mixup=0.5)._drawn(nn.ModuleDict(), (3, 8, 8)) == ["augmented views", "mixed rows"]
    assert Diet()._drawn(nn.ModuleDict(), (5,)) == []


def as_stream(seed=0):
    from unmix.core.seeds import Stream

    return Stream(seed)


class Broken(Supervised):
    """Its loss is not a number in the fifth step."""

    def _loss(self, modules, batch, rng):
        loss, facts = super()._loss(modules, batch, rng)
        return loss * (float("nan") if rng.path[-1] == "step 4" else 1.0), facts


def test_a_loss_that_is_not_finite_names_the_step_and_keeps_nothing(tmp_path):
    with pytest.raises(Failure, match="the loss is nan at step 5 of 8; nothing was kept"):
        Broken(**PLAIN).fit(Clusters(), watch=Checkpoint(tmp_path, "broken", seconds=100))
    assert not list(tmp_path.glob("*.safetensors"))
    with pytest.raises(Failure, match="at step"):
        Supervised(**{**PLAIN, "lr": 1e30, "optimiser": "sgd"}).fit(Clusters())


class Averaged(Supervised):
    """Keeps a slow copy of the encoder, as a target network would be."""

    def _build(self, shape, world, rng):
        modules = super()._build(shape, world, rng)
        modules["target"] = self._network().build(shape, self.width, rng)
        modules["target"].requires_grad_(False)
        return modules

    def _after_step(self, modules, step):
        for slow, fast in zip(modules["target"].parameters(), modules["encoder"].parameters(), strict=True):
            slow.lerp_(fast, 0.5)

    def _parts(self, modules):
        return Learner._parts(self, modules)


class Stop(Watch):
    """Keeps states, and stops after step 5."""

    state = None

    def save(self, state):
        self.state = {name: tensor.clone() for name, tensor in state().items()}
        if int(self.state["step"]) == 5:
            raise KeyboardInterrupt


class States(Watch):
    """Keeps the fifth state, asked for with others in between that are not."""

    fifth, seen = None, 0

    def save(self, state):
        self.seen += 1
        if self.seen == 5:
            self.fifth = {name: tensor.clone() for name, tensor in state().items()}


class Resume(Watch):
    def __init__(self, state):
        self.state = state

    def restore(self):
        return self.state


@pytest.mark.parametrize("optimiser", ["adam", "adamw", "sgd", "muon"])
def test_modules_without_gradients_follow_and_resume_with_the_rest(optimiser):
    learner = Averaged(**{**PLAIN, "network": MLP(hidden=(16,)), "optimiser": optimiser})
    whole = learner.fit(Clusters())
    slow = torch.cat([t.flatten() for n, t in whole.parts.items() if n.startswith("target.") and "weight" in n])
    assert torch.isfinite(slow).all()
    assert not torch.equal(whole.parts["target.0.weight"], whole.module[0].weight)
    stop = Stop()
    with pytest.raises(KeyboardInterrupt):
        learner.fit(Clusters(), watch=stop)
    assert learner.fit(Clusters(), watch=Resume(stop.state)).digest == whole.digest
    again = learner.fit(Clusters(), 1, start=whole)
    assert again.about["start"] == whole.digest


def test_a_checkpoint_on_disk_is_taken_up_and_removed(tmp_path):
    learner = Supervised(**PLAIN)
    whole = learner.fit(Clusters(), 4)

    class Cut(Checkpoint):
        def on_step(self, step, total, facts):
            super().on_step(step, total, facts)
            if step == 6:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learner.fit(Clusters(), 4, Cut(tmp_path, "cut", seconds=0))
    assert (tmp_path / "checkpoint.safetensors").is_file()
    assert learner.fit(Clusters(), 4, Checkpoint(tmp_path, "again")).digest == whole.digest
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_samples_become_tensors_of_the_right_kind():
    import numpy as np

    y = np.array([1, 0], dtype=np.int32)
    made = moved(Sample(x=np.ones((2, 3)), z=np.ones((2, 1), dtype=np.float32), y=y, items=[1, 2]), "cpu")
    assert made.x.dtype == torch.float64 and made.z.dtype == torch.float32 and made.y.dtype == torch.int64
    assert made.items is None


def test_dropout_draws_from_the_stream_and_not_from_global_state():
    class Dropped(Supervised):
        def _build(self, shape, world, rng):
            modules = super()._build(shape, world, rng)
            modules["dropout"] = nn.Dropout(0.5)
            return modules

        def _run(self, module, x):
            return self_dropout[0](module(x))

    self_dropout = [nn.Dropout(0.5)]
    first = weights(Dropped(**PLAIN).fit(Clusters()))
    torch.randn(0)
    assert torch.equal(first, weights(Dropped(**PLAIN).fit(Clusters())))


TOGETHER = """
import sys
import torch
torch.set_num_threads(1)
from unmix.learners import parallel
sys.path.insert(0, sys.argv[2])
from tests.learners.test_loop import Resume, States, together
for number, (learner, world) in enumerate(together()):
    states = States()
    learnt = learner.fit(world, 1, states)
    # Taken up in the middle, in all processes from the state that the first one kept.
    kept = [states.fifth]
    torch.distributed.broadcast_object_list(kept, 0)
    assert learner.fit(world, 1, Resume(kept[0])).digest == learnt.digest
    if parallel.rank() == 0:
        learnt.save(f"{sys.argv[1]}/{number}")
    with open(f"{sys.argv[1]}/rank-{parallel.rank()}.txt", "a") as file:  # two processes' prints may share a line
        file.write(f"{parallel.rank()} {number} {learnt.digest}\\n")
"""


def together():
    """Learners that two processes train together: rows alone, rows that are compared, a head of its own."""
    from unmix.learners.contrastive import AnisotropicInfoNCE
    from unmix.learners.diet import Diet
    from unmix.learners.temporal import PermutationContrastive

    return [
        (Supervised(**PLAIN, unit_weights=True, clip=0.5), Clusters()),
        (Supervised(**PLAIN, accumulate=2), Clusters()),
        (AnisotropicInfoNCE(**PLAIN), Walks(length=4)),
        (PermutationContrastive(**PLAIN), Walks()),
        (Diet(**PLAIN, head="sharded"), Clusters(instances=33)),
        (Supervised(**NORMED), Clusters()),
        (Supervised(**NORMED, accumulate=2), Clusters()),
        (AnisotropicInfoNCE(**NORMED), Walks(length=4)),
        (Diet(**NORMED, head="sharded"), Clusters(instances=33)),
    ]


def test_two_processes_give_the_result_of_one(tmp_path):
    script = tmp_path / "together.py"
    script.write_text(TOGETHER)
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(root), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    done = subprocess.run(
        [*command, str(tmp_path), str(root)], capture_output=True, text=True, env=environment, timeout=200
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = [line.split() for file in sorted(tmp_path.glob("rank-*.txt")) for line in file.read_text().splitlines()]
    assert [(int(rank), int(fit)) for rank, fit, _ in told] == [(r, n) for r in (0, 1) for n in range(9)]
    for number, (learner, world) in enumerate(together()):
        assert len({digest for _, fit, digest in told if int(fit) == number}) == 1
        two = Representation.load(tmp_path / str(number))
        one = learner.fit(world, 1)
        assert two.about["processes"] == 2 and one.about["processes"] == 1
        moved_by = (weights(one) - weights(learner.untrained(world, 1))).abs().max()
        assert (weights(two) - weights(one)).abs().max() < 1e-3 * moved_by
        for name, part in one.parts.items():
            assert torch.allclose(two.parts[name], part, atol=1e-5)
        for line_two, line_one in zip(two.trace, one.trace, strict=True):
            assert line_two["loss"] == pytest.approx(line_one["loss"], abs=1e-5)
