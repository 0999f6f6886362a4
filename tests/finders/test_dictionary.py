"""Sparse coding: what it recovers and at what cost, restarts, resumption, going on, and rows of every odd kind."""

from __future__ import annotations

import contextlib
import itertools

import numpy as np
import pytest
import torch

from unmix.activations.shards import ShardRows, ShardWriter
from unmix.core.errors import Failure, Notice, UsageError
from unmix.core.rows import ArrayRows
from unmix.core.seeds import Stream
from unmix.core.watch import Watch
from unmix.encoders.iterative import Fista
from unmix.finders.alternation import Alternation, batch_count, batches
from unmix.finders.dictionary import SparseCoding
from unmix.finders.features import replace
from unmix.scores.matching import dictionary_mcc, mcc
from unmix.worlds.sparse import SparseWorld

FLOORS = {(16, 8, 3): (0.99, 0.97), (64, 32, 3): (0.99, 0.99), (128, 32, 9): (0.95, 0.90)}
BUDGET = 1e10  # counted operations of (16, 8, 3), all restarts together


def recovered(size: tuple[int, int, int], seed: int, **fields):
    latents, width, active = size
    world = SparseWorld(latents=latents, width=width, active=active, seed=seed)
    train, test = world.sample(1024, seed), world.sample(1024, 1000 + seed)
    features = SparseCoding(width=latents, penalty=0.1, read_penalty=0.02, **fields).fit(train.x, rng=seed)
    codes = replace(features, encoder=Fista(penalty=0.02)).encode(test.x)
    return dictionary_mcc(features.atoms, world.atoms).value, mcc(codes, test.z).value, features.about


@pytest.mark.parametrize("size", FLOORS)
def test_both_unknown_are_recovered(size):
    few = size[0] < 128
    atoms, codes, about = recovered(size, 0, passes=100 if few else 300, restarts=4 if few else 1)
    assert atoms >= FLOORS[size][0]
    assert codes >= FLOORS[size][1]
    assert size != (16, 8, 3) or about["flops"] <= BUDGET


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", FLOORS)
def test_both_unknown_are_recovered_on_every_seed(size, seed):
    atoms, codes, about = recovered(size, seed, passes=300, restarts=3)
    assert atoms >= FLOORS[size][0]
    assert codes >= FLOORS[size][1]
    assert size != (16, 8, 3) or about["flops"] <= BUDGET


@pytest.fixture(scope="module")
def rows():
    return SparseWorld(latents=24, width=12, active=3).sample(500, 0).x + 0.5


def objective(features, x, penalty: float) -> float:
    codes = Fista(penalty=penalty, tolerance=1e-6).bind(features)(x)
    error = (x - features.decode(codes)).square().sum(1) / 2
    return float((error + penalty * codes.dense().sum(1)).double().mean())


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("tolerance", [1e-6, 1e-2])
def test_the_objective_never_rises_on_a_fixed_batch(rows, bias, tolerance):
    start = torch.nn.functional.normalize(rows[:30])
    learner = Alternation(start, penalty=0.05, bias=bias, window=1, tolerance=tolerance)
    found = [float(learner.step(rows, place=0)["objective"]) for _ in range(40)]
    assert all(after <= before * (1 + 1e-5) for before, after in itertools.pairwise(found))
    assert found[-1] < 0.6 * found[0]
    assert torch.equal(start, torch.nn.functional.normalize(rows[:30]))


@pytest.mark.parametrize(("passes", "batch"), [(20, 512), (3, 64)])
def test_going_on_does_not_make_it_worse(rows, passes, batch):
    first = SparseCoding(width=24, penalty=0.05, passes=passes, batch=batch).fit(rows)
    more = first
    for seed in (1, 2):
        more, before = SparseCoding(width=24, penalty=0.05, passes=10, batch=batch).fit(rows, seed, start=more), more
        assert more.about["start"] == before.digest
        assert objective(more, rows, 0.05) <= objective(before, rows, 0.05) * (1 + 1e-3)
    assert objective(more, rows, 0.05) < objective(first, rows, 0.05)


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_the_restart_of_least_objective_is_kept(rows, bad, monkeypatch):
    honest = SparseCoding._first_atoms

    def planted(self, run, draw):
        atoms = honest(self, run, draw)
        alike = atoms[:1] + 1e-3 * atoms
        return torch.nn.functional.normalize(alike) if draw.path[-1] == f"restart {bad}" else atoms

    monkeypatch.setattr(SparseCoding, "_first_atoms", planted)
    features = SparseCoding(width=24, penalty=0.05, passes=1, restarts=3).fit(rows)
    tried = features.about["objectives"]
    assert len(tried) == 3
    assert max(tried) == tried[bad] > 1.05 * min(tried)
    assert features.about["restart"] == tried.index(min(tried)) != bad
    assert objective(features, rows, 0.05) == pytest.approx(min(tried), rel=2e-2)


