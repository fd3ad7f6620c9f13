#!/usr/bin/env python3
"""What `--trace` costs a step of W1: runs with and without it in turns, the ratio of their medians with its spread.

    scripts/build.sh && benches/trace_cost.py [--rounds=40]

In each pair the order is drawn anew. A run's figure is the median ms_per_iter of its steps after the first fifty.
"""
import argparse
import json
import random
import statistics
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def ms_per_step(folder, trace):
    command = [
        ROOT / ".bun-out" / "alpha", "train", f"--data={ROOT}/data/abc-small.txt", "--backend=cpu", "--threads=2",
        "--layers=2", "--dim=128", "--heads=4", "--block=64", "--batch=2", "--bias=false", "--steps=150",
        "--evalInterval=0", "--sampleInterval=0", "--postSamples=false", "--logEvery=150", f"--trace={trace}",
        f"--runDir={folder}/run",
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    rows = [json.loads(line) for line in open(Path(folder) / "run" / "metrics.jsonl")]
    return statistics.median(row["ms_per_iter"] for row in rows[50:])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args().rounds
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            found = {}
            for trace in random.sample(["true", "false"], 2):
                found[trace] = ms_per_step(folder, trace)
            ratios.append(found["true"] / found["false"])
            print(f"traced {found['true']:.3f} ms, not {found['false']:.3f} ms: {ratios[-1]:.4f}", flush=True)
    quartiles = statistics.quantiles(ratios, n=4)
    print(f"a traced step takes {statistics.median(ratios):.4f} of an untraced one (quartiles {quartiles[0]:.4f} to {quartiles[2]:.4f})")


if __name__ == "__main__":
    main()
