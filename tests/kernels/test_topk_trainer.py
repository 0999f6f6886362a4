"""The TopK training step: gradients against dense autograd, Adam, AuxK, resume, threads."""

from __future__ import annotations

import pytest
import torch

from unmix.core.errors import UsageError
from unmix.kernels.topk import TopKTrainer

BACKENDS = ["torch", "numba"]
NAMES = ("weight", "encoder_bias", "atoms", "decoder_bias")


def start(m=37, d=11, seed=0, dtype=torch.float32):
    draw = torch.Generator().manual_seed(seed)
    atoms = torch.nn.functional.normalize(torch.randn(m, d, generator=draw, dtype=torch.float64)).to(dtype)
    weight = torch.randn(m, d, generator=draw, dtype=torch.float64).to(dtype)
    biases = (torch.randn(size, generator=draw, dtype=torch.float64).to(dtype) / 5 for size in (m, d))
    encoder_bias, decoder_bias = biases
    return weight, encoder_bias, atoms, decoder_bias


def batch(seed, b=64, d=11, dtype=torch.float32):
    return torch.randn(b, d, generator=torch.Generator().manual_seed(1000 + seed), dtype=torch.float64).to(dtype)


def dense_losses(parameters, x, k, dead=None, aux_k=0):
    """The two losses by dense autograd, written from their equations."""
    weight, encoder_bias, atoms, decoder_bias = parameters

    def top(before, count):
        codes = before.relu()
        best = codes.topk(count, dim=1)
        return torch.zeros_like(codes).scatter(1, best.indices, best.values)

    codes = top((x - decoder_bias) @ weight.T + encoder_bias, k)
    error = x - codes @ atoms - decoder_bias
    aux = error.new_zeros(())
    if dead is not None and len(dead):
        # The second term leaves the decoder's bias alone on every way.
        before = (x - decoder_bias.detach()) @ weight[dead].T + encoder_bias[dead]
        codes = top(before, min(aux_k, len(dead)))
        aux = (error.detach() - codes @ atoms[dead]).square().sum(1).mean()
    return error.square().sum(1).mean(), aux


def dense_gradients(given, x, k, coefficient=0.0, **options):
    parameters = [tensor.clone().requires_grad_() for tensor in given]
    loss, aux = dense_losses(parameters, x, k, **options)
    (loss + coefficient * aux).backward()
    return loss.detach(), aux.detach(), [tensor.grad for tensor in parameters]


def first_gradients(trainer):
    """Adam's first moment after one step is (1 - beta1) times the gradient."""
    state = trainer.state()
    return [state[f"adam.first.{name}"] / (1 - trainer.betas[0]) for name in NAMES]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-11)])
