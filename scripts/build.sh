#!/usr/bin/env bash
# Builds the release binary and puts it at .bun-out/alpha, where existing scripts look for it.
# Extra arguments go to cargo. CARGO_TARGET_DIR is honoured.
#
#     scripts/build.sh [--layout=N] [CARGO'S ARGUMENTS]
#
# A layout other than 0 puts the program's functions and data in an order that N draws, and changes nothing else: only the
# last link is done again (crates/alpha/build.rs). Needs LLD, rustc's own linker on x86-64 Linux.
#
# Paths of this machine are remapped, so that the binary tells none of them: equal sources give equal binaries
# wherever they lie.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! command -v cargo >/dev/null; then
  printf 'error: `cargo` not found\n\nhint: install Rust from https://rustup.rs\n' >&2
  exit 1
fi

unset ALPHA_LAYOUT
if [[ "${1:-}" == --layout=* ]]; then
  layout=${1#--layout=}
  shift
  if ! [[ "$layout" =~ ^[0-9]{1,9}$|^1[0-9]{9}$ ]]; then
    printf 'error: `--layout=%s` is not a number below 2000000000\n\nhint: 0 is the layout that is written\n' "$layout" >&2
    exit 1
  fi
  [[ "$layout" =~ ^0+$ ]] || export ALPHA_LAYOUT=$layout
fi

root=$(pwd -P)
target=${CARGO_TARGET_DIR:-target}
cargo_home=${CARGO_HOME:-$HOME/.cargo}
mkdir -p "$target"
target_path=$(cd "$target" && pwd -P)
sysroot=$(rustc --print sysroot)

# Sources of dependencies lie in a folder that is named after the registry; it is there after the first download.
compgen -G "$cargo_home/registry/src/*" >/dev/null || cargo fetch --locked
rules=("$HOME=/home" "$cargo_home=/cargo")
for folder in "$cargo_home"/registry/src/*/; do
  rules+=("${folder%/}=/cargo")
done
rules+=("$sysroot/lib/rustlib/src/rust=/rust" "$root=." "$target_path=/target")

# rustc takes the last rule that matches, so the general ones come first. The separator is 0x1f: paths may hold spaces.
flags=${CARGO_ENCODED_RUSTFLAGS:-${RUSTFLAGS:+$(tr -s ' ' '\037' <<<"$RUSTFLAGS" | tr -d '\n')}}
for rule in "${rules[@]}"; do
  flags+="${flags:+$'\x1f'}--remap-path-prefix=$rule"
done
export CARGO_ENCODED_RUSTFLAGS=$flags
# The same for C code in dependencies; a path with a space cannot be said here.
if [[ "$cargo_home$target_path" != *" "* ]]; then
  export CFLAGS="${CFLAGS:-} -ffile-prefix-map=$cargo_home=/cargo -ffile-prefix-map=$target_path=/target"
fi

if ! cargo build --release --locked --package alpha "$@"; then
  if [[ -n "${ALPHA_LAYOUT:-}" ]]; then
    printf 'hint: if it was the link that failed: a layout needs LLD, rustc'"'"'s own linker on x86-64 Linux\n' >&2
  fi
  exit 1
fi

built=$target/release/alpha
[[ -n "${CARGO_BUILD_TARGET:-}" ]] && built=$target/$CARGO_BUILD_TARGET/release/alpha
mkdir -p .bun-out
# A running binary cannot be written over; a rename always works. Equal bytes keep their file.
if ! cmp -s "$built" .bun-out/alpha; then
  cp "$built" ".bun-out/alpha.$$"
  mv -f ".bun-out/alpha.$$" .bun-out/alpha
fi
