"""BatchTopK and JumpReLU training steps and encoding by thresholds: against dense autograd, exact, resumable."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from tests.kernels.test_topk_trainer import BACKENDS, NAMES, batch, first_gradients, start
from unmix.core.errors import UsageError
from unmix.kernels.threshold import BatchTopKTrainer, JumpReLUTrainer, encode_above
from unmix.kernels.topk import TopKTrainer

KINDS = ["batch", "jump"]
WIDTH, PENALTY = 0.8, 0.3


def trainer_of(kind, given, k=3, height=0.5, **options):
    if kind == "topk":
        return TopKTrainer(*given, k, **options)
    if kind == "batch":
        return BatchTopKTrainer(*given, k, **options)
    draw = torch.Generator().manual_seed(9)
    threshold = torch.rand(len(given[0]), generator=draw, dtype=torch.float64).to(given[0].dtype) + height
    return JumpReLUTrainer(*given, threshold, WIDTH, PENALTY, **options)


class Jump(torch.autograd.Function):
    """a [a > t] and [a > t] with the pseudo-derivatives of arXiv 2407.14435, equations 9 and 10."""

    @staticmethod
    def forward(ctx, a, t):
        ctx.save_for_backward(a, t)
        gate = (a > t).to(a.dtype)
        return a * gate, gate

    @staticmethod
    def backward(ctx, slope_code, slope_gate):
        a, t = ctx.saved_tensors
        near = (((a - t) / WIDTH).abs() < 0.5).to(a.dtype) / WIDTH
        return slope_code * (a > t), -(slope_code * t + slope_gate) * near


def dense_gradients(kind, given, x, k=3, coefficient=0.0, dead=None, aux_k=0, threshold=None, active=None):
    """Loss, aux loss and gradients by dense autograd, written from the equations."""
    parameters = [tensor.clone().requires_grad_() for tensor in given]
    weight, encoder_bias, atoms, decoder_bias = parameters
    before = (x - decoder_bias) @ weight.T + encoder_bias
    extra = 0.0
    if kind == "batch":
        codes = before.relu().flatten()
        best = codes.topk(k * len(x))
        codes = torch.zeros_like(codes).scatter(0, best.indices, best.values).view_as(before)
    else:
        parameters.append(threshold.log().requires_grad_())
        codes, gates = Jump.apply(before, parameters[-1].exp())
        l0 = gates.sum(1).mean()
        extra = PENALTY * l0 if active is None else PENALTY * (l0 / active - 1) ** 2
    error = x - codes @ atoms - decoder_bias
    loss, aux = error.square().sum(1).mean(), error.new_zeros(())
    if dead is not None:
        spare = ((x - decoder_bias.detach()) @ weight[dead].T + encoder_bias[dead]).relu()
        best = spare.topk(min(aux_k, len(dead)), dim=1)
        spare = torch.zeros_like(spare).scatter(1, best.indices, best.values)
        aux = (error.detach() - spare @ atoms[dead]).square().sum(1).mean()
    (loss + extra + coefficient * aux).backward()
    return loss.detach(), aux.detach(), (codes != 0).sum() / len(x), [tensor.grad for tensor in parameters]


@pytest.mark.parametrize(("kind", "active"), [("batch", None), ("jump", None), ("jump", 2.5)])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_gradients_are_those_of_dense_autograd(kind, active, backend, dtype, tolerance):
    options = {"active": active} if kind == "jump" else {}
    for m, b in ((37, 64), (300, 33), (37, 1)):
        given, x = start(m=m, dtype=dtype), batch(b, b, dtype=dtype)
        trainer = trainer_of(kind, given, backend=backend, **options)
        threshold = trainer.threshold() if kind == "jump" else None
        facts = trainer.step(x)
        loss, _, l0, gradients = dense_gradients(kind, given, x, threshold=threshold, **options)
        assert facts["l0"] == l0 > 0
        torch.testing.assert_close(facts["loss"], loss, rtol=tolerance, atol=tolerance)
        found = first_gradients(trainer)
        if kind == "jump":
            found.append(trainer.state()["adam.first.log_threshold"] / (1 - trainer.betas[0]))
            assert gradients[-1].abs().max() > 0
        for one, other in zip(found, gradients, strict=True):
            assert (one - other).abs().max() <= tolerance * other.abs().max()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_auxk_trains_dead_latents_and_never_the_decoder_bias(kind, backend):
    given, aux_k, coefficient = start(dtype=torch.float64), 5, 0.7
    options = {"aux_coefficient": coefficient, "dead_after": 10, "backend": backend}
    trainer, plain = (trainer_of(kind, given, aux_k=a, **options) for a in (aux_k, 0))
    threshold = trainer.threshold() if kind == "jump" else None
    dead = torch.tensor([0, 3, 4, 9, 10, 20, 36])
    for each in (trainer, plain):
        each.idle[dead] = 11
    x = batch(0, dtype=torch.float64)
    facts = trainer.step(x)
    plain.step(x)
    given_aux = {"dead": dead, "aux_k": aux_k, "threshold": threshold}
    _, aux, _, wanted = dense_gradients(kind, given, x, coefficient=coefficient, **given_aux)
    assert facts["dead"] == len(dead)
    torch.testing.assert_close(facts["aux_loss"], aux)
    with_aux, without = first_gradients(trainer), first_gradients(plain)
    for name, found, right in zip(NAMES, with_aux, wanted, strict=False):
        torch.testing.assert_close(found, right, rtol=1e-10, atol=1e-12, msg=name)
    torch.testing.assert_close(with_aux[3], without[3], rtol=1e-13, atol=1e-13)
    assert ((with_aux[0] - without[0]).abs().sum(1) > 1e-9)[dead].sum() > 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(kind, backend):
    options = {"aux_k": 4, "dead_after": 100, "backend": backend}
    one = trainer_of(kind, start(), 2, **options)
    for seed in range(8):
        one.step(batch(seed))
    two = trainer_of(kind, start(), 2, **options)
    for seed in range(4):
        two.step(batch(seed))
    kept = {name: tensor.clone() for name, tensor in two.state().items()}
    two.step(batch(77))
    three = trainer_of(kind, start(seed=5), 2, **options)
    three.load_state(kept)
    for seed in range(4, 8):
        three.step(batch(seed))
    for name, tensor in one.state().items():
        assert torch.equal(tensor, three.state()[name]), name
    assert (three.parameters()["atoms"].double().norm(dim=1) - 1).abs().max() < 1e-6


@pytest.mark.parametrize("kind", [*KINDS, "topk"])
def test_backends_and_numbers_of_threads_agree(kind):
    def run(backend, threads):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            given = start(m=2500, d=24)
            trainer = trainer_of(kind, given, 5, 14.0, aux_k=8, dead_after=1400, backend=backend)
            for seed in range(3):
                trainer.step(batch(seed, 1500, 24))
        finally:
            torch.set_num_threads(before)
        return trainer.state()

    runs = {(backend, count): run(backend, count) for backend in BACKENDS for count in (1, 2)}
    reference = runs["torch", 1]
    assert (reference["idle"] > 1400).any()
    for state in runs.values():
        assert torch.equal(state["idle"], reference["idle"])
        for name in (*NAMES, "threshold", "log_threshold"):
            if name in state:
                torch.testing.assert_close(state[name], reference[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["batch", "topk"])
def test_a_screen_that_is_wrong_changes_nothing(kind):
    x, rates = batch(0, 300, 24), []
    for screen in (None, 0.0, 1e9):
        trainer = trainer_of(kind, start(m=900, d=24), 4, backend="numba")
        trainer.step(batch(1, 300, 24))
        if screen is not None:
            (trainer.screen if kind == "topk" else trainer.level).fill_(screen)
        trainer.step(x)
        rates.append(trainer.state())
    for state in rates[1:]:
        for name in NAMES:
            torch.testing.assert_close(state[name], rates[0][name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_batch_selection_keeps_exactly_the_largest_with_ties_to_the_first(backend):
    weight = torch.eye(4)
    trainer = BatchTopKTrainer(weight, torch.zeros(4), weight, torch.zeros(4), 1, backend=backend)
    x = torch.tensor([[5.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, -3.0], [0.0, 0.0, 1.0, -1.0]])
    lists, _ = trainer._codes(x, torch.ones(3), trainer.idle[:0])
    assert lists.pointers.tolist() == [0, 2, 3, 3]
    assert lists.indices.tolist() == [0, 1, 0]
    assert lists.values.tolist() == [5, 1, 1]
    assert float(trainer.threshold) == 1
    few = BatchTopKTrainer(weight, torch.zeros(4), weight, torch.zeros(4), 3, backend=backend)
    lists, _ = few._codes(x, torch.ones(3), few.idle[:0])
    assert lists.values.tolist() == [5, 1, 1, 1, 1]
    assert float(few.threshold) == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_active_is_no_trouble(backend):
    given = start()
    trainer = JumpReLUTrainer(*given, torch.full((37,), 1e6), 1.0, 0.1, backend=backend)
    facts = trainer.step(batch(0))
    assert facts["l0"] == 0
    assert facts["loss"].isfinite()
    assert all(tensor.isfinite().all() for tensor in trainer.state().values())
    zero = JumpReLUTrainer(*given, torch.ones(37), 1.0, 0.1, backend=backend)
    zero.step(torch.zeros(8, 11))
    assert all(tensor.isfinite().all() for tensor in zero.state().values())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("each", [False, True])
def test_encoding_above_thresholds_is_the_dense_formula(backend, each):
    draw = torch.Generator().manual_seed(2)
    for n, d, m in ((1, 3, 2), (70, 24, 5001), (5000, 8, 130), (0, 8, 130)):
        h, weight = torch.randn(n, d, generator=draw), torch.randn(m, d, generator=draw)
        bias = torch.randn(m, generator=draw)
        threshold = torch.rand(m, generator=draw) * 4 if each else torch.tensor(3.0)
        before = h.double() @ weight.double().T + bias.double()
        wanted = torch.where(before > threshold.double(), before.relu(), 0)
        values, indices, pointers = encode_above(h, weight, bias, threshold, backend=backend)
        assert pointers[-1] == len(values) == (wanted > 0).sum()
        rows = torch.repeat_interleave(torch.arange(n), pointers.diff())
        found = torch.zeros(n, m).index_put_((rows, indices), values)
        torch.testing.assert_close(found, wanted.float(), rtol=1e-5, atol=1e-5)
    negative = encode_above(h.new_ones(1, 8), weight, bias, torch.tensor(-5.0), backend=backend)
    assert (negative[0] > 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_threshold_close_to_many_codes_is_decided_alike_in_any_batch(backend):
    draw = torch.Generator().manual_seed(3)
    h, weight = torch.randn(300, 64, generator=draw), torch.randn(800, 64, generator=draw)
    before = h[7] @ weight.T
    threshold = torch.where(before > 0, before, 1.0)  # every positive code of row 7 is at its threshold
    whole = encode_above(h, weight, None, threshold, backend=backend)
    alone = encode_above(h[7:8], weight, None, threshold, backend=backend)
    part = slice(int(whole[2][7]), int(whole[2][8]))
    assert torch.equal(whole[1][part], alone[1])
    torch.testing.assert_close(whole[0][part], alone[0], rtol=0, atol=1e-6 * float(before.max()))


def test_wrong_options_are_refused_by_name():
    given = start()
    with pytest.raises(UsageError, match="k: must be between 1"):
        BatchTopKTrainer(*given, 38)
    with pytest.raises(UsageError, match="threshold: must be positive"):
        JumpReLUTrainer(*given, torch.zeros(37), 1.0, 0.1)
    with pytest.raises(UsageError, match="bandwidth: must be positive"):
        JumpReLUTrainer(*given, torch.ones(37), 0.0, 0.1)
    with pytest.raises(UsageError, match="threshold: must be one of"):
        encode_above(batch(0), given[0], None, torch.ones(3))
    with pytest.raises(UsageError, match="h: must"):
        encode_above(batch(0).double(), given[0], None, torch.ones(37))


MEMORY = """
import resource, torch
from unmix.kernels.threshold import encode_above
from unmix.kernels.topk import encode_topk
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
torch.set_num_threads(2)
draw = torch.Generator().manual_seed(0)
few = torch.randn(256, 64, generator=draw)
for encode in (lambda h, w: encode_topk(h, w, None, 32), lambda h, w: encode_above(h, w, None, torch.tensor(30.0))):
    encode(few, few)  # compiles
weight, h = torch.randn(131072, 64, generator=draw), torch.randn(1024, 64, generator=draw)
before = peak()
found = encode_topk(h, weight, None, 32)
above = encode_above(h, weight, None, torch.tensor(30.0))
print(peak() - before)
for rows in h.split(256), found[0].split(256), found[1].split(256):
    pass
whole = encode_topk(h[:256], weight, None, 32, block_columns=131072, block_rows=256)
assert torch.equal(whole[0], found[0][:256]) and torch.equal(whole[1], found[1][:256])
dense = h[:256] @ weight.T
rows, columns = (dense > 30).nonzero(as_tuple=True)
count = int(above[2][256])
assert torch.equal(columns, above[1][:count]) and count > 1000
"""


def test_memory_of_encoding_many_atoms_is_bounded_and_the_result_that_of_one_block():
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, env=dict(os.environ), check=False
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 150
