"""The BatchTopK and JumpReLU training steps and their peers'."""

from __future__ import annotations

import torch

from tasks.topk_steps import AUX_K, BANDWIDTH, LR, Overcomplete, SAELens, Step


class Batch(Step):
    """Codes of the fixed batch are its b k largest, for every contender."""

    def parts(self) -> tuple[torch.Tensor, ...]:
        """Encoder weight [m, d], its bias [m], atoms [m, d], decoder bias [d]."""
        raise NotImplementedError

    def reconstruct(self, x: torch.Tensor) -> torch.Tensor:
        weight, shift, atoms, bias = self.parts()
        codes = torch.addmm(shift, x - bias, weight.T).relu()
        least = codes.flatten().topk(self.k * len(x), sorted=False).values.min()
        return (codes * (codes >= least)) @ atoms + bias


class UnmixBatch(Batch):
    backend = "numba"

    def build(self) -> None:
        from unmix.kernels.threshold import BatchTopKTrainer

        zeros = torch.zeros(self.m), torch.zeros(self.d)
        options = {"lr": LR, "aux_k": AUX_K, "backend": self.backend}
        self.trainer = BatchTopKTrainer(self.start, zeros[0], self.start, zeros[1], self.k, **options)

    def step(self, x: torch.Tensor) -> None:
        self.trainer.step(x)

    def parts(self) -> tuple[torch.Tensor, ...]:
        return tuple(self.trainer.parameters().values())[:4]


class UnmixBatchTorch(UnmixBatch):
    backend = "torch"


class OvercompleteBatch(Overcomplete, Batch):
    def build(self) -> None:
        from overcomplete.sae import BatchTopKSAE

        self.start_from(BatchTopKSAE(self.d, self.m, top_k=self.k * self.b, encoder_module="linear"))

    def parts(self) -> tuple[torch.Tensor, ...]:
        return self.linear.weight, self.linear.bias, self.sae.get_dictionary(), torch.zeros(self.d)

    reconstruct = Batch.reconstruct


class DictionaryLearningBatch(Batch):
    def build(self) -> None:
        from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer

        self.trainer = BatchTopKTrainer(
            10_000, self.d, self.m, self.k, 0, "none", lr=LR, warmup_steps=10, seed=0, device="cpu"
        )
        with torch.no_grad():
            self.trainer.ae.encoder.weight.copy_(self.start)
            self.trainer.ae.decoder.weight.copy_(self.start.T)

    def step(self, x: torch.Tensor) -> None:
        self.trainer.update(self.turn, x)

    def parts(self) -> tuple[torch.Tensor, ...]:
        ae = self.trainer.ae
        return ae.encoder.weight, ae.encoder.bias, ae.decoder.weight.T, ae.b_dec


class SAELensBatch(SAELens, Batch):
    names = ("BatchTopKTrainingSAE", "BatchTopKTrainingSAEConfig")

    def parts(self) -> tuple[torch.Tensor, ...]:
        return self.sae.W_enc.T, self.sae.b_enc, self.sae.W_dec, self.sae.b_dec

    reconstruct = Batch.reconstruct


class Jump(Batch):
    """Codes are those above the thresholds."""

    def level(self) -> float:
        """The threshold that k pre-activations of a row are above at the start."""
        before = (self.batches[0] @ self.start.T).flatten()
        return float(before.topk(self.k * self.b, sorted=False).values.min())

    def threshold(self) -> torch.Tensor:
        raise NotImplementedError

    def reconstruct(self, x: torch.Tensor) -> torch.Tensor:
        weight, shift, atoms, bias = self.parts()
        inputs = x if isinstance(self, DictionaryLearningJump) else x - bias
        codes = torch.addmm(shift, inputs, weight.T).relu()
        return (codes * (codes > self.threshold())) @ atoms + bias


class UnmixJump(Jump):
    backend = "numba"

    def build(self) -> None:
        from unmix.kernels.threshold import JumpReLUTrainer

        given = (self.start, torch.zeros(self.m), self.start, torch.zeros(self.d))
        options = {"lr": LR, "aux_k": AUX_K, "backend": self.backend, "active": float(self.k)}
        self.trainer = JumpReLUTrainer(*given, torch.full((self.m,), self.level()), BANDWIDTH, 1.0, **options)

    def step(self, x: torch.Tensor) -> None:
        self.trainer.step(x)

    def parts(self) -> tuple[torch.Tensor, ...]:
        return tuple(self.trainer.parameters().values())[:4]

    def threshold(self) -> torch.Tensor:
        return self.trainer.threshold()


class UnmixJumpTorch(UnmixJump):
    backend = "torch"


class DictionaryLearningJump(Jump):
    """It does not take the decoder's bias off its input."""

    def build(self) -> None:
        from dictionary_learning.trainers.jumprelu import JumpReluTrainer

        self.trainer = JumpReluTrainer(
            10_000, self.d, self.m, 0, "none", seed=0, lr=LR, bandwidth=BANDWIDTH, warmup_steps=10,
            sparsity_warmup_steps=10, target_l0=float(self.k), device="cpu",
        )  # fmt: skip
        with torch.no_grad():
            self.trainer.ae.W_enc.copy_(self.start.T)
            self.trainer.ae.W_dec.copy_(self.start)
            self.trainer.ae.threshold.fill_(self.level())

    def step(self, x: torch.Tensor) -> None:
        self.trainer.update(self.turn, x)

    def parts(self) -> tuple[torch.Tensor, ...]:
        ae = self.trainer.ae
        return ae.W_enc.T, ae.b_enc, ae.W_dec, ae.b_dec

    def threshold(self) -> torch.Tensor:
        return self.trainer.ae.threshold


class SAELensJump(SAELensBatch, Jump):
    names = ("JumpReLUTrainingSAE", "JumpReLUTrainingSAEConfig")

    def options(self) -> dict:
        mode = {"jumprelu_sparsity_loss_mode": "quadratic", "target_l0": float(self.k)}
        return {"jumprelu_init_threshold": self.level(), "jumprelu_bandwidth": BANDWIDTH, **mode}

    def threshold(self) -> torch.Tensor:
        return self.sae.threshold

    reconstruct = Jump.reconstruct
