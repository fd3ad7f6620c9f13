#!/usr/bin/env bash
# Time from an edit of one kernel to a binary that can be measured, RUNS times (3).
#
#   benches/rebuild.sh [RUNS] [FILE]
#
# The edit is a static that is compiled in and differs each time, so that nothing is found to be unchanged; the file
# is put back at the end.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

runs=${1:-3}
file=${2:-crates/alpha-tensor/src/cpu/linear.rs}
[[ -f "$file" ]] || { printf 'error: `%s` is not there\n\nhint: benches/rebuild.sh 3 FILE\n' "$file" >&2; exit 2; }

scripts/build.sh
original=$(mktemp)
cp -p "$file" "$original"
trap 'cp -p "$original" "$file"; touch "$file"; rm -f "$original"' EXIT
for ((run = 1; run <= runs; run++)); do
  cp "$original" "$file"
  printf '\n#[used]\nstatic REBUILD_PROBE: u64 = %d;\n' "$run$RANDOM" >>"$file"
  started=${EPOCHREALTIME/[.,]/}
  scripts/build.sh
  echo "rebuild $run after an edit of $file: $(((${EPOCHREALTIME/[.,]/} - started) / 1000)) ms"
done
