#!/usr/bin/env bash
# Installs what the fault tests need beside python3: strace, faketime, a C compiler, ext4 tools, and an S3 server (moto)
# in a virtual environment outside the repository. A second run installs nothing.
#   tests/faults/install.sh
# LLMFLOW_MOTO_VENV says where moto goes. Needs root, or sudo, for the Debian packages.
set -euo pipefail
cache="${XDG_CACHE_HOME:-$HOME/.cache}"
version=5.2.5
venv="${LLMFLOW_MOTO_VENV:-$cache/llmflow-moto-$version}"

missing=()
for pair in strace:strace faketime:faketime gcc:gcc mkfs.ext4:e2fsprogs losetup:mount; do
  command -v "${pair%%:*}" >/dev/null || PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
  root=(); [ "$(id -u)" = 0 ] || root=(sudo)
  "${root[@]}" apt-get update -qq
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

if [ ! -x "$venv/bin/moto_server" ]; then
  [ -x "$venv/bin/pip" ] || python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check "moto[server]==$version"
fi
echo "ready: strace, faketime, gcc, ext4, $venv/bin/moto_server"
