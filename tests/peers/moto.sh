#!/usr/bin/env bash
# Runs a command beside an S3 server of its own, empty but for the bucket `llmflow-test`:
#   tests/peers/moto.sh cargo test --release -p llmflow-runtime store::
# The server is moto from the Python index, which is right about conditional writes and checks no signature. It is
# installed once, into a cache folder; LLMFLOW_MOTO_VENV says where.
set -euo pipefail
version=5.2.5
venv="${LLMFLOW_MOTO_VENV:-${XDG_CACHE_HOME:-$HOME/.cache}/llmflow-moto-$version}"
if [ ! -x "$venv/bin/moto_server" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check "moto[server]==$version"
fi
port="$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
export LLMFLOW_TEST_S3="http://127.0.0.1:$port" AWS_ENDPOINT_URL="http://127.0.0.1:$port" AWS_ALLOW_HTTP=true
export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_REGION=us-east-1
log="$(mktemp)"
"$venv/bin/moto_server" -H 127.0.0.1 -p "$port" >"$log" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null || true; rm -f "$log"' EXIT
put='import sys, urllib.request as u; u.urlopen(u.Request(sys.argv[1] + "/llmflow-test", method="PUT"), timeout=2)'
for _ in $(seq 60); do
  if python3 -c "$put" "$LLMFLOW_TEST_S3" 2>/dev/null; then
    "$@"
    exit
  fi
  kill -0 "$server" 2>/dev/null || { cat "$log" >&2; exit 1; }
  sleep 0.5
done
echo "the S3 server does not answer:" >&2
cat "$log" >&2
exit 1
