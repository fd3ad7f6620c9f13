#!/usr/bin/env bash
# Builds the binary if it is not fresh, runs the main job for STEPS steps (100) and records how fast it went.
#
#   scripts/run-compiled-benchmark.sh [STEPS]
#
# Environment: BACKEND DATA_PATH TOKENIZER_ARTIFACTS BATCH BLOCK LAYERS DIM HEADS LR GRAD_CLIP LOG_EVERY (the job),
# COMPILE_TIMEOUT_SEC COMPILE_RETRIES (the build), PERF_DIR (where the records go).
#
# Writes, under perf/:
#   compiled-loop-history.csv  one row appended in every case, also when the build or the run fails
#   last-benchmark.env         the same as KEY=value, safe to source
#   run-<timestamp>.log        what the build and the run said
# Status: ok · unstable (a loss or grad norm that is not finite) · smoke_fail (the backend's self-test failed, or
# the run ended well but its record is incomplete) · failed · compile_failed. Exit code 0 for ok, else 1 (2: usage).
#
# A build that fails or hangs is tried again; a run never is, however slow: picking the best of several is how
# wrong speed-ups come about. speedup_pct, against the last ok row of the same backend, device, steps, workload and
# machine, is a hint and no claim.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
unset ALPHA_TURNS ALPHA_LOOP_JUDGING # a benchmark takes no turns and is its own judge

steps=${1:-100}
if [[ $# -gt 1 || ! "$steps" =~ ^[1-9][0-9]{0,8}$ ]]; then
  printf 'error: found `%s`, expected a number of steps\n\nhint: scripts/run-compiled-benchmark.sh 100\n' "$*" >&2
  exit 2
fi
backend=${BACKEND:-auto}
data=${DATA_PATH:-data/abc-small.txt}
batch=${BATCH:-2} block=${BLOCK:-64} layers=${LAYERS:-2} dim=${DIM:-128} heads=${HEADS:-4}
lr=${LR:-3e-5} grad_clip=${GRAD_CLIP:-0} log_every=${LOG_EVERY:-25}
compile_timeout_s=${COMPILE_TIMEOUT_SEC:-1200} compile_retries=${COMPILE_RETRIES:-2}
perf=${PERF_DIR:-perf}
history=$perf/compiled-loop-history.csv
columns=timestamp,git_commit,steps,backend,compile_ms,run_ms,avg_tok_s,last_tok_s,speedup_pct,run_dir,log_file,status
columns+=,device,workload,machine,tree_state,val_loss
columns+=,verdict,speedup_lo_pct,speedup_hi_pct,pairs,base_tree,tree

say() { printf '[bench] %s\n' "$*"; }

now_ms() { local t=${EPOCHREALTIME/[.,]/}; echo $((t / 1000)); }

sha() { sha256sum | cut -c1-12; }

# A word that can stand in a CSV field and in an .env file.
slug() { tr -cs 'A-Za-z0-9._+\n-' '-' | sed 's/^-*//; s/-*$//'; }

# The hardware, as far as it makes two runs comparable: processor, usable cores, memory.
machine() {
  local model gib
  model=$(awk -F': *' '/^model name/ { print $2; exit }' /proc/cpuinfo 2>/dev/null || true)
  gib=$(awk '/^MemTotal/ { printf "%.0f", $2 / 1048576 }' /proc/meminfo 2>/dev/null || true)
  echo "${model:-$(uname -m)}_$(nproc)-cores_${gib:-unknown}-GiB" | slug
}

# The job as a short hash: data, shape, hyper-parameters. Steps and backend have columns of their own.
workload() {
  { cat -- "$data" 2>/dev/null || echo "$data"; echo "$batch $block $layers $dim $heads $lr $grad_clip"; } | sha
}

# A string value of the run's resolved configuration; $1: key.
config_value() {
  tr -d '\n' <"$run_dir/config.json" 2>/dev/null | sed -n "s/.*\"$1\" *: *\"\([^\"]*\)\".*/\1/p" | slug || true
}

# The GPU that the run's rows name; nothing where it ran on the processor.
device_name() {
  head -n 1 "$run_dir/metrics.jsonl" 2>/dev/null | sed -n 's/.*"device":"\([^"]*\)".*/\1/p' | slug || true
}

note_dead_knobs() {
  local name
  for name in $(compgen -e); do
    case $name in
      ALPHA_REMOTE_*) ;;
      SKIP_COMPILE_IF_FRESH) say "note: \`$name\` has no effect: cargo knows what is fresh" ;;
      RUN_RETRIES | RUN_CONTINUE_ON_OK | RUN_RETRY_ON_SMOKE_FAIL) say "note: \`$name\` has no effect: a run is never repeated" ;;
      BASELINE_WINDOW_OK | SMOKE_FAIL_MIN_PCT_OF_PREV | FAIL_ON_SMOKE_TEST)
        say "note: \`$name\` has no effect: see the head of this script for what a status means" ;;
      HELIOS_* | ALPHA_* | SYNC_EVERY | GC_EVERY | GPU_PROFILE | MIN_GPU_SIZE | NO_FALLBACK)
        say "note: \`$name\` has no effect: kernels are tuned by measurement, not by the environment" ;;
      ACCUM_STEPS | EVAL_INTERVAL | EVAL_ITERS | SAMPLE_INTERVAL | TRACE | OPTIM | FP16 | DTYPE)
        say "note: \`$name\` has no effect: the job fixes it; use \`alpha train\` for other jobs" ;;
    esac
  done
}