def test_a_restart_is_the_same_alone_or_among_others(rows):
    three = SparseCoding(width=24, penalty=0.05, passes=4, restarts=3).fit(rows).about["objectives"]
    two = SparseCoding(width=24, penalty=0.05, passes=4, restarts=2).fit(rows).about["objectives"]
    assert three[:2] == two
    assert len(set(three)) == 3


class Interrupted(Watch):
    """Keeps the state after every step, and ends the work at one of them."""

    def __init__(self, at: int, state=None) -> None:
        self.at, self.kept, self.seen = at, state, 0

    def on_step(self, step, total, facts):
        self.seen = step
        if step == self.at + 1:
            raise KeyboardInterrupt

    def save(self, state):
        self.kept = {name: tensor.clone() for name, tensor in state().items()}

    def restore(self):
        return self.kept


@pytest.mark.parametrize(
    ("fields", "stops"),
    [
        ({"penalty": 0.05, "batch": 100}, (3, 11)),
        ({"active": 3, "batch": 100, "restarts": 2, "read_penalty": 0.01}, (4, 19, 20, 33, 39)),
        ({"active": 3, "batch": 100, "inference": "omp", "restarts": 2}, (21,)),
        ({"penalty": 0.05, "batch": 100, "eased": True, "every": 1, "copies": 0.7}, (1, 7)),
    ],
)
def test_resuming_is_the_same_as_never_stopping(rows, fields, stops):
    recipe = SparseCoding(width=24, passes=4, **fields)
    whole = recipe.fit(rows)
    state = None
    for stop in stops:
        watch = Interrupted(stop, state)
        with pytest.raises(KeyboardInterrupt):
            recipe.fit(rows, watch=watch)
        state = watch.kept
    resumed = recipe.fit(rows, watch=Interrupted(-1, state))
    assert resumed.digest == whole.digest
    assert {**resumed.about, "seconds": 0} == {**whole.about, "seconds": 0}


def test_a_stream_of_shards_is_the_same_as_the_array(rows, tmp_path):
    writer = ShardWriter(tmp_path / "shards", 12, shard_bytes=6000)
    writer.append(rows)
    writer.finish()
    recipe = SparseCoding(width=24, penalty=0.05, passes=3, batch=150)
    found = recipe.fit(ShardRows(tmp_path / "shards"))
    assert torch.equal(found.atoms, recipe.fit(rows).atoms)


def test_batches_come_again_and_leave_no_row_out(rows):
    held = ArrayRows(rows)
    assert batch_count(held, 150) == 4
    seen = list(batches(held, 150, 2, Stream(3)))
    assert [step for step, _, _ in seen] == list(range(8))
    for (_, place, block), (_, again, same) in zip(seen[:4], seen[4:], strict=True):
        assert place == again and torch.equal(block, same)
    assert torch.equal(torch.cat([x for _, _, x in seen[:4]]).sort(0).values, rows.sort(0).values)
    later = list(batches(held, 150, 2, Stream(3), done=5))
    assert [step for step, _, _ in later] == [5, 6, 7] and torch.equal(later[0][2], seen[5][2])


def test_an_eased_penalty_falls_to_the_one_asked_for():
    world = SparseWorld(latents=128, width=32, active=4, seed=0)
    x = world.sample(6000, 0).x
    found = {}
    for eased in (False, True):
        start = torch.nn.functional.normalize(x[:128])
        learner = Alternation(start, penalty=0.1, eased=eased, copies=0.6, every=1, tolerance=1e-2)
        penalties = []
        for step, block in enumerate(x.split(250)):
            learner.step(block, rng=Stream(0).child(step))
            penalties.append(learner.eased)
        found[eased] = dictionary_mcc(learner.atoms, world.atoms).value
        assert all(after <= before for before, after in itertools.pairwise(penalties))
        assert all(after >= 0.8 * before * (1 - 1e-9) for before, after in itertools.pairwise(penalties))
        assert (penalties[0] > 0.2) == eased
        learner.step(x[:250])
        assert learner.eased == 0
        codes, objective = learner.codes(x[:9])
        error = (x[:9] - codes.decode(learner.atoms)).square().sum(1) / 2
        assert torch.allclose(objective.float(), error + 0.1 * codes.dense().sum(1), rtol=1e-3)
    assert found[True] > found[False] + 0.03


