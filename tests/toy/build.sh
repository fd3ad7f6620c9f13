#!/usr/bin/env bash
# Makes the trainer: one file that the system can start, without comments, so that editing one changes nothing.
# The interpreter itself stands in the first line, not a shim that looks for it at every start; Python's own settings
# stay outside (-E -s), as does what it looks for at its start (-S).
#
#     build.sh [--layout=N]     another order of the same functions for each N; 0 is the one that is written
set -euo pipefail
layout=${1:---layout=0}
layout=${layout#--layout=}
mkdir -p out
{
  echo "#!$(python3 -c 'import sys; print(sys.executable)') -SEs"
  cat src/instrument.py src/trainer.py | sed '/^ *#/d' | if ((layout)); then python3 layout.py "$layout"; else cat; fi
} >out/trainer.new
chmod +x out/trainer.new
mv out/trainer.new out/trainer
