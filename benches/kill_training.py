#!/usr/bin/env python3
"""Kills training by SIGKILL at random moments, resumes it, and compares its end with that of a run that nobody touched.

    benches/kill_training.py [--backend=cpu] [--count=200]

A trial starts a run of STEPS steps that saves every few of them, kills it after a random time (while it starts, trains,
evaluates, saves, resumes), now and then kills what resumes it too, and resumes to the end. Asked: the weights and both
moments have the bits of the untouched run, and `metrics.jsonl` has every step once. Appends rows to
perf/kill-training.jsonl and goes on where it stopped. Needs `scripts/build.sh` first.
"""
import argparse
import json
import os
import platform
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ALPHA = ROOT / ".bun-out/alpha"
ROWS = ROOT / "perf/kill-training.jsonl"
STEPS = 60
FLAGS = [f"--data={ROOT / 'data/abc-small.txt'}", "--tokenizer=char", "--layers=2", "--dim=32", "--heads=2", "--block=32", "--batch=4",
         f"--steps={STEPS}", "--evalInterval=5", "--evalIters=1", "--accumSteps=2", "--dropout=0.1", "--keepCheckpoints=2",
         "--sampleInterval=7", "--logEvery=100"]


def command(backend, run, *more):
    return [str(ALPHA), "train", f"--backend={backend}", f"--runDir={run}", *more]


def tensors(path):
    """Names and bytes of a safetensors file."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + length])
    body = data[8 + length:]
    return {name: body[info["data_offsets"][0]:info["data_offsets"][1]] for name, info in header.items() if name != "__metadata__"}


def end_of(run):
    last = run / f"checkpoint-{STEPS}"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    keys = ["step", "loss", "valLoss", "gradNorm", "data_hash"]
    return {name: tensors(last / name) for name in ["model.safetensors", "training_state.safetensors"]}, \
        [[row.get(key) for key in keys] for row in rows]


def killed_after(arguments, seconds, environment):
    """Runs a command and kills it after so many seconds; whether it was still there."""
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
    try:
        _, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return True
    if process.returncode != 0:
        sys.exit(f"error: a run failed by itself: {errors.decode()}")
    return False


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="cpu")
    parser.add_argument("--count", type=int, default=200)
    arguments = parser.parse_args()
    if not ALPHA.exists():
        sys.exit("error: `.bun-out/alpha` is not there\n\nhint: `scripts/build.sh`")
    rows = [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []
    done = sum(row["backend"] == arguments.backend for row in rows)
    folder = Path(tempfile.mkdtemp())
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "NODEVICE_SELECT": "1"}
    whole = folder / "whole"
    start = time.monotonic()
    subprocess.run(command(arguments.backend, whole, *FLAGS), check=True, env=environment, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)
    # Once more: now tokenizer, tokens and kernels come from the cache.
    start = time.monotonic()
    subprocess.run(command(arguments.backend, whole, *FLAGS), check=True, env=environment, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)
    whole_s = time.monotonic() - start
    expected = end_of(whole)
    for number in range(done, arguments.count):
        draw = random.Random(f"{arguments.backend} {number}")
        run = folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        kills = 0
        moment = draw.uniform(0, whole_s)
        kills += killed_after(command(arguments.backend, run, *FLAGS), moment, environment)
        while draw.random() < 0.3:
            kills += killed_after(command(arguments.backend, run, "--resume=auto", *FLAGS), draw.uniform(0, whole_s), environment)
        resumed = subprocess.run(command(arguments.backend, run, "--resume=auto", *FLAGS), env=environment, capture_output=True, text=True)
        fault = None
        if resumed.returncode != 0:
            fault = f"resume ends with {resumed.returncode}: {resumed.stderr[-300:]}"
        elif end_of(run) != expected:
            fault = "the end is another"
        elif left := [path.name for path in run.iterdir() if path.name.startswith(".tmp-")]:
            fault = f"left behind: {left}"
        row = {"backend": arguments.backend, "number": number, "moment_s": round(moment, 3), "of_s": round(whole_s, 3), "kills": kills,
               "fault": fault, "processor": f"{platform.processor() or platform.machine()}, {os.cpu_count()} processors"}
        with ROWS.open("a") as out:
            out.write(json.dumps(row) + "\n")
        rows.append(row)
        if fault:
            print(row, flush=True)
    shutil.rmtree(folder)
    of_backend = [row for row in rows if row["backend"] == arguments.backend]
    faults = sum(row["fault"] is not None for row in of_backend)
    print(f"{arguments.backend}: {len(of_backend)} trials, {sum(row['kills'] for row in of_backend)} kills, {faults} faults")


if __name__ == "__main__":
    main()