# Reads metrics.jsonl: rows, rows that are not finite, avg_tok_s, last_tok_s, val_loss of the last row.
# Steady steps are all but the first tenth (at least one step), where caches and threads warm up.
summarize_metrics() {
  awk -v steps="$steps" -v tokens="$((batch * block))" '
    function field(name) {
      if (!match($0, "\"" name "\" *: *[-+0-9.eE]+")) return ""
      value = substr($0, RSTART, RLENGTH); sub(/^[^:]*: */, "", value); return value
    }
    BEGIN { warm_up = int(steps / 10); if (warm_up < 1) warm_up = 1; if (warm_up >= steps) warm_up = 0 }
    {
      rows++
      # Whole words with a value: `null` or a list of names.
      if (/"nonfinite" *: *\[ *"/ || /"(loss|gradNorm)" *: *null/) bad++
      if (field("step") + 0 > warm_up) { steady++; ms += field("ms_per_iter") }
      last = field("tokens_per_sec"); val_loss = field("valLoss")
    }
    END { printf "%d %d %.3f %.3f %s\n", rows, bad, (ms > 0 ? steady * tokens / ms * 1000 : 0), last, val_loss }
  ' "$run_dir/metrics.jsonl" 2>/dev/null || echo "0 0 0.000 0.000"
}

# avg_tok_s of the last ok row that may be compared, empty if there is none. Columns go by the header's names.
baseline_tok_s() {
  [[ -f "$history" ]] || return 0
  awk -F, -v backend="$1" -v device="$2" -v steps="$steps" -v workload="$workload" -v machine="$machine" '
    { sub(/\r$/, "") }
    $1 == "timestamp" { for (i = 1; i <= NF; i++) at[$i] = i; next }
    at["machine"] && $at["status"] == "ok" && $at["backend"] == backend && $at["device"] == device &&
      $at["steps"] == steps && $at["workload"] == workload && $at["machine"] == machine { found = $at["avg_tok_s"] }
    END { print found }
  ' "$history"
}

# Gives the history a header with all our columns; rows stay as they are. A file of the twelve columns alone, or one
# with columns of somebody else's, keeps them.
prepare_history() {
  local header first missing column
  first=$(head -n 1 "$history" 2>/dev/null | tr -d '\r' || true)
  header=$first
  [[ "$first" == timestamp,* ]] || header=$(cut -d, -f1-12 <<<"$columns")
  missing=
  for column in ${columns//,/ }; do
    [[ ",$header," == *",$column,"* ]] || missing+=,$column
  done
  history_header=$header$missing
  [[ "$history_header" == "$first" ]] && return
  { echo "$history_header"
    if [[ "$first" == timestamp,* ]]; then tail -n +2 "$history"; elif [[ -f "$history" ]]; then cat "$history"; fi
  } >"$history.$$"
  mv -f "$history.$$" "$history"
}

# Appends one row, in the order of the header, as one write.
append_row() {
  local row= column
  prepare_history
  # A row that a crash cut short must not swallow this one.
  [[ -s "$history" && -n "$(tail -c 1 "$history")" ]] && row=$'\n'
  for column in ${history_header//,/ }; do
    row+="${record[$column]:-},"
  done
  printf '%s\n' "${row%,}" >>"$history"
}

quoted() {
  if [[ "$1" =~ ^[A-Za-z0-9_./:=@%+,-]*$ ]]; then echo "$1"; else echo "'${1//\'/\'\\\'\'}'"; fi
}

write_env() {
  local key
  {
    for key in TIMESTAMP GIT_COMMIT STEPS BACKEND COMPILE_MS RUN_MS AVG_TOK_S LAST_TOK_S SPEEDUP_PCT RUN_DIR RUN_LOG \
      HELIOS_WG_SIZE LR GRAD_CLIP STATUS DEVICE WORKLOAD MACHINE TREE_STATE VAL_LOSS \
      VERDICT SPEEDUP_LO_PCT SPEEDUP_HI_PCT PAIRS BASE_TREE TREE; do
      case $key in
        RUN_LOG) echo "$key=$(quoted "${record[log_file]}")" ;;
        HELIOS_WG_SIZE) echo "$key=" ;;
        LR) echo "$key=$(quoted "$lr")" ;;
        GRAD_CLIP) echo "$key=$(quoted "$grad_clip")" ;;
        *) echo "$key=$(quoted "${record[${key,,}]:-}")" ;;
      esac
    done
  } >"$perf/last-benchmark.env.$$"
  mv -f "$perf/last-benchmark.env.$$" "$perf/last-benchmark.env"
}

