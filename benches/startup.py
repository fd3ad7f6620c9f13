#!/usr/bin/env python3
"""Time from the start of the process to its first step line, on W1's shape and the tracked data, warm and cold.

    scripts/build.sh && benches/startup.py [--runs=10]

Warm: tokenizer and tokens are in the user's cache, the files in the page cache. Cold: an empty cache folder, and the
pages of the binary and of the data dropped before each run. Prints the median and the range of the runs.
"""
import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ALPHA = ROOT / ".bun-out" / "alpha"
DATA = ROOT / "data" / "abc-small.txt"


def drop_pages(path):
    """Takes a file out of the page cache (as far as nobody has it mapped)."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def time_to_first_step_ms(folder, cache):
    command = [
        ALPHA, "train", f"--data={DATA}", "--backend=cpu", "--threads=2", "--layers=2", "--dim=128", "--heads=4",
        "--block=64", "--batch=2", "--bias=false", "--steps=1", "--evalInterval=100", "--sampleInterval=0",
        "--postSamples=false", f"--runDir={folder}/run",
    ]  # fmt: skip
    with open(Path(folder) / "stderr", "w+") as err:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, env=os.environ | {"XDG_CACHE_HOME": str(cache)})
        line = process.stdout.readline()
        elapsed_ms = (time.perf_counter() - start) * 1000
        process.stdout.read()
        if process.wait() != 0 or not line.startswith(b"step 1/"):
            err.seek(0)
            sys.exit(f"error: the run failed with exit code {process.returncode}, first line {line!r}\n{err.read()}")
    return elapsed_ms


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    runs = parser.parse_args().runs
    if not ALPHA.is_file():
        sys.exit("error: `.bun-out/alpha` is not there\n\nhint: scripts/build.sh")
    with tempfile.TemporaryDirectory(prefix="alpha-startup-") as top:
        for kind in ["cold", "warm"]:
            times = []
            for run in range(runs + 1):
                folder = Path(top) / f"{kind}-{run}"
                folder.mkdir()
                if kind == "cold":
                    drop_pages(ALPHA)
                    drop_pages(DATA)
                elapsed_ms = time_to_first_step_ms(folder, folder / "cache" if kind == "cold" else Path(top) / "cache")
                # The first run fills the caches.
                if run > 0:
                    times.append(elapsed_ms)
            print(f"{kind}: median {statistics.median(times):.0f} ms of {runs} runs ({min(times):.0f}–{max(times):.0f})")


if __name__ == "__main__":
    main()
