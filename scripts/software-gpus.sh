#!/usr/bin/env bash
# Runs the tests of helios on software drivers beside the one that `scripts/test.sh` installs.
#
#   scripts/software-gpus.sh [swiftshader] [mesa]     default: both
#
# swiftshader: no f16, subgroups of 4, 10 buffers a kernel, 256 invocations a workgroup. From Debian's chromium-common.
# mesa:        lavapipe of Debian sid, in a chroot, which has cooperative matrices of 8 x 8; and spirv-val of there over
#              every shader, those for 16 x 16 matrices included, which no software device runs.
#
# Needs Debian or a system like it, and root for the chroot. Downloads 60 and 250 MB once, into target/software-gpus.
# A failure of one driver does not keep the other from running; the exit code is 1 if any failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

drivers=("$@")
[[ $# -gt 0 ]] || drivers=(swiftshader mesa)
for driver in "${drivers[@]}"; do
  if [[ ! $driver =~ ^(swiftshader|mesa)$ ]]; then
    printf 'error: found `%s`, expected `swiftshader` or `mesa`\n\nhint: scripts/software-gpus.sh swiftshader\n' \
      "$driver" >&2
    exit 2
  fi
done

folder=$PWD/target/software-gpus
mkdir -p "$folder"
sudo=
[[ $(id -u) == 0 ]] || sudo=sudo
export NODEVICE_SELECT=1

say() { printf '\n== %s\n' "$*"; }

# The tests' programs: the crate's own, the backend's, and every operation on every backend.
say 'building the tests'
tests=$(cargo test --no-run --locked -p helios -p alpha-tensor --lib --test backend --test ops --message-format=json |
  python3 -c '
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    name = message.get("target", {}).get("name")
    if message.get("executable") and name in ("helios", "backend", "ops"):
        print(name, message["executable"])
')

# The tests that use a device, of each program; of all operations those on helios run beside the others.
run_tests() { # COMMAND..., before the program's path
  local name program code=0
  while read -r name program; do
    say "$driver: $name"
    # One test reads the sources, which the chroot does not have.
    "$@" "$program" --test-threads=2 --show-output --skip every_source_is_listed | tee "$folder/log" || code=1
    # Where there is no device, tests pass and say so.
    if grep 'SKIPPED helios' "$folder/log"; then code=1; fi
  done <<<"$tests"
  return $code
}

swiftshader() {
  if [[ ! -e $folder/swiftshader/usr ]]; then
    mkdir -p "$folder/swiftshader"
    (cd "$folder/swiftshader" && apt-get download chromium-common && dpkg -x chromium-common_*.deb . &&
      rm chromium-common_*.deb)
  fi
  local icd
  icd=$(find "$folder/swiftshader" -name vk_swiftshader_icd.json | head -n 1)
  run_tests env VK_DRIVER_FILES="$icd"
}

mesa() {
  local root=$folder/mesa code=0
  if [[ ! -e $root/usr/bin/spirv-val ]]; then
    command -v debootstrap >/dev/null || $sudo apt-get install -qy debootstrap
    $sudo rm -rf "$root"
    $sudo debootstrap --variant=minbase --include=libvulkan1,mesa-vulkan-drivers,spirv-tools sid "$root"
  fi
  $sudo rm -rf "$root/tests" && $sudo mkdir -p "$root/tests/spirv"
  local name program inside=
  while read -r name program; do
    $sudo cp "$program" "$root/tests/$name"
    inside+="$name /tests/$name"$'\n'
  done <<<"$tests"
  tests=${inside%$'\n'} run_tests $sudo chroot "$root" env -C /tests VK_DRIVER_FILES=/usr/share/vulkan/icd.d/lvp_icd.json \
    HELIOS_SPIRV_DIR=/tests/spirv || code=1
  say 'mesa: spirv-val'
  # Of the SPIR-V itself, without Vulkan's rules: naga gives arrays in workgroup memory a stride, which drivers pass over.
  $sudo chroot "$root" sh -c 'n=0; bad=0; for f in /tests/spirv/*.spv; do n=$((n + 1))
    spirv-val --target-env spv1.3 "$f" || { echo "$f"; bad=1; }; done; echo "$n shaders"; exit $bad' || code=1
  return $code
}

failed=()
for driver in "${drivers[@]}"; do
  "$driver" || failed+=("$driver")
done
if [[ ${#failed[@]} -gt 0 ]]; then
  printf '\nerror: failed: %s\n' "${failed[*]}" >&2
  exit 1
fi
say "passed: ${drivers[*]}"
