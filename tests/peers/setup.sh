#!/usr/bin/env bash
# Makes the environment that tests/peers/run.sh uses: other people's tools, pinned, outside the repository.
#   tests/peers/setup.sh        about 6 GB (torch brings its GPU libraries) and ten minutes (llama.cpp is compiled)
# LLMFLOW_PEERS_VENV says where; needs python3 with venv, cmake and a C++ compiler.
set -euo pipefail
venv="${LLMFLOW_PEERS_VENV:-$HOME/.cache/llmflow-peers}"
for tool in python3 cmake c++; do
  command -v "$tool" >/dev/null || { echo "needs $tool: install it, then run this again" >&2; exit 1; }
done
[ -x "$venv/bin/pip" ] || python3 -m venv "$venv"
"$venv/bin/pip" install --disable-pip-version-check \
  torch==2.15.0 transformers==5.24.0 peft==0.21.2 accelerate==1.15.0 safetensors==0.8.0 tokenizers==0.23.3 \
  gguf==0.19.0 openai==3.57.0 numpy==2.4.6
# Only the library: no server, no tools. At the lowest priority, for it keeps every core busy for minutes.
CMAKE_BUILD_PARALLEL_LEVEL="${CMAKE_BUILD_PARALLEL_LEVEL:-2}" \
CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_CURL=OFF" \
  nice -n 19 "$venv/bin/pip" install --disable-pip-version-check llama-cpp-python==0.3.36
echo "ready: $venv"
