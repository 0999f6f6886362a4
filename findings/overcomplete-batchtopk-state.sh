#!/usr/bin/env bash
# Overcomplete 0.3.0, BatchTopKSAE: how many codes are active, and what a state_dict keeps.
#
# A good guess: top_k is the number of active codes of a row (a batch of n rows keeps the n * top_k largest, as in
# Bussmann et al. 2024, arXiv 2412.06410, which the class cites), and a model that is built alike and given the
# trained state_dict encodes in eval mode as the trained one does.
# What happens: top_k is the number of active codes of the whole batch, so that a row has top_k / n of them and most
# rows have none; and the threshold that eval mode goes by is a plain attribute, so that state_dict leaves it out:
# after load_state_dict, encode in eval mode raises AssertionError.
#
# bash overcomplete-batchtopk-state.sh: installs the packages in a temporary folder, prints what is seen, and fails
# when that is no longer so. Takes some minutes, most of them for torch.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$place/venv/bin/pip" install --quiet --disable-pip-version-check einops==0.8.2 pillow matplotlib tqdm "numpy<3" "scipy<2" "scikit-learn>=1.2,<2"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps Overcomplete==0.3.0
cd "$place"
"$place/venv/bin/python" - <<'PY'
import sys
import types
from importlib.metadata import distribution, version

import torch

# The package's own __init__ imports vision models first; the autoencoders need none of them.
package = types.ModuleType("overcomplete")
package.__path__ = [str(distribution("overcomplete").locate_file("overcomplete"))]
sys.modules["overcomplete"] = package
from overcomplete.sae import BatchTopKSAE

print("Overcomplete", version("overcomplete"), "torch", torch.__version__)
torch.manual_seed(0)
x = torch.randn(4096, 16)
sae = BatchTopKSAE(16, 64, top_k=8)
optimiser = torch.optim.Adam(sae.parameters(), 1e-3)
for _ in range(200):
    batch = x[torch.randint(0, len(x), (256,))]
    _, z, back = sae(batch)
    loss = (batch - back).square().mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()

active = int((z > 0).sum())
silent = int(((z > 0).sum(1) == 0).sum())
print(f"top_k=8, a training batch of 256 rows: {active} active codes in all, {silent} rows have none")
assert active <= 8 and silent >= 248

sae.eval()
with torch.no_grad():
    print(f"trained model in eval mode: {float((sae.encode(x)[1] > 0).sum(1).float().mean()):.3f} active codes a row")
print("state_dict:", ", ".join(sae.state_dict()))
assert not any("threshold" in name for name in sae.state_dict())

again = BatchTopKSAE(16, 64, top_k=8)
print("load_state_dict:", again.load_state_dict(sae.state_dict()))
again.eval()
try:
    again.encode(x)
except AssertionError as error:
    print("encode of the loaded model raises AssertionError:", error)
else:
    raise SystemExit("the loaded model encodes: this has changed")
PY
