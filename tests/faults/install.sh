#!/usr/bin/env bash
# Installs what the fault tests need beside python3: strace, faketime, a C compiler, ext4 tools, and an S3 server (moto)
# outside the repository; for the full tier a second one (s3s-fs), which takes minutes to build. A second run installs nothing.
#   tests/faults/install.sh [--full]
# Needs root, or sudo, for the Debian packages.
set -euo pipefail

missing=()
for pair in strace:strace faketime:faketime gcc:gcc mkfs.ext4:e2fsprogs losetup:mount; do
  command -v "${pair%%:*}" >/dev/null || PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
  root=(); [ "$(id -u)" = 0 ] || root=(sudo)
  "${root[@]}" apt-get update -qq
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

here="$(dirname "$0")"
"$here/../peers/s3.sh" moto
if [ "${1:-}" = --full ]; then "$here/../peers/s3.sh" s3s; fi
echo "ready: strace, faketime, gcc, ext4, S3 servers"
