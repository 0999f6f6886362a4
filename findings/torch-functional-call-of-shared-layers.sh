#!/usr/bin/env bash
# torch 2.13.0, torch.func.functional_call: a layer with two names keeps the values that it was called with.
#
# A good guess: functional_call(module, parameters, x) is a pure function; whatever the module's shape, its own
# parameters are afterwards what they were, and are still Parameters.
# What happens: where one layer is reachable by two names (self.first and an entry of a ModuleList, as people write
# it), its weight is afterwards the tensor that was passed in, and a plain tensor: the trained weights are gone from the
# module, in silence. With tie_weights=False, or the layer under one name, the guess holds. Known as
# https://github.com/pytorch/pytorch/issues/164759.
# Whoever computes tangent kernels, influence or meta-gradients with it changes the model.
#
# bash torch-functional-call-of-shared-layers.sh: installs torch in a temporary folder, prints what is seen, and fails
# when that is no longer so. Takes some minutes, all of them for the install.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$place/venv/bin/python" - <<'PY'
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, shared: bool) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.layers = nn.ModuleList([self.first] if shared else [])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.first(x)


print("torch", torch.__version__)
for shared, options, kept in ((False, {}, True), (True, {"tie_weights": False}, True), (True, {}, False)):
    torch.manual_seed(0)
    net = Net(shared)
    before = net.first.weight.detach().clone()
    zeros = {name: torch.zeros_like(value) for name, value in net.named_parameters()}
    torch.func.functional_call(net, zeros, (torch.ones(1, 2),), **options)
    same = torch.equal(net.first.weight, before) and isinstance(net.first.weight, nn.Parameter)
    print(f"two names {shared}, {options or 'defaults'}: the module's weight is {'kept' if same else 'replaced'}")
    assert same == kept
PY
