#!/usr/bin/env bash
# The built binary as a user meets it: trains, resumes, samples, reads its checkpoint back. scripts/build.sh first.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

alpha=$PWD/.bun-out/alpha
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export XDG_CACHE_HOME=$work/cache

say() { printf '[e2e] %s\n' "$*"; }

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# expect_code CODE COMMAND...
expect_code() {
  local expected=$1 code=0
  shift
  "$@" >"$work/out" 2>&1 || code=$?
  [[ $code == "$expected" ]] || { cat "$work/out" >&2; fail "found exit code $code, expected $expected: $*"; }
}

say 'the binary tells no path of this machine'
for path in "$PWD" "$HOME" "${CARGO_HOME:-$HOME/.cargo}" "$(rustc --print sysroot)"; do
  # `/` alone, or a path as short as that, says nothing.
  if ((${#path} > 4)) && grep -qaF -- "$path/" "$alpha"; then fail "the binary contains \`$path\`"; fi
done

say 'the five-step command'
five=("$alpha" train --data=data/abc-small.txt --steps=5 --batch=2 --block=64 --layers=2 --dim=128 --heads=4
  --accumSteps=1 --evalInterval=5 --evalIters=1 --sampleInterval=0 --postSamples=false --remote=false --trace=true)
expect_code 3 env VK_DRIVER_FILES=/nowhere VK_ICD_FILENAMES=/nowhere "${five[@]}" --backend=helios --runDir="$work/none"
expect_code 0 "${five[@]}" --backend=helios --runDir="$work/helios"
grep -q '^backend: helios on ' "$work/out" || fail 'the device is not named'
expect_code 0 "${five[@]}" --backend=cpu --runDir="$work/five"
python3 - "$work/helios" "$work/five" <<'PY'
import json, sys
helios, cpu = ([json.loads(row)["loss"] for row in open(folder + "/metrics.jsonl")] for folder in sys.argv[1:])
assert len(helios) == 5 and all(abs(a - b) < 1e-4 for a, b in zip(helios, cpu)), f"{helios} {cpu}"
PY
[[ $(grep -c '^step ' "$work/out") == 5 && $(grep -c '^  \[trace\] ' "$work/out") == 5 ]] || fail 'not five step and trace lines'
python3 -c 'import json, sys; [json.load(open(path)) for path in sys.argv[1:]]' "$work"/{five,helios}/{trace,kernels,config}.json

say '60 steps on characters'
train=("$alpha" train --data=data/abc-small.txt --tokenizer=char --backend=cpu --threads=2 --steps=60 --batch=8 --block=64
  --layers=2 --dim=64 --heads=4 --dropout=0.1 --lr=3e-3 --warmupIters=5 --evalInterval=30 --evalIters=4 --sampleInterval=0
  --postSamples=false --logEvery=20)
"${train[@]}" --runDir="$work/whole"

say 'resumed at step 30, as if killed at step 60'
cp -r "$work/whole" "$work/resumed"
rm -rf "$work/resumed/checkpoint-60"
"${train[@]}" --runDir="$work/resumed" --resume=auto
python3 - "$work/whole" "$work/resumed" <<'PY'
import json, sys

MAX_LOSS = 2.8  # a uniform guess over the characters is at 4.2
KEYS = ["step", "loss", "valLoss", "lr", "gradNorm", "clip_coef"]

def rows(folder):
    return [{key: row.get(key) for key in KEYS} for row in map(json.loads, open(folder + "/metrics.jsonl"))]

whole, resumed = rows(sys.argv[1]), rows(sys.argv[2])
assert [row["step"] for row in whole] == list(range(1, 61)), "not each step once"
for a, b in zip(whole, resumed, strict=True):
    assert a == b, f"resuming changed step {a['step']}:\n{a}\n{b}"
assert whole[-1]["valLoss"] < MAX_LOSS, f"val loss {whole[-1]['valLoss']} after 60 steps, expected below {MAX_LOSS}"
print(f"[e2e] val loss {whole[-1]['valLoss']}, the same bits in both")
PY
for name in model.safetensors tokenizer.json config.json; do
  cmp "$work/whole/checkpoint-60/$name" "$work/resumed/checkpoint-60/$name"
done

say 'a finished run says so'
expect_code 0 "${train[@]}" --runDir="$work/whole" --resume=auto

say 'sample'
sample=("$alpha" sample --checkpoint="$work/whole/checkpoint-60" --prompt=X: --steps=40 --seed=1)
"${sample[@]}" >"$work/first"
"${sample[@]}" >"$work/second"
[[ $(wc -c <"$work/first") -gt 20 ]] || fail 'the sample is too short'
cmp "$work/first" "$work/second"

say 'eval reads the checkpoint back'
"$alpha" eval --checkpoint="$work/whole/checkpoint-60" --data=data/abc-small.txt --split=val --backend=cpu --json \
  | tee "$work/eval"
python3 - "$work/eval" "$work/whole/metrics.jsonl" <<'PY'
import json, sys

found = json.load(open(sys.argv[1]))["loss"]
# The run's own figure is of a few batches of the same split.
val_loss = json.loads(open(sys.argv[2]).readlines()[-1])["valLoss"]
assert abs(found - val_loss) < 0.15 * val_loss, f"eval says {found}, the run {val_loss}"
PY
say 'done'