# Puts the interleaved comparison with the last accepted binary beside the row, until a verdict or for 30 s of pairs.
# What it says is a claim only through `alpha loop commit`. Where that binary is not built, nothing is: a build of
# minutes is the user's to ask for.
compare_in_turns() {
  [[ -f loop.toml && "$perf" == perf ]] || return 0
  local status accepted report code=0 key column
  status=$(./.bun-out/alpha loop status --json) || { say "no comparison: $(json_value error <<<"$status")"; return 0; }
  accepted=$(json_part accepted <<<"$status" | json_value commit)
  if [[ -z "$accepted" ]]; then
    say "no comparison: no commit came through the gate yet"
    return 0
  elif [[ "$status" != *'"built":true'* ]]; then
    say "no comparison: the last accepted commit is not built here; it is after" \
      "\`alpha loop compare --baseline=${accepted:0:12}\`"
    return 0
  fi
  report=$(./.bun-out/alpha loop compare --baseline="$accepted" --budget=30s --json) || code=$?
  report=$(tail -n 1 <<<"$report")
  local found=${report%%'"guards":'*} # guards have fields of the same names
  for column in verdict:verdict speedup_lo_pct:ci_low_pct speedup_hi_pct:ci_high_pct pairs:pairs; do
    key=${column#*:}
    record[${column%:*}]=$(json_value "$key" <<<"$found")
  done
  record[base_tree]=$(json_part baseline <<<"$report" | json_value tree)
  record[tree]=$(json_part candidate <<<"$report" | json_value tree)
  case ${record[verdict]} in
    '') say "no comparison: $(json_value error <<<"$report")" ;;
    *) say "in turns with ${accepted:0:12}: ${record[verdict]} (exit code $code)" ;;
  esac
}

# A value of a flat JSON object on one line; empty if it is null or not there.
json_value() {
  sed -nE "s/.*\"$1\":(\"([^\"]*)\"|[-+0-9.eE]+).*/\1/p" | tr -d '"'
}

# An object inside one.
json_part() {
  sed -nE "s/.*\"$1\":(\{[^{}]*\}).*/\1/p"
}

# The row in the ledger.
record_row() {
  [[ -f loop.toml && "$perf" == perf ]] || return 0
  { head -n 1 "$history"; tail -n 1 "$history"; } | ./.bun-out/alpha loop record-benchmark | tee -a "$log" ||
    say "the row could not be written to the ledger"
}

finish() {
  record[status]=$1
  append_row
  write_env
  [[ "$1" == compile_failed ]] || record_row
  say "status=$1 backend=${record[backend]} steps=$steps run=${record[run_ms]}ms" \
    "avg=${record[avg_tok_s]} tok/s last=${record[last_tok_s]} tok/s" \
    "${record[speedup_pct]:+against the last comparable run: ${record[speedup_pct]}% (one run: a hint)}"
  say "row in $history, log in $log"
  [[ "$1" == ok ]] && exit 0
  exit 1
}

# A signal ends the build at once; a run gets its own from the terminal and saves first. Either way there is a row.
interrupted='' build_pid=''
trap 'interrupted=1; [[ -n "$build_pid" ]] && kill "$build_pid" 2>/dev/null' INT TERM

