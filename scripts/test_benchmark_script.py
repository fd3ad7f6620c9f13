#!/usr/bin/env python3
"""Tests of run-compiled-benchmark.sh with a fake build and a fake trainer: every row, status and exit code.

Each test runs a copy of the script in an empty folder, where scripts/build.sh and .bun-out/alpha are small shell
scripts that succeed, fail or hang as told.
"""
import csv
import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent / "run-compiled-benchmark.sh"
TWELVE = "timestamp,git_commit,steps,backend,compile_ms,run_ms,avg_tok_s,last_tok_s,speedup_pct,run_dir,log_file,status"

# Writes what a trainer writes: as many rows as asked for, MS milliseconds each, and the resolved configuration.
TRAINER = r"""#!/usr/bin/env bash
for argument in "$@"; do
  case $argument in
    --runDir=*) run_dir=${argument#*=} ;;
    --steps=*) steps=${argument#*=} ;;
  esac
done
echo "$@" >>arguments.txt
mkdir -p "$run_dir"
echo '{"backend": "cpu"}' >"$run_dir/config.json"
for ((step = 1; step <= ${ROWS:-$steps}; step++)); do
  loss=5.5
  ms=${MS:-4}
  ((step == 1)) && ms=4000
  extra=
  ((step == steps)) && extra='"valLoss":5.25,'
  if [[ "$step" == "${BAD_STEP:-}" ]]; then
    loss=null extra='"nonfinite":["loss"],'
  fi
  echo "{\"step\":$step,\"loss\":$loss,$extra\"lr\":3e-5,\"gradNorm\":1.5,\"tokens_per_sec\":32000.5,\"ms_per_iter\":$ms}" \
    >>"$run_dir/metrics.jsonl"
done
echo "${SAYS:-step}"
exit "${CODE:-0}"
"""


