"""The TopK training step and its peers'."""

from __future__ import annotations

import numpy as np
import torch

LR = 1e-4
AUX_K = 64
BANDWIDTH = 0.2


class Step:
    """Rows from a sparse world, tied starting weights; fvu at the start is the same for everyone."""

    def __init__(self, size: dict) -> None:
        self.b, self.d, self.m, self.k = (size[name] for name in ("b", "d", "m", "k"))
        draw = np.random.default_rng(0)
        truth = draw.standard_normal((self.m, self.d), dtype=np.float32)
        truth /= np.linalg.norm(truth, axis=1, keepdims=True)
        rows = np.zeros((2 * self.b, self.d), np.float32)
        for _ in range(self.k):
            picked = draw.integers(0, self.m, 2 * self.b)
            rows += np.abs(draw.standard_normal((2 * self.b, 1), dtype=np.float32)) * truth[picked]
        self.batches = torch.from_numpy(rows - rows.mean(0)).split(self.b)
        start = draw.standard_normal((self.m, self.d), dtype=np.float32)
        self.start = torch.nn.functional.normalize(torch.from_numpy(start))
        self.turn = 0
        self.build()
        with torch.no_grad():
            self.before = self.fvu()

    def run(self) -> None:
        self.turn += 1
        self.step(self.batches[self.turn % 2])

    def check(self) -> dict:
        with torch.no_grad():
            return {"fvu before": self.before, "fvu after": self.fvu(), "steps": self.turn}

    def fvu(self) -> float:
        x = self.batches[0]
        return float((x - self.reconstruct(x)).square().sum() / (x - x.mean(0)).square().sum())

    def build(self) -> None:
        raise NotImplementedError

    def step(self, x: torch.Tensor) -> None:
        raise NotImplementedError

    def reconstruct(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class EncoderProduct(Step):
    """The floor: the one dense product that no exact TopK step can avoid, into memory that is there already."""

    def build(self) -> None:
        self.out = torch.empty(self.b, self.m)

    def step(self, x: torch.Tensor) -> None:
        torch.mm(x, self.start.T, out=self.out)

    def fvu(self) -> float:
        return float("nan")

    def check(self) -> dict:
        return {}


class Unmix(Step):
    backend = "numba"

    def build(self) -> None:
        from unmix.kernels.topk import TopKTrainer

        zeros = torch.zeros(self.m), torch.zeros(self.d)
        self.trainer = TopKTrainer(
            self.start, zeros[0], self.start, zeros[1], self.k, lr=LR, aux_k=64, backend=self.backend
        )

    def step(self, x: torch.Tensor) -> None:
        self.trainer.step(x)

    def reconstruct(self, x: torch.Tensor) -> torch.Tensor:
        from unmix.kernels.topk import decode, encode_topk

        p = self.trainer.parameters()
        codes = encode_topk(x - p["decoder_bias"], p["weight"], p["encoder_bias"], self.k, backend=self.backend)
        return decode(*codes, p["atoms"], p["decoder_bias"], backend=self.backend)


class UnmixTorch(Unmix):
    backend = "torch"


class DenseTorch(Step):
    """The same step by dense autograd, as one would write it first."""

    def build(self) -> None:
        self.weight, self.atoms = (self.start.clone().requires_grad_() for _ in range(2))
        self.shift, self.bias = (torch.zeros(size, requires_grad=True) for size in (self.m, self.d))
        self.adam = torch.optim.Adam([self.weight, self.atoms, self.shift, self.bias], lr=LR, fused=True)

    def reconstruct(self, x: torch.Tensor) -> torch.Tensor:
        before = torch.addmm(self.shift, x - self.bias, self.weight.T).relu()
        best = before.topk(self.k, dim=1)
        return torch.zeros_like(before).scatter(1, best.indices, best.values) @ self.atoms + self.bias

    def step(self, x: torch.Tensor) -> None:
        loss = (x - self.reconstruct(x)).square().sum(1).mean()
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        with torch.no_grad():
            self.atoms.div_(self.atoms.norm(dim=1, keepdim=True))


class Sparsify(Step):
    """EleutherAI sparsify with Adam (its default is SignSGD) and its own projection and normalisation."""

    def build(self) -> None:
        from sparsify import SparseCoder, SparseCoderConfig

        self.sae = SparseCoder(self.d, SparseCoderConfig(num_latents=self.m, k=self.k))
        with torch.no_grad():
            self.sae.encoder.weight.copy_(self.start)
            self.sae.W_dec.copy_(self.start)
        self.adam = torch.optim.Adam(self.sae.parameters(), lr=LR)

    def reconstruct(self, x: torch.Tensor) -> torch.Tensor:
        return self.sae(x).sae_out

    def step(self, x: torch.Tensor) -> None:
        self.sae.set_decoder_norm_to_unit_norm()
        self.sae(x).fvu.backward()
        self.sae.remove_gradient_parallel_to_decoder_directions()
        self.adam.step()
        self.adam.zero_grad()


class Overcomplete(Step):
    def build(self) -> None:
        from overcomplete.sae import TopKSAE

        self.start_from(TopKSAE(self.d, self.m, top_k=self.k, encoder_module="linear"))

    def start_from(self, sae: torch.nn.Module) -> None:
        self.sae = sae
        linear = [module for module in sae.encoder.modules() if isinstance(module, torch.nn.Linear)]
        if len(linear) != 1:
            raise RuntimeError(f"expected one linear layer in the encoder, found {len(linear)}")
        self.linear = linear[0]
        with torch.no_grad():
            self.linear.weight.copy_(self.start)
            self.linear.bias.zero_()
            self.sae.dictionary._weights.copy_(self.start)
        self.adam = torch.optim.Adam(self.sae.parameters(), lr=LR)

    def reconstruct(self, x: torch.Tensor) -> torch.Tensor:
        return self.sae(x)[2]

    def step(self, x: torch.Tensor) -> None:
        from overcomplete.sae import train_sae

        def loss(x, x_hat, pre_codes, codes, dictionary):
            return (x - x_hat).square().mean()

        train_sae(self.sae, [x], loss, self.adam, nb_epochs=1, monitoring=0)


class DictionaryLearning(Step):
    def build(self) -> None:
        from dictionary_learning.trainers.top_k import AutoEncoderTopK, TopKTrainer

        self.trainer = TopKTrainer(
            10_000, self.d, self.m, self.k, 0, "none", AutoEncoderTopK, lr=LR, warmup_steps=10, seed=0, device="cpu"
        )
        with torch.no_grad():
            self.trainer.ae.encoder.weight.copy_(self.start)
            self.trainer.ae.decoder.weight.copy_(self.start.T)

    def reconstruct(self, x: torch.Tensor) -> torch.Tensor:
        return self.trainer.ae(x)

    def step(self, x: torch.Tensor) -> None:
        self.trainer.update(self.turn, x)


class SAELens(Step):
    names = ("TopKTrainingSAE", "TopKTrainingSAEConfig")

    def options(self) -> dict:
        return {"k": self.k}

    def build(self) -> None:
        import sae_lens
        from sae_lens.config import SAETrainerConfig
        from sae_lens.training.sae_trainer import SAETrainer

        kind, config = (getattr(sae_lens, name) for name in self.names)
        self.sae = kind(config(d_in=self.d, d_sae=self.m, device="cpu", dtype="float32", **self.options()))
        with torch.no_grad():
            self.sae.W_enc.copy_(self.start.T)
            self.sae.W_dec.copy_(self.start)
        plan = SAETrainerConfig(total_training_samples=10**9, train_batch_size_samples=self.b, lr=LR)
        plan.lr_end = LR / 10
        self.trainer = SAETrainer(plan, self.sae, iter(()))

    def reconstruct(self, x: torch.Tensor) -> torch.Tensor:
        return self.sae(x)

    def step(self, x: torch.Tensor) -> None:
        self.trainer.step(x)
        self.trainer.n_training_steps += 1


class UnmixAuxK(Unmix):
    def step(self, x: torch.Tensor) -> None:
        self.trainer.idle[: self.m // 10] = 10**9
        self.trainer.step(x)


class DictionaryLearningAuxK(DictionaryLearning):
    def step(self, x: torch.Tensor) -> None:
        self.trainer.top_k_aux = AUX_K
        self.trainer.num_tokens_since_fired[: self.m // 10] = 10**9
        super().step(x)


class SAELensAuxK(SAELens):
    """Its own number of auxiliary latents, d / 2."""

    def step(self, x: torch.Tensor) -> None:
        self.trainer.n_forward_passes_since_fired[: self.m // 10] = 10**9
        super().step(x)
