"""Floating-point operations as the authors of arXiv 2411.13117 counted them in their code, each beside our count.

The formulas are kept so that their figures can be redrawn; costs of this project come from `core.flops`. Their
sparse-coding formula adds terms of one sample to terms of the whole batch and multiplies both by the number of
samples; their norms of the atoms are paid by every sample; Adam is left out or counted as two operations.
"""

from __future__ import annotations

from dataclasses import dataclass

from unmix.core import flops


@dataclass(frozen=True)
class PaperCount:
    """flops: as the authors' code counts them. corrected: the same work counted by `core.flops`."""

    flops: float
    corrected: float

    @property
    def overcount(self) -> float:
        """flops / corrected: above 1 the authors counted too much."""
        return self.flops / self.corrected

    @property
    def note(self) -> str:
        """One sentence for a table or a caption."""
        return (
            f"the authors' formula gives {self.flops:.3g} FLOPs, {self.overcount:.2g} times the {self.corrected:.3g} "
            "of the corrected count"
        )


def sae_inference(atoms: int, width: int, samples: int) -> PaperCount:
    """Encode and decode `samples` rows: 4 M N + N each, N atoms of width M."""
    work = 4.0 * width * atoms + atoms
    ours = flops.linear_code(atoms, width) + flops.decode(atoms, width)
    return PaperCount(samples * work, samples * ours)


def mlp_inference(atoms: int, width: int, hidden: int, samples: int) -> PaperCount:
    """Encode through a hidden layer of h units and decode: 2 M h + h + 2 h N + N + 2 N M each."""
    work = 2.0 * width * hidden + hidden + 2.0 * hidden * atoms + atoms + 2.0 * atoms * width
    ours = flops.mlp_code(atoms, hidden, width) + flops.decode(atoms, width)
    return PaperCount(samples * work, samples * ours)


def code_optimisation(atoms: int, width: int, samples: int, iterations: int) -> PaperCount:
    """Optimise the codes of `samples` rows with D frozen: M N + N + iterations (4 M N + 2 M + 11 N) each."""
    each = width * atoms + atoms + iterations * (4.0 * width * atoms + 2.0 * width + 11.0 * atoms)
    return PaperCount(samples * each, iterations * flops.code_step(samples, atoms, width))


def sae_training(atoms: int, width: int, samples: int, steps: int, learned: bool = True) -> PaperCount:
    """Full-batch training: 4 M N + N (+ M N) forward, 4 M N + 2 N backward, 2 (M N + N) (+ 2 M N) updates each.

    learned: the dictionary is learned, which adds the terms in brackets.
    """
    both = width * atoms
    forward = 4.0 * both + atoms + learned * both
    backward = 4.0 * both + 2.0 * atoms
    update = 2.0 * (both + atoms) + learned * 2.0 * both
    ours = flops.autoencoder_step(samples, atoms, width, frozen=not learned)
    return PaperCount(samples * steps * (forward + backward + update), steps * ours)


def mlp_training(atoms: int, width: int, hidden: int, samples: int, steps: int, learned: bool = True) -> PaperCount:
    """Full-batch training with a hidden layer of h units, counted as `sae_training`; their backward pass has one
    product for every layer where there are two.
    """
    layers = width * hidden + hidden * atoms
    both = width * atoms
    forward = 2.0 * layers + hidden + atoms + 2.0 * both + learned * both
    backward = 2.0 * layers + 2.0 * (hidden + atoms) + 2.0 * both
    update = 2.0 * (layers + hidden + atoms) + learned * 2.0 * both
    ours = flops.autoencoder_step(samples, atoms, width, hidden, frozen=not learned)
    return PaperCount(samples * steps * (forward + backward + update), steps * ours)


def sparse_coding_training(atoms: int, width: int, samples: int, steps: int, learned: bool = True) -> PaperCount:
    """Full-batch training of codes and dictionary: [3 (N + 2 M N (+ 3 M N)) + 2 M B + N B + N B (+ M N)] B steps.

    B samples. The first bracket is of one sample, the terms with B are already of the whole batch, and all are
    multiplied by B again: at (N, M) = (16, 8) with 1,024 samples that is about 50 times too much.
    """
    both = width * atoms
    forward = atoms + 2.0 * both + learned * 3.0 * both
    rest = 2.0 * width * samples + 2.0 * atoms * samples + learned * both
    ours = flops.sparse_coding_step(samples, atoms, width) if learned else flops.code_step(samples, atoms, width)
    return PaperCount(samples * steps * (3.0 * forward + rest), steps * ours)
