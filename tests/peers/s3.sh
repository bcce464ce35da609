#!/usr/bin/env bash
# Runs a command beside an S3 server of its own, empty but for the bucket `llmflow-test`:
#   tests/peers/s3.sh moto cargo test --release --workspace --locked
#   tests/peers/s3.sh s3s  cargo test --release --workspace --locked a_store_elsewhere
# moto, from the Python index, is right about conditional writes and checks no signature. s3s-fs, a Rust crate, checks
# signatures, checksums and clocks, and lets several win who create one object at once. Each is installed once, into a
# cache folder: LLMFLOW_MOTO_VENV and LLMFLOW_TOOLS say where. Building s3s-fs takes minutes.
set -euo pipefail
cache="${XDG_CACHE_HOME:-$HOME/.cache}"
moto=5.2.5
s3s=0.14.1
venv="${LLMFLOW_MOTO_VENV:-$cache/llmflow-moto-$moto}"
tools="${LLMFLOW_TOOLS:-$cache/llmflow-tools}"

install() {
  case "$1" in
    moto)
      if [ ! -x "$venv/bin/moto_server" ]; then
        [ -x "$venv/bin/pip" ] || python3 -m venv "$venv"
        "$venv/bin/pip" install --quiet --disable-pip-version-check "moto[server]==$moto"
      fi ;;
    s3s)
      if ! "$tools/bin/s3s-fs" --version 2>/dev/null | grep -q " $s3s$"; then
        CARGO_TARGET_DIR="$(mktemp -d)" cargo install --quiet --locked --root "$tools" --features binary "s3s-fs@$s3s"
      fi ;;
    *) echo "no server is called \`$1\`: write moto or s3s" >&2; exit 2 ;;
  esac
}

server="${1:?which server: moto or s3s}"
shift
install "$server"
if [ $# = 0 ]; then exit; fi

port="$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
export LLMFLOW_TEST_STORE="s3://llmflow-test" AWS_ENDPOINT_URL="http://127.0.0.1:$port" AWS_ALLOW_HTTP=true
export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test-secret AWS_REGION=us-east-1
work="$(mktemp -d)"
mkdir -p "$work/objects/llmflow-test"
case "$server" in
  moto) "$venv/bin/moto_server" -H 127.0.0.1 -p "$port" >"$work/log" 2>&1 & ;;
  s3s)
    export LLMFLOW_TEST_STORE_RACES=no
    "$tools/bin/s3s-fs" --host 127.0.0.1 --port "$port" --access-key test --secret-key test-secret "$work/objects" \
      >"$work/log" 2>&1 & ;;
esac
running=$!
trap 'kill "$running" 2>/dev/null || true; rm -rf "$work"' EXIT
# A folder is a bucket to s3s-fs, and it answers nobody who has not signed.
ask='import sys, urllib.error as e, urllib.request as u
try: u.urlopen(u.Request(sys.argv[1] + "/llmflow-test", method="PUT"), timeout=2)
except e.HTTPError as refused: sys.exit(sys.argv[2] == "moto" or refused.code != 403)'
for _ in $(seq 60); do
  if python3 -c "$ask" "$AWS_ENDPOINT_URL" "$server" 2>/dev/null; then
    "$@"
    exit
  fi
  kill -0 "$running" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
  sleep 0.5
done
echo "the S3 server does not answer:" >&2
cat "$work/log" >&2
exit 1
