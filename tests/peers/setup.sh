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
  gguf==0.19.0 openai==3.57.0 numpy==2.4.6 openlineage-python==1.54.0 rocrate==0.16.0

# llama-cpp-python's own build also compiles llama.cpp's tools; we need its libraries alone, in half the time. At the
# lowest priority, for it keeps every core busy for minutes.
if ! "$venv/bin/python" -c 'import llama_cpp' 2>/dev/null; then
  work="$(mktemp -d)"
  trap 'rm -rf "$work"' EXIT
  "$venv/bin/pip" download --disable-pip-version-check --no-deps --no-binary :all: -d "$work" llama-cpp-python==0.3.36
  tar -xzf "$work"/*.tar.gz -C "$work" --strip-components=1
  cmake -S "$work/vendor/llama.cpp" -B "$work/build" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON \
    -DGGML_NATIVE=ON -DLLAMA_BUILD_COMMON=OFF -DLLAMA_BUILD_APP=OFF -DCMAKE_BUILD_WITH_INSTALL_RPATH=ON -DCMAKE_INSTALL_RPATH='$ORIGIN'
  nice -n 19 cmake --build "$work/build" --target llama --parallel "${CMAKE_BUILD_PARALLEL_LEVEL:-2}"
  CMAKE_ARGS="-DLLAMA_BUILD=OFF -DLLAVA_BUILD=OFF" "$venv/bin/pip" install --disable-pip-version-check "$work"
  lib="$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')/llama_cpp/lib"
  mkdir -p "$lib"
  cp -a "$work"/build/bin/*.so* "$lib/"
  "$venv/bin/python" -c 'import llama_cpp; print("llama.cpp", llama_cpp.__version__)'
fi
echo "ready: $venv"