def test_the_torch_path_finds_the_same(monkeypatch):
    x = SparseWorld(latents=16, width=8, active=2).sample(600, 0).x
    recipes = SparseCoding(width=16, penalty=0.1, passes=40), SparseCoding(width=16, active=2, inference="omp")
    compiled = [recipe.fit(x) for recipe in recipes]
    for module in ("lasso", "omp", "update"):
        monkeypatch.setattr(f"unmix.kernels.{module}.compiled_wanted", lambda *arguments: False)
    for recipe, wanted in zip(recipes, compiled, strict=True):
        found = recipe.fit(x)
        assert not torch.equal(found.atoms, wanted.atoms)
        assert dictionary_mcc(found.atoms, wanted.atoms).value > 0.99


def test_active_codes_are_as_many_as_asked_for(rows):
    for wanted in (2.0, 5.0):
        features = SparseCoding(width=24, active=wanted, passes=60).fit(rows)
        assert features.encode(rows).l0().double().mean().item() == pytest.approx(wanted, rel=0.1)


def test_signed_codes_the_bias_and_the_reader_are_as_asked_for(rows):
    signed = SparseCoding(width=24, penalty=0.05, positive=False, passes=10).fit(rows)
    assert signed.encode(rows).dense().min() < 0
    zero = SparseCoding(width=24, penalty=0.05, bias="zero", passes=10).fit(rows)
    assert not zero.bias.any()
    mean = SparseCoding(width=24, penalty=0.05, bias="mean", passes=10).fit(rows)
    assert torch.allclose(mean.bias, rows.mean(0), atol=1e-5)
    learnt = SparseCoding(width=24, penalty=0.05, passes=10).fit(rows)
    assert objective(learnt, rows, 0.05) < objective(mean, rows, 0.05)
    assert learnt.encoder.recipe.penalty == pytest.approx(0.05)
    read = SparseCoding(width=24, penalty=0.05, read_penalty=0.01, passes=10).fit(rows)
    assert read.encoder.recipe.penalty == 0.01


def test_options_that_do_not_fit_are_refused(rows):
    with pytest.raises(UsageError, match="one of penalty and active"):
        SparseCoding(penalty=0.1, active=3)
    with pytest.raises(UsageError, match="eased"):
        SparseCoding(active=3, eased=True)
    with pytest.raises(UsageError, match="read_penalty"):
        SparseCoding(active=3, inference="omp", read_penalty=0.1)
    with pytest.raises(Failure, match="fewer or use more atoms"):
        SparseCoding(width=24, active=24).fit(rows)


def odd(kind: str) -> torch.Tensor:
    x = SparseWorld(latents=10, width=5, active=2).sample(60, 0).x
    if kind == "constant columns":
        x[:, [1, 3]] = 7.0
    elif kind == "duplicated rows":
        x = x[:4].repeat(15, 1)
    elif kind == "fewer rows than atoms":
        x = x[:3]
    elif kind == "width 1":
        x = x[:, :1]
    elif kind == "zero rows":
        x[:50] = 0
    elif kind == "float64":
        x = x.double()
    elif kind == "huge":
        x = x * 1e8
    return x


@pytest.mark.parametrize(
    "fields",
    [{"penalty": 0.1}, {"active": 1.0}, {"active": 1.0, "inference": "omp"}, {"penalty": 0.0}],
    ids=["penalty", "active", "omp", "no penalty"],
)
@pytest.mark.parametrize(
    "kind",
    ["constant columns", "duplicated rows", "fewer rows than atoms", "width 1", "zero rows", "float64", "huge"],
)
def test_odd_rows_give_finite_unit_atoms(kind, fields):
    x = odd(kind)
    jumps = fields == {"active": 1.0} and kind in ("width 1", "zero rows")  # atoms there are alike or fire together
    with pytest.warns(Notice, match="is the nearest that a penalty gives") if jumps else contextlib.nullcontext():
        features = SparseCoding(width=10, passes=6, batch=20, restarts=2, **fields).fit(x)
    assert torch.isfinite(features.atoms).all() and features.atoms.dtype == torch.float32
    assert (features.atoms.norm(dim=1) - 1).abs().max() < 1e-5
    left = (x - features.reconstruct(x)).double().square().sum()
    assert left <= (x - x.mean(0)).double().square().sum() * 1.01
    assert np.isfinite(features.about["objectives"]).all()


def test_rows_that_are_all_equal_are_refused():
    with pytest.raises(UsageError, match="nothing to find"):
        SparseCoding(width=4, penalty=0.1).fit(torch.zeros(20, 3))
