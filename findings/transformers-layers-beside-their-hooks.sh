#!/usr/bin/env bash
# transformers 5.23.0 with torch 2.13.0: layers whose forward hooks never fire, and padding that an attention mask
# does not keep out.
#
# A good guess: a forward hook on the module of an encoder layer fires once in a pass of the model; and with a correct
# attention_mask the rows of a text are the same with and without padding behind it, up to rounding.
# What happens: SqueezeBERT runs through a layer's parts without calling the layer, and Funnel keeps its layers in
# lists within a block that is never called, so that hooks on "encoder.layers.0" and "encoder.blocks.0" stay silent
# (BERT's fires). And ConvBERT mixes neighbours by a convolution that knows no mask: its rows at the end of a text
# change with padding by about a hundredth of their size, where BERT's do not change.
# Whoever collects activations by hooks from padded batches sees nothing in the one case, and other numbers in the
# other, without a warning.
#
# bash transformers-layers-beside-their-hooks.sh: installs the packages in a temporary folder, prints what is seen,
# and fails when that is no longer so. The models are small and drawn at random. Takes some minutes, most for torch.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$place/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0 numpy==2.4.6
HF_HUB_OFFLINE=1 "$place/venv/bin/python" - <<'PY'
import torch
import transformers
from transformers import BertConfig, BertModel, ConvBertConfig, ConvBertModel
from transformers import FunnelConfig, FunnelModel, SqueezeBertConfig, SqueezeBertModel

print("transformers", transformers.__version__, "torch", torch.__version__)
torch.manual_seed(0)
small = dict(vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
funnel = FunnelConfig(vocab_size=50, d_model=32, n_head=4, d_head=8, d_inner=64, block_sizes=[1, 1, 1])
models = [
    (BertModel(BertConfig(**small)), "encoder.layer.0", 1),
    (SqueezeBertModel(SqueezeBertConfig(**small, embedding_size=32)), "encoder.layers.0", 0),
    (FunnelModel(funnel), "encoder.blocks.0", 0),
]
for model, path, expected in models:
    calls = []
    model.eval().get_submodule(path).register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        model(torch.tensor([[3, 4, 5, 6, 7, 8, 9, 10]]))
    print(f"{type(model).__name__}: the hook on {path} fired {len(calls)} times in a pass")
    assert len(calls) == expected

text = torch.tensor([[3, 4, 5, 6, 7, 8]])
padded = torch.nn.functional.pad(text, (0, 4))
mask = (torch.arange(10) < 6).long()[None]
for model, changes in ((BertModel(BertConfig(**small)), False), (ConvBertModel(ConvBertConfig(**small)), True)):
    model.eval()
    with torch.no_grad():
        alone = model(text).last_hidden_state[0]
        beside = model(padded, attention_mask=mask).last_hidden_state[0, :6]
    moved = (alone - beside).abs().amax(1) / alone.abs().mean()
    print(f"{type(model).__name__}: with padding the rows of 6 tokens move by", ", ".join(f"{m:.1e}" for m in moved))
    assert bool(moved.max() > 1e-3) == changes and (changes or bool(moved.max() < 1e-5))
PY
