#!/usr/bin/env bash
# Fuzzes the readers of files with coverage feedback (libFuzzer), each for some minutes.
#
#     scripts/fuzz.sh [SECONDS=1800] [TARGET...]       targets: data tokenizer checkpoint records
#
# Begins with the files of the tests and with what earlier runs found worth keeping (fuzz/corpus). An input that makes a reader
# panic, hang or take too much memory is left in fuzz/artifacts, and ends the script with an error. Needs a nightly toolchain.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=${1:-1800}
shift || true
targets=("$@")
[[ ${#targets[@]} -gt 0 ]] || targets=(data tokenizer checkpoint records)
cargo fuzz --version >/dev/null 2>&1 || cargo install --locked cargo-fuzz

# seed TARGET FILE...: puts files into a target's corpus, each after a byte that chooses how it is read.
seed() {
  local target=$1 file
  shift
  mkdir -p "fuzz/corpus/$target"
  for file in "$@"; do
    if [[ $target == tokenizer || $target == records ]]; then
      cp "$file" "fuzz/corpus/$target/$(basename "$file")"
    else
      { printf '\0'; head -c 20000 "$file"; } >"fuzz/corpus/$target/$(basename "$file")"
    fi
  done
}
seed tokenizer crates/alpha-data/tests/tokenizers/*[a-z].json
rm -f fuzz/corpus/tokenizer/*.expected.json
seed data data/abc-small.txt crates/alpha-data/tests/tokenizers/README.md
for record in perf/ledger/*.json; do seed records "$record"; done

for target in "${targets[@]}"; do
  printf '\n== %s: %d s\n' "$target" "$seconds"
  cargo +nightly fuzz run "$target" -- -max_total_time="$seconds" -timeout=20 -rss_limit_mb=4096 -max_len=40000 -print_final_stats=1
done