mkdir -p "$perf" runs
# The log's name is unique and so is everything named after it.
while timestamp=$(date -u +%Y%m%dT%H%M%SZ); log=$perf/run-$timestamp.log; ! (set -o noclobber; : >"$log") 2>/dev/null; do
  [[ -e "$log" ]] || { printf 'error: cannot write `%s`\n' "$log" >&2; exit 1; }
  sleep 0.2
done
run_dir=runs/compiled-binary-$(slug <<<"$backend")-$timestamp
workload=$(workload) machine=$(machine)
declare -A record=(
  [timestamp]=$timestamp [git_commit]=$(git rev-parse --short HEAD 2>/dev/null || echo none)
  [steps]=$steps [backend]=$(slug <<<"$backend") [compile_ms]=0 [run_ms]=0 [avg_tok_s]=0.000 [last_tok_s]=0.000
  [run_dir]=$run_dir [log_file]=$log [device]='' [workload]=$workload [machine]=$machine
)
record[git_commit]=$(tail -n 1 <<<"${record[git_commit]}")
# Records of measurements are not part of what is measured.
if [[ -z "$(git status --porcelain -- . ':!perf' 2>/dev/null || echo unknown)" ]]; then
  record[tree_state]=clean
else
  record[tree_state]=dirty
fi
note_dead_knobs

say "build (log: $log)"
started=$(now_ms) built=
for ((attempt = 1; attempt <= compile_retries + 1; attempt++)); do
  code=0
  # `timeout` leads a process group of its own: what hangs is ended with all its children.
  timeout --kill-after=10 "$compile_timeout_s" scripts/build.sh >>"$log" 2>&1 &
  build_pid=$!
  wait "$build_pid" || code=$?
  build_pid=
  [[ $code == 0 ]] && { built=1; break; }
  reason="exit code $code"
  [[ $code == 124 || $code == 137 ]] && reason="no end within $compile_timeout_s s"
  [[ -n "$interrupted" ]] && reason=interrupted
  say "build attempt $attempt failed: $reason" | tee -a "$log"
  [[ -n "$interrupted" ]] && break
done
record[compile_ms]=$(($(now_ms) - started))
if [[ -z "$built" ]]; then
  tail -n 40 "$log" >&2
  finish compile_failed
fi
say "built in ${record[compile_ms]} ms"

command=(./.bun-out/alpha train --data="$data" --backend="$backend" --steps="$steps" --batch="$batch" --block="$block"
  --layers="$layers" --dim="$dim" --heads="$heads" --accumSteps=1 --lr="$lr" --gradClip="$grad_clip"
  --evalInterval="$steps" --evalIters=1 --sampleInterval=0 --postSamples=false --remote=false --trace=false
  --logEvery="$log_every" --runDir="$run_dir")
# The tokenizer is built by the first run and loaded by the others. Its name says which data it is of.
artifacts=${TOKENIZER_ARTIFACTS:-}
if [[ -z "$artifacts" && -f "$data" && "$data" != *.bin ]]; then
  artifacts=runs/tokenizer-$(sha <"$data").json
fi
[[ -n "$artifacts" ]] && command+=(--tokenizerArtifacts="$artifacts")

say "${command[*]}" | tee -a "$log"
started=$(now_ms) code=0
"${command[@]}" 2>&1 | tee -i -a "$log" || code=${PIPESTATUS[0]}
record[run_ms]=$(($(now_ms) - started))

read -r rows bad avg last val_loss < <(summarize_metrics)
# The device's own name; the flag of that name may be a number.
resolved=$(config_value backend) device=$(device_name)
record[backend]=${resolved:-${record[backend]}}
record[device]=${device:-${record[backend]}}
record[avg_tok_s]=$avg record[last_tok_s]=$last record[val_loss]=$val_loss

if ((bad > 0)); then
  finish unstable
elif [[ $code == 3 ]] && grep -qi 'self-test' "$log"; then
  finish smoke_fail
elif [[ $code != 0 || -n "$interrupted" ]]; then
  say "the run ended with exit code $code"
  finish failed
elif [[ $rows != "$steps" || -z "$val_loss" || $avg == 0.000 ]]; then
  say "the record is incomplete: $rows of $steps steps, val_loss=\`$val_loss\`, $avg tok/s"
  finish smoke_fail
fi
baseline=$(baseline_tok_s "${record[backend]}" "${record[device]}")
if [[ -n "$baseline" ]]; then
  record[speedup_pct]=$(awk -v now="$avg" -v then="$baseline" 'BEGIN { if (then > 0) printf "%.2f", (now / then - 1) * 100 }')
fi
compare_in_turns
finish ok
