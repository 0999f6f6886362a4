"""Gradients of the sparse paths by finite differences in float64: the training step, AuxK included, and decoding."""

from __future__ import annotations

import pytest
import torch

from unmix.kernels.topk import TopKTrainer, decode

from .test_topk_trainer import BACKENDS, batch, dense_losses, first_gradients, start

DEAD, K, AUX_K, COEFFICIENT = torch.tensor([0, 3, 4, 9]), 3, 2, 0.7


def loss_of(x, backend, aux_k):
    """A function of the four parameters with the losses' value, whose backward pass is one step of the trainer."""
    fixed = {}

    class Step(torch.autograd.Function):
        @staticmethod
        def forward(ctx, weight, encoder_bias, atoms, decoder_bias):
            ctx.save_for_backward(weight, encoder_bias, atoms, decoder_bias)
            loss, _ = dense_losses((weight, encoder_bias, atoms, decoder_bias), x, K)
            if not aux_k:
                return loss
            if not fixed:
                codes = ((x - decoder_bias) @ weight.T + encoder_bias).relu()
                best = codes.topk(K, dim=1)
                kept = torch.zeros_like(codes).scatter(1, best.indices, best.values)
                # The second loss takes the residual and the decoder's bias as given.
                fixed.update(left=x - kept @ atoms - decoder_bias, centred=x - decoder_bias)
            codes = (fixed["centred"] @ weight[DEAD].T + encoder_bias[DEAD]).relu()
            best = codes.topk(aux_k, dim=1)
            kept = torch.zeros_like(codes).scatter(1, best.indices, best.values)
            return loss + COEFFICIENT * (fixed["left"] - kept @ atoms[DEAD]).square().sum(1).mean()

        @staticmethod
        def backward(ctx, slope):
            options = {"aux_k": aux_k, "aux_coefficient": COEFFICIENT, "dead_after": 10, "backend": backend}
            trainer = TopKTrainer(*ctx.saved_tensors, K, **options)
            trainer.idle[DEAD] = 11
            trainer.step(x)
            return tuple(slope * gradient for gradient in first_gradients(trainer))

    return Step.apply


@pytest.mark.parametrize("aux_k", [0, AUX_K])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_training_step_has_the_gradients_of_its_loss(backend, aux_k):
    x = batch(2, b=9, d=5, dtype=torch.float64)
    given = [tensor.requires_grad_() for tensor in start(12, 5, 1, torch.float64)]
    assert torch.autograd.gradcheck(loss_of(x, backend, aux_k), given, eps=1e-7, atol=1e-6, rtol=1e-5)


def test_decoding_has_the_gradients_of_a_product():
    draw = torch.Generator().manual_seed(5)
    atoms, values = (torch.randn(size, generator=draw, dtype=torch.float64) for size in ((9, 4), (6, 3)))
    indices = torch.randint(0, 9, (6, 3), generator=draw)
    given = values.requires_grad_(), atoms.requires_grad_()
    assert torch.autograd.gradcheck(lambda v, a: decode(v, indices, a), given)