class BenchmarkScript(unittest.TestCase):
    def setUp(self):
        self.root = Path(tempfile.mkdtemp(prefix="benchmark-"))
        self.addCleanup(shutil.rmtree, self.root)
        (self.root / "scripts").mkdir()
        shutil.copy(SCRIPT, self.root / "scripts")
        (self.root / "data").mkdir()
        (self.root / "data/abc-small.txt").write_text("X:1\nT:a\n")
        self.history = self.root / "perf/compiled-loop-history.csv"
        self.write_script("scripts/build.sh", "#!/bin/sh\nexit 0\n")
        self.write_script(".bun-out/alpha", TRAINER)

    def write_script(self, name, text):
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def bench(self, *arguments, **environment):
        # Nothing of this process's job settings may leak into the script.
        keep = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        command = [self.root / "scripts/run-compiled-benchmark.sh", *arguments]
        return subprocess.run(command, env=keep | environment, capture_output=True, text=True, cwd="/")

    def rows(self):
        with self.history.open(newline="") as file:
            return list(csv.DictReader(file))

    def env(self):
        source = "set -eu; . perf/last-benchmark.env; cat perf/last-benchmark.env"
        out = subprocess.run(["sh", "-c", source], cwd=self.root, capture_output=True, text=True, check=True).stdout
        return dict(line.split("=", 1) for line in out.splitlines())

    def test_ok(self):
        result = self.bench("20")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        [row] = self.rows()
        self.assertEqual(row["status"], "ok")
        self.assertEqual(row["steps"], "20")
        self.assertEqual(row["backend"], "cpu", "the resolved backend")
        # 2·64 tokens in 4 ms; the slow first step is warm-up.
        self.assertEqual(row["avg_tok_s"], "32000.000")
        self.assertEqual(row["last_tok_s"], "32000.500")
        self.assertEqual(row["speedup_pct"], "", "nothing to compare with")
        self.assertRegex(row["timestamp"], r"^\d{8}T\d{6}Z$")
        self.assertEqual(row["log_file"], f"perf/run-{row['timestamp']}.log")
        self.assertTrue((self.root / row["log_file"]).is_file())
        self.assertTrue((self.root / row["run_dir"]).is_dir())
        self.assertTrue(self.history.read_text().startswith(TWELVE + ","))
        env = self.env()
        wanted = "TIMESTAMP GIT_COMMIT STEPS BACKEND COMPILE_MS RUN_MS AVG_TOK_S LAST_TOK_S SPEEDUP_PCT RUN_DIR RUN_LOG"
        wanted = (wanted + " HELIOS_WG_SIZE LR GRAD_CLIP STATUS").split()
        self.assertEqual(list(env)[: len(wanted)], wanted)
        self.assertEqual((env["STATUS"], env["LR"], env["GRAD_CLIP"]), ("ok", "3e-5", "0"))
        said = (self.root / "arguments.txt").read_text()
        for flag in ["--backend=auto", "--trace=false", "--evalInterval=20", "--logEvery=25", "--tokenizerArtifacts="]:
            self.assertIn(flag, said)

    def test_speedup_only_against_comparable_rows(self):
        self.bench("20", MS="4")
        self.bench("20", MS="1", CODE="1")
        self.bench("20", MS="8", LR="1e-3")
        self.bench("30", MS="8")
        self.bench("20", MS="2")
        rows = self.rows()
        self.assertEqual([row["speedup_pct"] for row in rows], ["", "", "", "", "100.00"])
        self.assertEqual(rows[1]["status"], "failed")

    def test_build_is_tried_again(self):
        self.write_script("scripts/build.sh", "#!/bin/sh\necho try >>tries; [ $(wc -l <tries) -ge 2 ]\n")
        self.assertEqual(self.bench("2").returncode, 0)
        self.assertEqual(self.rows()[0]["status"], "ok")

    def test_hung_build_is_ended_and_tried_again(self):
        self.write_script("scripts/build.sh", "#!/bin/sh\necho try >>tries; [ $(wc -l <tries) -ge 2 ] || sleep 1000\n")
        self.assertEqual(self.bench("2", COMPILE_TIMEOUT_SEC="1").returncode, 0)
        self.assertIn("no end within 1 s", (self.root / self.rows()[0]["log_file"]).read_text())

    def test_compile_failed(self):
        self.write_script("scripts/build.sh", "#!/bin/sh\necho cannot build\nexit 101\n")
        result = self.bench("5")
        self.assertEqual(result.returncode, 1)
        [row] = self.rows()
        self.assertEqual((row["status"], row["run_ms"], row["backend"]), ("compile_failed", "0", "auto"))
        self.assertIn("cannot build", result.stderr)
        self.assertEqual(self.env()["STATUS"], "compile_failed")

    def test_failed_run_is_not_repeated(self):
        self.assertEqual(self.bench("5", CODE="1").returncode, 1)
        self.assertEqual([row["status"] for row in self.rows()], ["failed"])
        self.assertEqual(len((self.root / "arguments.txt").read_text().splitlines()), 1)

    def test_unstable(self):
        for code in ["0", "1"]:
            self.assertEqual(self.bench("5", BAD_STEP="3", CODE=code).returncode, 1)
        self.assertEqual([row["status"] for row in self.rows()], ["unstable"] * 2)

    def test_smoke_fail(self):
        self.assertEqual(self.bench("5", ROWS="3").returncode, 1)
        self.assertEqual(self.bench("5", ROWS="0", CODE="3", SAYS="error: `helios` failed its self-test").returncode, 1)
        self.assertEqual(self.bench("5", ROWS="0", CODE="3", SAYS="error: no device").returncode, 1)
        self.assertEqual([row["status"] for row in self.rows()], ["smoke_fail", "smoke_fail", "failed"])

    def test_history_of_twelve_columns(self):
        self.history.parent.mkdir()
        old = "20260228T030437Z,4c2a59e,20,cpu,16,4748,1.000,3608.554,0.11,runs/x,perf/run-x.log,ok"
        self.history.write_text(f"{TWELVE}\n{old}\n{old[:40]}")
        self.assertEqual(self.bench("20").returncode, 0)
        lines = self.history.read_text().splitlines()
        self.assertEqual(lines[1:3], [old, old[:40]], "rows stay as they were")
        row = self.rows()[-1]
        self.assertEqual((row["status"], row["speedup_pct"]), ("ok", ""), "old rows do not say their machine")

    def test_foreign_columns_stay(self):
        self.history.parent.mkdir()
        self.history.write_text(f"{TWELVE},verdict,device\n")
        self.bench("20", MS="4")
        self.bench("20", MS="2")
        self.assertTrue(self.history.read_text().startswith(f"{TWELVE},verdict,device,workload"))
        rows = self.rows()
        self.assertEqual([row["speedup_pct"] for row in rows], ["", "100.00"])
        self.assertEqual((rows[0]["verdict"], rows[0]["device"]), ("", "cpu"))

    def test_one_step(self):
        self.assertEqual(self.bench("1").returncode, 0)
        self.assertEqual(self.rows()[0]["avg_tok_s"], "32.000")

    def test_knobs_without_effect_are_said(self):
        out = self.bench("2", HELIOS_WG_SIZE="128", RUN_RETRIES="4", SYNC_EVERY="1").stdout
        for name in ["HELIOS_WG_SIZE", "RUN_RETRIES", "SYNC_EVERY"]:
            self.assertIn(f"`{name}` has no effect", out)

    def test_awkward_values_are_safe_to_source(self):
        self.bench("2", LR="$(touch owned) it's", BACKEND="cp,u")
        self.assertFalse((self.root / "owned").exists())
        self.assertEqual(self.env()["STATUS"], "ok")
        self.assertFalse((self.root / "owned").exists())
        self.assertEqual(self.rows()[0]["status"], "ok")

    def test_usage(self):
        for arguments in [("0",), ("-5",), ("many",), ("5", "6")]:
            result = self.bench(*arguments)
            self.assertEqual(result.returncode, 2)
            self.assertIn("hint:", result.stderr)
        self.assertFalse(self.history.exists())


if __name__ == "__main__":
    unittest.main()
