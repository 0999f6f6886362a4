"""Counted work beside torch's own counter, and the authors' counts beside their published numbers."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from unmix.core import flops, paper_flops

BATCH, ATOMS, WIDTH, HIDDEN = 512, 192, 128, 160


def counted(work) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def draw(*shape, grad=False):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)), requires_grad=grad)


def layer(rows, columns, learned=True):
    return draw(rows, columns, grad=learned)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("hidden", [None, HIDDEN])
def test_autoencoder_step_is_within_five_percent_of_torchs_counter(hidden, frozen):
    x = draw(BATCH, WIDTH)
    sizes = [WIDTH, ATOMS] if hidden is None else [WIDTH, hidden, ATOMS]
    weights = [layer(a, b) for a, b in itertools.pairwise(sizes)]
    atoms = layer(ATOMS, WIDTH, not frozen)

    def step():
        z = x
        for weight in weights:
            z = torch.relu(z @ weight)
        ((z @ atoms - x).square().mean() + 0.01 * z.abs().mean()).backward()

    products = counted(step)
    ours = flops.autoencoder_step(BATCH, ATOMS, WIDTH, hidden, frozen)
    assert products < ours < 1.05 * products


def test_the_dense_step_of_the_finders_is_the_same_count():
    old, new = flops.dense_step(BATCH, ATOMS, WIDTH), flops.autoencoder_step(BATCH, ATOMS, WIDTH)
    assert new == pytest.approx(old, rel=0.03)


@pytest.mark.parametrize("learned", [False, True])
def test_sparse_coding_steps_are_within_five_percent_of_torchs_counter(learned):
    batch, atoms, width = 2048, 256, 256
    x, log = draw(batch, width), draw(batch, atoms, grad=True)
    dictionary = layer(atoms, width, learned)

    def step():
        z = log.exp()
        ((z @ dictionary - x).square().mean() + 0.01 * z.mean()).backward()

    products = counted(step)
    ours = (flops.sparse_coding_step if learned else flops.code_step)(batch, atoms, width)
    assert products < ours < 1.05 * products


def test_encoding_and_decoding_are_within_five_percent_of_torchs_counter():
    x, first, second, atoms = draw(1, WIDTH), draw(WIDTH, HIDDEN), draw(HIDDEN, ATOMS), draw(ATOMS, WIDTH)
    one = draw(WIDTH, ATOMS)
    assert flops.linear_code(ATOMS, WIDTH) == pytest.approx(counted(lambda: x @ one), rel=0.05)
    assert flops.mlp_code(ATOMS, HIDDEN, WIDTH) == pytest.approx(counted(lambda: x @ first @ second), rel=0.05)
    assert flops.decode(ATOMS, WIDTH) == counted(lambda: draw(1, ATOMS) @ atoms)
    assert flops.decode(ATOMS, WIDTH, active=6) == counted(lambda: draw(1, 6) @ atoms[:6])


BASE = {"atoms": 16, "width": 8, "samples": 1024}
STEPS = 39_501


@pytest.mark.parametrize(
    ("count", "published"),
    [
        (paper_flops.sae_training(**BASE, steps=STEPS), 7.1e10),
        (paper_flops.mlp_training(**BASE, hidden=32, steps=STEPS), 2.3e11),
        (paper_flops.mlp_training(**BASE, hidden=256, steps=STEPS), 1.6e12),
        (paper_flops.sparse_coding_training(**BASE, steps=STEPS), 2.1e12),
        (paper_flops.sae_inference(**BASE), 5.4e5),
        (paper_flops.mlp_inference(**BASE, hidden=32), 1.9e6),
        (paper_flops.mlp_inference(**BASE, hidden=256), 1.3e7),
        (paper_flops.code_optimisation(**BASE, iterations=10_000), 7.2e9),
    ],
)
def test_the_papers_counter_gives_the_papers_numbers(count, published):
    assert float(f"{count.flops:.1e}") == published


def test_the_overcount_of_sparse_coding_is_stated():
    count = paper_flops.sparse_coding_training(**BASE, steps=STEPS)
    assert f"{count.flops:.2e}" == "2.07e+12"
    assert count.corrected == pytest.approx(4.0e10, rel=0.05)
    assert count.overcount == pytest.approx(52, rel=0.05)
    assert "2.07e+12" in count.note and "50 times" in count.note
    sae = paper_flops.sae_training(**BASE, steps=STEPS)
    assert count.flops / sae.flops == pytest.approx(29, rel=0.02)
    assert count.corrected / sae.corrected == pytest.approx(0.75, abs=0.15)
