#!/usr/bin/env bash
# Tests the adapter for PyTorch (`adapter = "pytorch"` of loop.toml) and the callbacks of python/alpha_loop with PyTorch, transformers
# and Lightning themselves, some four minutes. Not a part of scripts/test.sh: PyTorch takes 5 GB. They are installed into
# target/pytorch; PYTHON=… uses another one's.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ -z ${PYTHON:-} ]]; then
  PYTHON=target/pytorch/bin/python
  [[ -x $PYTHON ]] || python3 -m venv target/pytorch
  "$PYTHON" -c 'import torch, transformers, accelerate, lightning' 2>/dev/null ||
    "$PYTHON" -m pip install -q torch numpy transformers accelerate lightning
fi
"$PYTHON" -W ignore tests/pytorch/adapter_test.py "$@"
"$PYTHON" -W ignore tests/pytorch/callback_test.py "$@"
