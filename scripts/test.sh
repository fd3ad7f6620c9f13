#!/usr/bin/env bash
# Installs what the tests need and runs every check, in this order; the first stage that fails ends it.
# Continuous integration runs the same. The last line counts the tests.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# For installing, unoptimised, which builds in less than half the time; any version that is there will do.
nextest_version=0.9.143
log=$(mktemp)
passed=0 failed=0 current=start

finish() {
  local code=$?
  rm -f "$log"
  [[ $code == 0 ]] || printf '\nerror: stage `%s` failed\n' "$current" >&2
  printf '%d passed, %d failed\n' "$passed" "$failed"
}
trap finish EXIT

# stage NAME COMMAND...: runs it, named and timed.
stage() {
  current=$1
  shift
  local started=$SECONDS
  printf '\n== %s\n' "$current"
  "$@"
  printf '== %s: ok in %d s\n' "$current" $((SECONDS - started))
}

apt_install() {
  echo "installing $*"
  local sudo=
  [[ $(id -u) == 0 ]] || sudo=sudo
  if ! { command -v apt-get >/dev/null && $sudo apt-get update -q && $sudo apt-get install -qy "$@"; }; then
    printf 'error: cannot install `%s`\n\nhint: install it with the system package manager\n' "$*" >&2
    return 1
  fi
}

install_tools() {
  if ! command -v cargo >/dev/null; then
    printf 'error: `cargo` not found\n\nhint: install Rust from https://rustup.rs\n' >&2
    return 1
  fi
  command -v cc >/dev/null || apt_install build-essential
  command -v git >/dev/null || apt_install git
  command -v python3 >/dev/null || apt_install python3
  # The walls around builds and trainers; tests run without them where they cannot be had, and say so.
  command -v bwrap >/dev/null || apt_install bubblewrap
  # Where there is no Vulkan driver, one in software stands in for a GPU.
  compgen -G '/usr/share/vulkan/icd.d/*.json' >/dev/null || compgen -G '/etc/vulkan/icd.d/*.json' >/dev/null ||
    apt_install mesa-vulkan-drivers libvulkan1
  cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
  cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
  cargo nextest --version >/dev/null 2>&1 || cargo install --locked --debug "cargo-nextest@$nextest_version"
  cargo --version
  cargo nextest --version | head -n 1
}

# Adds the counts of a log's summaries: nextest's `Summary […] 9 tests run: 8 passed, 1 failed, 0 skipped` and
# rustdoc's `test result: ok. 3 passed; 0 failed; …`.
count_tests() {
  local counts
  counts=$(sed 's/\x1b\[[0-9;]*m//g' "$log" | awk '
    /Summary \[.*tests? run:/ || /^test result:/ {
      for (i = 2; i <= NF; i++) {
        if ($i ~ /^passed/) passed += $(i - 1)
        if ($i ~ /^failed/ || ($i == "timed" && $(i + 1) ~ /^out/)) failed += $(i - 1)
      }
    }
    END { print passed + 0, failed + 0 }')
  passed=$((passed + ${counts% *})) failed=$((failed + ${counts#* }))
}

run_counted() {
  local code=0
  "$@" 2>&1 | tee "$log" || code=$?
  count_tests
  return "$code"
}

smoke_bench() {
  local perf code=0
  perf=$(mktemp -d)
  PERF_DIR=$perf scripts/run-compiled-benchmark.sh 5 || code=$?
  python3 - "$perf/compiled-loop-history.csv" <<'PY' || code=$?
import csv, sys
[row] = csv.DictReader(open(sys.argv[1], newline=""))
# Only a history of its own kind has comparisons: this one lies in a folder for the test.
may_be_empty = "speedup_pct verdict speedup_lo_pct speedup_hi_pct pairs base_tree tree".split()
empty = [name for name, value in row.items() if not value and name not in may_be_empty]
assert row["status"] == "ok" and not empty, f"incomplete row: {row}"
PY
  rm -rf "$perf"
  return "$code"
}

# Tests of the GPU backend pass where there is no device, and say so where nobody looks.
has_device() {
  .bun-out/alpha devices --json=true | python3 -c '
import json, sys
gpus = json.load(sys.stdin)["gpus"]
able = [gpu["name"] for gpu in gpus if gpu["lacks"] is None]
print("devices:", ", ".join(able))
sys.exit(0 if able else "error: no device, not even one in software: the tests of helios were skipped\n\nhint: apt-get install mesa-vulkan-drivers")
'
}

# Tests of the walls have nothing to see where the machine allows none: that is said.
has_walls() {
  if bwrap --unshare-user --unshare-pid --unshare-net --ro-bind / / true; then
    echo 'walls: bubblewrap works here'
  else
    echo 'walls: SKIPPED, bubblewrap is not allowed here: tests of walls pass without having tested anything'
  fi
}

# Mesa's device selection complains where there is no display.
export NODEVICE_SELECT=1

stage tools install_tools
stage walls has_walls
stage fmt cargo fmt --all --check
stage tidy scripts/tidy.py
stage clippy cargo clippy --workspace --all-targets --locked -- -D warnings
# One more than processors: a comparison waits for much of its time, and no more than two run at once.
stage tests run_counted cargo nextest run --workspace --locked --test-threads=$(($(nproc) + 1))
stage doctests run_counted cargo test --workspace --doc --locked
stage docs env RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked
stage licences scripts/licences.py
stage 'benchmark script' scripts/test_benchmark_script.py
stage build scripts/build.sh
stage device has_device
stage reference docs/reference/generate.sh --check
stage 'end to end' scripts/e2e.sh
stage 'smoke bench' smoke_bench
printf '\nall stages passed in %d s\n' "$SECONDS"
