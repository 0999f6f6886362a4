"""The dense autoencoders: encoder and penalty, exact folding, resuming, going on, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from unmix.core.adam import Adam
from unmix.core.errors import Failure, UsageError
from unmix.core.seeds import Stream
from unmix.core.watch import Watch
from unmix.encoders import ENCODERS
from unmix.encoders.amortised import MLP, Linear
from unmix.encoders.gates import AbsTopK, Gated, Matryoshka
from unmix.encoders.unrolled import Lista
from unmix.finders.backward import LAYERS
from unmix.finders.centres import geometric_median
from unmix.finders.controls import RandomAtoms
from unmix.finders.features import Features, assemble
from unmix.finders.penalties import SparsityWeight
from unmix.finders.sae import SAE

QUICK = {"width": 20, "steps": 60, "batch": 128}
KINDS = {
    "Linear": {"encoder": Linear(), "active": 2.0},
    "Linear without bias": {"encoder": Linear(bias=False), "weight": 0.01, "bias": False},
    "MLP": {"encoder": MLP(hidden=16), "active": 2.0},
    "Lista": {"encoder": Lista(layers=2), "penalty": 0.1},
    "Gated": {"encoder": Gated(), "active": 2.0},
    "tanh": {"encoder": Linear(), "sparsity": "tanh", "penalty": 0.1},
    "TopK": {"encoder": ENCODERS.make({"kind": "TopK", "k": 2})},
    "AbsTopK": {"encoder": AbsTopK(k=2)},
    "Matryoshka": {"encoder": Matryoshka(k=2, prefixes=(5, 10))},
    "BatchTopK": {"encoder": ENCODERS.make({"kind": "BatchTopK", "k": 2})},
    "JumpReLU": {"encoder": ENCODERS.make("JumpReLU"), "sparsity": "l0", "penalty": 0.1},
}
HARD = {"revive": "aux", "dead_after": 200, "aux_k": 4, "orthogonal": True, "centre": "median"}


class Stopped(Exception):
    pass


class Looking(Watch):
    """Keeps the state after every step; stops after `last` of them."""

    def __init__(self, last: int | None = None, state=None) -> None:
        self.last, self.state, self.given = last, None, state
        self.steps, self.norms = 0, []

    def save(self, state) -> None:
        self.steps += 1
        self.state = {name: tensor.clone() for name, tensor in state().items()}
        if self.last == self.steps:
            raise Stopped

    def restore(self):
        return self.given


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("extra", [{}, HARD], ids=["plain", "hard"])
def test_resumed_equals_uninterrupted_and_atoms_keep_unit_norm(kind, extra, sample):
    finder = SAE(**{**QUICK, "dead_after": 300, **KINDS[kind], **extra})
    watch = Looking()
    whole = finder.fit(sample.x, rng=1, watch=watch)
    assert watch.steps == QUICK["steps"]
    stopped = Looking(last=25)
    with pytest.raises(Stopped):
        finder.fit(sample.x, rng=1, watch=stopped)
    atoms = stopped.state["learnt"][: 20 * 12].view(20, 12)
    assert (atoms.norm(dim=1) - 1).abs().max() < 1e-6
    assert (whole.atoms.norm(dim=1) - 1).abs().max() < 1e-6
    assert finder.fit(sample.x, rng=1, watch=Looking(state=stopped.state)).digest == whole.digest
    assert finder.fit(sample.x, rng=2).digest != whole.digest


def test_every_atom_has_unit_norm_after_every_step(sample):
    class Norms(Looking):
        def save(self, state):
            super().save(state)
            self.norms.append((self.state["learnt"][:240].view(20, 12).norm(dim=1) - 1).abs().max().item())

    watch = Norms()
    SAE(**{**QUICK, "lr": 0.1}, active=2.0).fit(sample.x, watch=watch)
    assert len(watch.norms) == 60 and max(watch.norms) < 1e-6


@pytest.mark.parametrize("kind", list(KINDS))
def test_scale_and_centre_are_folded_away(kind, sample, tmp_path):
    finder = SAE(**{**QUICK, **KINDS[kind]})
    factor = 8.0 if finder.sparsity == "l1" else 64.0
    again = finder.but(**{n: factor * v for n in ("penalty", "weight") if (v := getattr(finder, n)) is not None})
    one, two = finder.fit(sample.x), again.fit(sample.x * 8 + 0.5)
    codes = two.encode(sample.x * 8 + 0.5).dense() / 8
    expected = one.encode(sample.x).dense()
    assert expected.abs().max() > 0
    close = (codes - expected).abs() < 2e-3 * expected.abs().max()
    assert close.double().mean() > 0.995  # a code at a threshold may fall on either side
    loaded = Features.load(two.save(tmp_path / "features"))
    assert loaded.digest == two.digest


@pytest.mark.parametrize("kind", ["Linear", "Linear without bias", "TopK", "AbsTopK", "tanh", "Gated"])
def test_a_linear_read_out_has_no_more_rank_than_the_rows_have_columns(kind, sample):
    features = SAE(**{**QUICK, **KINDS[kind]}).fit(sample.x)
    values = torch.linalg.svdvals(features.encoder.tensors["weight"].double() @ features.atoms.double().T)
    assert values[11] > 1e-3 * values[0]
    assert (values[12:] < 1e-10 * values[0]).all()


def test_the_two_conventions_of_the_weight_are_one_objective(sample):
    quick = {**QUICK, "revive": "none", "scaled": False, "centre": "none"}
    paper = SAE(**quick, weight=0.02).fit(sample.x)
    textbook = SAE(**quick, penalty=0.02 * 12 / (2 * 20)).fit(sample.x)
    assert paper.digest == textbook.digest
    assert paper.about["penalty"] == pytest.approx(0.006)
    x, z = sample.x, paper.encode(sample.x).dense()
    mine = (x - paper.decode(paper.encode(x))).square().mean() + 0.02 * z.abs().mean()
    textbooks = ((x - z @ paper.atoms - paper.bias).square().sum(1) / 2 + 0.006 * z.sum(1)).mean()
    assert mine.item() == pytest.approx(2 / 12 * textbooks.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("encoder", "sparsity", "penalties"),
    [("Linear", "l1", (0.003, 0.3)), ("Linear", "tanh", (0.001, 0.1)), ("JumpReLU", "l0", (1e-3, 1e-1))],
)
def test_a_larger_coefficient_makes_sparser_codes(encoder, sparsity, penalties, sample):
    common = {"width": 24, "steps": 800, "batch": 128, "encoder": encoder, "sparsity": sparsity, "revive": "none"}
    fits = [SAE(**common, penalty=p).fit(sample.x) for p in penalties]
    few, many = (f.encode(sample.x).l0().double().mean().item() for f in reversed(fits))
    assert 0.3 < few < 0.6 * many
    if encoder == "JumpReLU":
        low, high = (f.encoder.tensors["threshold"].mean().item() for f in fits)
        assert high > 2 * low


@pytest.mark.parametrize("encoder", [Linear(), MLP(hidden=32), Gated()], ids=str)
def test_the_wanted_sparsity_is_reached(encoder, sample):
    features = SAE(width=32, steps=1500, batch=128, encoder=encoder, active=3.0).fit(sample.x)
    assert features.encode(sample.x).l0().double().mean().item() == pytest.approx(3.0, rel=0.15)


@pytest.mark.parametrize("steps", [60, 300, 1200])
@pytest.mark.parametrize("sparsity", ["l0", "l1"])
def test_thresholds_reach_the_wanted_sparsity_in_runs_of_any_length(sparsity, steps, sample, world):
    finder = SAE(width=32, steps=steps, batch=128, encoder="JumpReLU", sparsity=sparsity, active=3.0)
    features = finder.fit(sample.x)
    for rows, within in ((sample.x, 0.02), (world.sample(2000, 5).x, 0.1)):
        assert features.encode(rows).l0().double().mean().item() == pytest.approx(3.0, rel=within)
    assert features.about["l0"] == pytest.approx(3.0, rel=0.02)
    left = sample.x - features.reconstruct(sample.x)
    assert features.about["fvu"] == pytest.approx(
        (left.square().sum() / sample.x.var(0, correction=0).sum() / 600).item(), rel=0.02
    )


@pytest.mark.parametrize("revive", ["none", "aux", "resample"])
def test_latents_that_do_not_fire_come_back(revive, world):
    x, m = world.sample(2000, 3).x, 24
    finder = SAE(width=m, steps=3000, batch=256, dead_after=2000, encoder={"kind": "TopK", "k": 2}, revive=revive)
    atoms = torch.nn.functional.normalize(torch.randn(m, 12, generator=torch.Generator().manual_seed(0)))
    weight = atoms.clone()
    weight[12:] *= 0.01  # half of the latents never are among the largest
    tensors = {"weight": weight, "shift": torch.zeros(m)}
    start = assemble(atoms, torch.zeros(12), ENCODERS.make({"kind": "TopK", "k": 2}), tensors)
    assert (start.encode(x).firing() < 20).sum() >= 12
    features = finder.fit(x, start=start)
    dead = (features.encode(x).firing() == 0).sum().item()
    assert dead >= 10 if revive == "none" else dead <= 2


def test_going_on_begins_where_the_features_are(sample):
    for kind in ("Linear", "Gated", "MLP", "Lista", "TopK"):
        finder = SAE(**{**QUICK, **KINDS[kind]})
        first = finder.fit(sample.x)
        still = finder.but(steps=1, lr=1e-9).fit(sample.x, rng=5, start=first)
        assert torch.allclose(still.encode(sample.x).dense(), first.encode(sample.x).dense(), atol=1e-4), kind
        assert torch.allclose(still.atoms, first.atoms, atol=1e-6)
        assert torch.allclose(still.bias, first.bias, atol=1e-5)


def test_going_on_from_atoms_of_any_norm_and_from_another_encoder(sample):
    first = SAE(**QUICK, active=2.0).fit(sample.x)
    norms = torch.linspace(0.5, 2, 20)
    own = dict(first.encoder.tensors)
    longer = assemble(
        first.atoms * norms[:, None],
        first.bias,
        first.encoder.recipe,
        {**own, "weight": own["weight"] / norms[:, None], "shift": own["shift"] / norms},
    )
    still = SAE(**{**QUICK, "steps": 1}, active=2.0, lr=1e-9).fit(sample.x, start=longer)
    assert torch.allclose(still.encode(sample.x).dense(), first.encode(sample.x).dense(), atol=1e-4)
    pursuit = RandomAtoms(width=20, k=2).fit(sample.x)
    taken = SAE(**{**QUICK, "steps": 1}, active=2.0, lr=1e-9).fit(sample.x, start=pursuit)
    assert torch.allclose(taken.atoms, pursuit.atoms, atol=1e-5)


def test_frozen_atoms_stay_and_the_encoder_learns(world, sample):
    truth = assemble(world.atoms, torch.zeros(12), ENCODERS.make("Nearest"))
    finder = SAE(width=24, steps=300, batch=128, penalty=0.02, frozen=True, bias=False, centre="none")
    features = finder.fit(sample.x, start=truth)
    assert torch.allclose(features.atoms, world.atoms, atol=1e-6)
    assert (features.bias == 0).all()
    assert not torch.allclose(features.encoder.tensors["weight"], world.atoms, atol=1e-2)
    alone = finder.fit(sample.x)
    assert not torch.allclose(alone.atoms, world.atoms, atol=0.1)


def test_the_bias_starts_at_the_centre_and_stays_there_if_it_is_not_learnt(sample):
    h = sample.x + 3
    fixed = {n: SAE(**QUICK, active=2.0, bias=False, centre=n).fit(h).bias for n in ("mean", "median", "none")}
    assert torch.allclose(fixed["mean"], h.mean(0), atol=1e-4)
    assert torch.allclose(fixed["median"], geometric_median(h).float(), atol=1e-4)
    assert (fixed["none"] == 0).all()
    assert not torch.allclose(SAE(**QUICK, active=2.0).fit(h).bias, h.mean(0), atol=1e-3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "give one of penalty, weight and active"),
        ({"penalty": 0.1, "weight": 0.1}, "give one of penalty, weight and active"),
        ({"active": 30.0}, "active=30"),
        ({"penalty": 0.1, "encoder": "Fista"}, "encoder=Fista must be amortised"),
        ({"penalty": 0.1, "encoder": Linear(rectify=False)}, "must be amortised and rectified"),
        ({"penalty": 0.1, "encoder": Linear(active=2.0)}, "give active to the SAE"),
        ({"active": 2.0, "encoder": AbsTopK(k=2)}, "sparse by its k"),
        ({"encoder": AbsTopK(k=21)}, "k=21: must be at most the number of atoms, 20"),
        ({"encoder": Matryoshka(k=2, prefixes=(40,))}, "prefixes=40"),
        ({"penalty": 0.1, "sparsity": "l0"}, "thresholds of its own, not Linear"),
    ],
)
def test_impossible_recipes_are_refused(fields, message):
    with pytest.raises(UsageError, match=message):
        SAE(width=20, **fields)


def test_a_checkpoint_of_another_recipe_is_refused(sample):
    watch = Looking(last=2)
    with pytest.raises(Stopped):
        SAE(**QUICK, active=2.0).fit(sample.x, watch=watch)
    with pytest.raises(UsageError, match="another recipe"):
        SAE(**{**QUICK, "width": 21}, active=2.0).fit(sample.x, watch=Looking(state=watch.state))


@pytest.mark.parametrize("kind", ["Linear", "Linear without bias", "MLP", "Gated", "TopK", "Lista"])
def test_counted_work_is_that_of_the_products(kind):
    d, m, batch = 96, 256, 64
    finder = SAE(**{**QUICK, "width": m, **KINDS[kind]})
    if kind == "MLP":
        finder = finder.but(encoder=MLP(hidden=128))
    tensors = finder._begin(Stream(0), None, torch.zeros(d), 1.0)
    still = {*finder.encoder._fixed(), *([] if finder.bias else ["bias"])}
    adam = Adam({name: tensor for name, tensor in tensors.items() if name not in still})
    x = torch.randn(batch, d, generator=torch.Generator().manual_seed(0))
    tensors |= adam.learnt
    with FlopCounterMode(display=False) as counter:
        weight = SparsityWeight(None, 1, 0.1)
        finder._step(0, x - tensors["bias"], tensors, adam, weight, torch.zeros(m, dtype=torch.int64), Stream(0))
    counted = finder._step_flops(batch, d) - 12 * sum(tensor.numel() for tensor in adam.learnt.values())
    assert counted == pytest.approx(counter.get_total_flops(), rel=0.05)


def test_a_training_that_diverges_is_a_failure(sample):
    with pytest.raises(Failure, match="diverged"):
        SAE(**{**QUICK, "lr": 1e30, "encoder": MLP(hidden=8)}, active=2.0).fit(sample.x)


def test_double_rows_are_read_and_the_written_out_path_is_the_common_one(sample):
    features = SAE(**QUICK, active=2.0).fit(sample.x.double().numpy())
    assert features.atoms.dtype == torch.float32
    assert set(LAYERS) == {Linear, MLP}
    assert Adam({"a": torch.ones(2)}).learnt["a"].requires_grad


@pytest.mark.slow
def test_the_papers_numbers_where_dictionary_and_codes_are_unknown():
    from unmix.scores.matching import dictionary_mcc, mcc
    from unmix.worlds.sparse import SparseWorld

    world = SparseWorld(latents=16, width=8, active=3)
    plain = {"centre": "none", "scaled": False, "bias": False, "schedule": "constant", "revive": "none"}
    finder = SAE(width=16, encoder=Linear(bias=False), weight=0.01, steps=40_000, batch=1024, **plain)
    found = []
    for seed in range(5):
        train, test = world.sample(1024, 2 * seed), world.sample(1024, 2 * seed + 1)
        features = finder.fit(train.x, rng=seed)
        atoms = dictionary_mcc(features.atoms, world.atoms, compat="greedy-pearson").value
        found.append((mcc(features.encode(test.x), test.z).value, atoms))
    codes, atoms = torch.tensor(found).mean(0).tolist()
    print(f"code MCC {codes:.3f}, published .566; dictionary MCC {atoms:.3f}, published .745")
    assert codes == pytest.approx(0.566, abs=0.05)
    assert atoms == pytest.approx(0.745, abs=0.05)
