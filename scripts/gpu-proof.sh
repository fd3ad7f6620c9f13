#!/usr/bin/env bash
# What a card does, in at most ten minutes, as one JSON to send back; see scripts/gpu_proof.py.
#
#   scripts/gpu-proof.sh [--device=N] [--minutes=10] [--out=gpu-proof.json] [--python=PYTHON-WITH-TORCH]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if ! command -v python3 >/dev/null; then
  printf 'error: `python3` not found\n\nhint: install Python 3\n' >&2
  exit 1
fi
exec python3 "$here/gpu_proof.py" "$@"
