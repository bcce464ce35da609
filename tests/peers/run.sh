#!/usr/bin/env bash
# Do other people's tools load what LLMflow makes, and compute the same with it?
#   tests/peers/run.sh [CHECK...]    all of: transformers peft llama_cpp blocks openai lineage speed; ends with 1 if one fails
# Trains a short adapter (peers.yaml), then asks each tool. Once before: tests/peers/setup.sh. A quarter of an hour on two
# cores; run `speed` alone on a quiet machine. LLMFLOW_PEERS_WORK says where the files go, LLMFLOW_PEERS_VENV where the tools are.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
root="$(cd "$here/../.." && pwd)"
venv="${LLMFLOW_PEERS_VENV:-$HOME/.cache/llmflow-peers}"
work="${LLMFLOW_PEERS_WORK:-$HOME/.cache/llmflow-peers-work}"
target="${CARGO_TARGET_DIR:-$root/target}"
[ -x "$venv/bin/python" ] || { echo "no tools in $venv: run tests/peers/setup.sh first" >&2; exit 2; }
if [ -d "$root/../shared/data" ]; then
  export LLMFLOW_SHARED_DATA="${LLMFLOW_SHARED_DATA:-$(cd "$root/../shared/data" && pwd)}"
fi
(cd "$root" && cargo build --release --locked --workspace --bins --example peers)
llmflow="$target/release/llmflow"

mkdir -p "$work"
cp "$here/peers.yaml" "$root/pipelines/data/instructions.jsonl" "$work/"
(cd "$work" && "$llmflow" --plain run peers.yaml)
export LLMFLOW_PEERS_MADE="$work" LLMFLOW_PEERS_BINARY="$target/release/examples/peers"
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error PYTHONWARNINGS=ignore PYTHONPATH="$here"

script() { "$venv/bin/python" "$here/$1.py"; }

# A server of the Q8_0 file while the openai package talks with it.
openai() {
  local url="" server
  (cd "$work" && exec "$llmflow" --json serve @/q8_0) >"$work/serve.json" &
  server=$!
  for _ in $(seq 300); do
    url="$(sed -n 's/.*"url":"\([^"]*\)".*/\1/p' "$work/serve.json")"
    [ -z "$url" ] || break
    kill -0 "$server" 2>/dev/null || break
    sleep 0.2
  done
  local failed=0
  [ -n "$url" ] || { echo "FAIL the server never said where it is"; failed=1; }
  [ "$failed" = 1 ] || LLMFLOW_PEERS_SERVER="$url" script openai_chats || failed=1
  kill -INT "$server" 2>/dev/null || true
  wait "$server" || true
  return "$failed"
}

status=0
for check in "${@:-transformers peft llama_cpp blocks openai lineage speed}"; do
  for name in $check; do
    echo "── $name"
    case "$name" in
      transformers) script folder_in_transformers ;;
      peft) script adapter_in_peft ;;
      llama_cpp) script gguf_in_llama_cpp ;;
      blocks) script blocks ;;
      openai) openai ;;
      lineage) "$venv/bin/python" "$here/lineage_elsewhere.py" "$llmflow" "$work" ;;
      speed) script lora_speed ;;
      *) echo "no check is called $name" >&2; exit 2 ;;
    esac || status=1
  done
done
exit "$status"
