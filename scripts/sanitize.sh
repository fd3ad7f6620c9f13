#!/usr/bin/env bash
# Runs the pool, the stages and the operations of the CPU backend under a sanitizer of the nightly toolchain.
#
#     scripts/sanitize.sh thread|address|miri
#
# `thread` looks for data races, `address` for accesses outside memory, `miri` for undefined behaviour in the parts of the
# crate that it can interpret. Devices are left out: drivers are not instrumented. Prints what it ran and ends with an error
# where something was found. Not part of the tests: each takes some minutes. Installs what it needs with rustup.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

kind=${1:-}
install() {
  rustup toolchain list | grep -q ^nightly || rustup toolchain install nightly --profile minimal
  rustup component add --toolchain nightly "$@"
}
target=$(rustc -vV | sed -n 's/^host: //p')
# No Vulkan driver, so that tests of devices have none.
export VK_DRIVER_FILES=/nonexistent VK_ICD_FILENAMES=/nonexistent
case $kind in
thread | address)
  install rust-src
  export RUSTFLAGS="-Zsanitizer=$kind" RUSTDOCFLAGS="-Zsanitizer=$kind" CARGO_TARGET_DIR=target/sanitize
  if [[ $kind == address ]]; then export ASAN_OPTIONS=detect_leaks=0; fi
  # The Vulkan loader, which is not instrumented, is loaded and unloaded by tests that ask for devices.
  suppressions=$(mktemp)
  trap 'rm -f "$suppressions"' EXIT
  echo 'called_from_lib:libvulkan.so' >"$suppressions"
  export TSAN_OPTIONS=suppressions=$suppressions
  # The standard library is built with the sanitizer too: otherwise its locks look like races.
  cargo +nightly test -Zbuild-std --target "$target" --locked -p alpha-tensor --lib
  cargo +nightly test -Zbuild-std --target "$target" --locked -p alpha-tensor --test ops -- \
    the_number_of_threads every_backend_agrees spikes_and zero_gradients
  ;;
miri)
  install rust-src miri
  # Files and clocks of the machine are asked for; vectors beyond what Miri knows fall back to plain Rust.
  export MIRIFLAGS="-Zmiri-disable-isolation" CARGO_TARGET_DIR=target/miri
  cargo +nightly miri test --locked -p alpha-tensor --lib -- pool program rng
  ;;
*)
  printf 'error: `%s` is not one of thread, address, miri\n' "$kind" >&2
  exit 2
  ;;
esac
