#!/usr/bin/env bash
# Make the peers' own environment: bash benchmarks/setup_peers.sh [FOLDER] (default benchmarks/.peers).
# torch comes first and is held by a constraints file, so that no peer brings another. Every peer is installed on its
# own: one that cannot be is left out with a line that says so, and run.py prints a row with the reason.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-$here/.peers}
torch=${TORCH:-torch==2.13.0}
[ -x "$folder/bin/python" ] || "${PYTHON:-python3}" -m venv "$folder"
pip=("$folder/bin/python" -m pip --disable-pip-version-check install --quiet)
"${pip[@]}" "$torch"
"$folder/bin/python" -c 'import torch; print("torch==" + torch.__version__)' > "$folder/constraints.txt"
missing=0
# One resolution for all of them where that works; one by one where it does not.
if ! "${pip[@]}" -c "$folder/constraints.txt" -r "$here/peers.txt"; then
  while read -r peer; do
    [ -n "$peer" ] || continue
    "${pip[@]}" -c "$folder/constraints.txt" "$peer" || { echo "left out: $peer"; missing=$((missing + 1)); }
  done < "$here/peers.txt"
fi
"$folder/bin/python" -c 'import torch; print("torch", torch.__version__)'
echo "peers in $folder, $missing left out"