def test_gradients_and_loss_are_those_of_dense_autograd(backend, dtype, tolerance):
    for k, b in ((1, 64), (4, 63), (37, 5)):
        given, x = start(dtype=dtype), batch(k, b, dtype=dtype)
        trainer = TopKTrainer(*given, k, backend=backend)
        facts = trainer.step(x)
        loss, _, gradients = dense_gradients(given, x, k)
        torch.testing.assert_close(facts["loss"], loss, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(facts["fvu"], loss / x.var(0, correction=0).sum(), rtol=1e-5, atol=1e-5)
        for name, found, wanted in zip(NAMES, first_gradients(trainer), gradients, strict=True):
            size = wanted.abs().max()
            assert (found - wanted).abs().max() <= 10 * tolerance * size, name


@pytest.mark.parametrize("backend", BACKENDS)
def test_auxk_trains_dead_latents_and_never_the_decoder_bias(backend):
    given, k, aux_k, coefficient = start(dtype=torch.float64), 3, 5, 0.7
    options = {"aux_k": aux_k, "aux_coefficient": coefficient, "dead_after": 10, "backend": backend}
    trainer, plain = (TopKTrainer(*given, k, **{**options, "aux_k": a}) for a in (aux_k, 0))
    x = batch(0, dtype=torch.float64)
    dead = torch.tensor([0, 3, 4, 9, 10, 20, 36])
    for each in (trainer, plain):
        each.idle[dead] = 11
    facts = trainer.step(x)
    plain.step(x)
    loss, aux, wanted = dense_gradients(given, x, k, coefficient, dead=dead, aux_k=aux_k)
    assert facts["dead"] == len(dead)
    torch.testing.assert_close(facts["loss"], loss)
    torch.testing.assert_close(facts["aux_loss"], aux)
    with_aux, without = first_gradients(trainer), first_gradients(plain)
    for name, found, right in zip(NAMES, with_aux, wanted, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-10, atol=1e-12, msg=name)
    torch.testing.assert_close(with_aux[3], without[3], rtol=1e-13, atol=1e-13)  # the order of a sum may differ
    for found, bare in zip(with_aux[:3], without[:3], strict=True):
        changed = (found - bare).abs().reshape(len(found), -1).sum(1) > 0
        assert changed[dead].any()
        assert not changed[[j for j in range(37) if j not in dead]].any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_auxk_is_absent_while_nothing_is_dead(backend):
    given = start()
    runs = [TopKTrainer(*given, 3, aux_k=a, dead_after=10**6, backend=backend) for a in (0, 8)]
    for seed in range(3):
        facts = [run.step(batch(seed)) for run in runs]
    assert facts[1]["dead"] == 0
    assert facts[1]["aux_loss"] == 0
    for name in NAMES:
        assert torch.equal(runs[0].parameters()[name], runs[1].parameters()[name])


@pytest.mark.parametrize("backend", BACKENDS)
def test_steps_are_those_of_torch_adam_with_renormalised_atoms(backend):
    given, k = start(dtype=torch.float64), 4
    trainer = TopKTrainer(*given, k, lr=0.01, betas=(0.8, 0.95), eps=1e-6, backend=backend)
    parameters = [tensor.clone().requires_grad_() for tensor in given]
    adam = torch.optim.Adam(parameters, lr=0.01, betas=(0.8, 0.95), eps=1e-6)
    for seed in range(6):
        x = batch(seed, dtype=torch.float64)
        adam.zero_grad()
        dense_losses(parameters, x, k)[0].backward()
        adam.param_groups[0]["lr"] = 0.01 * (1 + seed)
        adam.step()
        with torch.no_grad():
            parameters[2].div_(parameters[2].norm(dim=1, keepdim=True))
        trainer.step(x, lr=0.01 * (1 + seed))
    for name, wanted in zip(NAMES, parameters, strict=True):
        torch.testing.assert_close(trainer.parameters()[name], wanted.detach(), rtol=1e-9, atol=1e-10, msg=name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_atoms_keep_unit_norm_and_orthogonal_gradients(backend):
    given = start(m=50)
    trainer = TopKTrainer(*given, 4, lr=0.05, orthogonal=True, backend=backend)
    trainer.step(batch(0))
    gradient = first_gradients(trainer)[2]
    share = (gradient * given[2]).sum(1)
    assert share.abs().max() < 1e-6 * gradient.norm(dim=1).max()
    for seed in range(1, 20):
        trainer.step(batch(seed))
        assert (trainer.parameters()["atoms"].double().norm(dim=1) - 1).abs().max() < 1e-6


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(backend):
    options = {"aux_k": 4, "dead_after": 100, "backend": backend}
    one = TopKTrainer(*start(), 2, **options)
    for seed in range(8):
        one.step(batch(seed))
    two = TopKTrainer(*start(), 2, **options)
    for seed in range(4):
        two.step(batch(seed))
    kept = {name: tensor.clone() for name, tensor in two.state().items()}
    two.step(batch(77))
    three = TopKTrainer(*start(seed=5), 2, **options)
    three.load_state(kept)
    for seed in range(4, 8):
        facts = three.step(batch(seed))
    assert facts["dead"] > 0
    for name, tensor in one.state().items():
        assert torch.equal(tensor, three.state()[name]), name


def test_backends_and_numbers_of_threads_agree():
    def run(backend, threads):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            trainer = TopKTrainer(*start(m=300, d=24), 5, aux_k=8, dead_after=500, backend=backend)
            for seed in range(12):
                trainer.step(batch(seed, 128, 24))
        finally:
            torch.set_num_threads(before)
        return trainer.state()

    runs = {(backend, count): run(backend, count) for backend in BACKENDS for count in (1, 2)}
    reference = runs["torch", 1]
    assert (reference["idle"] > 500).any()
    for state in runs.values():
        assert torch.equal(state["idle"], reference["idle"])
        for name in NAMES:
            torch.testing.assert_close(state[name], reference[name], rtol=1e-5, atol=1e-5)


def test_idle_counts_rows_since_a_latent_fired():
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    trainer = TopKTrainer(weight, torch.zeros(3), weight, torch.zeros(2), 1, lr=0.0)
    trainer.step(torch.tensor([[3.0, 0.0], [2.0, 0.0]]))
    trainer.step(torch.tensor([[0.0, 1.0]]))
    assert trainer.idle.tolist() == [1, 0, 3]


def test_given_tensors_are_left_alone_and_wrong_ones_refused():
    given = start()
    before = [tensor.clone() for tensor in given]
    x = batch(0)
    kept = x.clone()
    TopKTrainer(*given, 3).step(x)
    assert torch.equal(x, kept)
    assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True))
    weight, encoder_bias, atoms, decoder_bias = given
    with pytest.raises(UsageError, match="k: must be between 1 and the number of latents 37"):
        TopKTrainer(*given, 38)
    with pytest.raises(UsageError, match="atoms: must be"):
        TopKTrainer(weight, encoder_bias, atoms[:3], decoder_bias, 2)
    trainer = TopKTrainer(*given, 3)
    for wrong in (x[:0], x[:, :4], x.double()):
        with pytest.raises(UsageError, match="x: must"):
            trainer.step(wrong)
    with pytest.raises(UsageError, match="is missing"):
        trainer.load_state({"weight": weight})


def test_training_explains_the_data():
    draw = torch.Generator().manual_seed(4)
    atoms = torch.nn.functional.normalize(torch.randn(20, 12, generator=draw))
    codes = torch.zeros(4096, 20).scatter_(
        1, torch.rand(4096, 20, generator=draw).topk(2).indices, torch.rand(4096, 2, generator=draw) + 0.5
    )
    x = codes @ atoms
    guess = torch.nn.functional.normalize(torch.randn(20, 12, generator=draw))
    trainer = TopKTrainer(guess, torch.zeros(20), guess, torch.zeros(12), 2, lr=5e-3)
    first = float(trainer.step(x[:512])["fvu"])
    for step in range(200):
        last = float(trainer.step(x[(step % 8) * 512 : (step % 8 + 1) * 512])["fvu"])
    assert last < 0.3 < first
