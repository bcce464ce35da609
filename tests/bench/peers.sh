#!/usr/bin/env bash
# Makes the environment that tests/bench/bench.py measures peers in: pinned, outside the repository.
#   tests/bench/peers.sh        about 400 MB and two minutes
# LLMFLOW_BENCH_PEERS says where; needs python3 (3.11) with venv. ninja, snakemake and dvc come from the Python index.
set -euo pipefail
venv="${LLMFLOW_BENCH_PEERS:-${XDG_CACHE_HOME:-$HOME/.cache}/llmflow-bench-peers}"
command -v python3 >/dev/null || { echo "needs python3: install it, then run this again" >&2; exit 1; }
[ -x "$venv/bin/pip" ] || python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check snakemake==9.27.1 dvc==3.67.1 ninja==1.13.0
for peer in ninja snakemake dvc; do
  echo "$peer $("$venv/bin/$peer" --version | head -1)"
done
