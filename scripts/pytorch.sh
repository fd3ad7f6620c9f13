#!/usr/bin/env bash
# Tests the adapter for PyTorch (`adapter = "pytorch"` of loop.toml) with PyTorch itself, some two minutes. Not a part of
# scripts/test.sh: PyTorch takes 5 GB. It is installed into target/pytorch; PYTHON=… uses another one's.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ -z ${PYTHON:-} ]]; then
  PYTHON=target/pytorch/bin/python
  [[ -x $PYTHON ]] || python3 -m venv target/pytorch
  "$PYTHON" -c 'import torch' 2>/dev/null || "$PYTHON" -m pip install -q torch numpy
fi
"$PYTHON" -W ignore tests/pytorch/adapter_test.py "$@"
