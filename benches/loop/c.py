#!/usr/bin/env python3
"""Measures the loop on the trainer of `examples/c`: turns by printed lines, by the header, and without turns.

    benches/loop/c.py direct [--count=15]                         the true effects, by whole runs one after the other
    benches/loop/c.py gain [--kind=lines] [--count=12]            a removed copy of some 5 %, and one of some 2 %: found, how large?
    benches/loop/c.py identical [--kind=lines|header|whole] [--count=12]    the same code on both sides

Appends rows to perf/loop-c.jsonl and goes on where it stopped. Nothing else should run on the machine meanwhile. Needs
`scripts/build.sh` first, with the sources of HEAD.
"""
import argparse
import collections
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import scratch
from scratch import ROOT, Results, forget, git, loop

EXAMPLE = ROOT / "examples/c"
FILES = ["train.c", "Makefile", "text.txt", "loop.toml"]
# The place of the copies that a gain removes.
PLACE = "    memset(&grads, 0, sizeof grads);\n"
COPIES = "    {{ static Weights spare; for (int i = 0; i < {0}; i++) {{ memcpy(&spare, &weights, sizeof spare); __asm__ volatile(\"\" : : \"r\"(&spare) : \"memory\"); }} }}\n"
EFFECTS = {"some 5 %": 90, "some 2 %": 42}
# Longest comparison.
BUDGET = "--budget=90s"

# Five calls.
HEADER = [
    ("#include <math.h>", '#include "alpha_turns.h"\n#include <math.h>'),
    ("    for (unsigned long step = 1; step <= steps; step++) {\n        double begun",
     '    alpha_turns turns;\n    FILE *metrics = fopen("metrics.jsonl", "w");\n    unsigned long long hash = 0;\n    alpha_turns_open(&turns);\n'
     "    for (unsigned long step = 1; step <= steps; step++) {\n        alpha_turns_before_step(&turns, NULL, NULL);\n        double begun"),
    ("        double loss = forward();", "        hash = alpha_turns_hash(hash, contexts, sizeof contexts);\n        double loss = forward();"),
    ("        printf(\"step", "        alpha_turns_row(metrics, step, loss, norm, hash);\n        alpha_turns_after_step(&turns, step == steps);\n        printf(\"step"),
]
CONFIGS = {
    "lines": [],
    "header": [('metrics = { format = "llm.c" }', 'metrics = "metrics.jsonl"'), ('sharing = "lines" ', 'sharing = "turns" ')],
    "whole": [('sharing = "lines" ', 'sharing = "whole" ')],
}


def replaced(text, edits):
    for old, new in edits:
        assert old in text, f"the example no longer has {old!r}"
        text = text.replace(old, new)
    return text


def prepare(kind, steps=None):
    """A repository with the example in it; its HEAD is the example as it is, but for the number of steps."""
    scratch.SCRATCH = Path(tempfile.gettempdir()) / f"alpha-loop-scratch-c-{kind}"
    folder = scratch.SCRATCH
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in FILES:
        shutil.copy(EXAMPLE / name, folder)
    (folder / ".gitignore").write_text("train\n")
    toml = folder / "loop.toml"
    text = replaced(toml.read_text(), CONFIGS[kind])
    toml.write_text(re.sub(r"(?m)^steps = .*", f"steps = {steps}", text) if steps else text)
    if kind == "header":
        shutil.copy(ROOT / "include/alpha_turns.h", folder)
        source = folder / "train.c"
        source.write_text(replaced(source.read_text(), HEADER))
    subprocess.run(["git", "init", "-q", folder], check=True)
    git("config", "user.name", "experiment")
    git("config", "user.email", "experiment@localhost")
    git("add", "-A")
    git("commit", "-q", "-m", "the example")
    print("self-test:", loop("selftest").get("passed"))
    return git("rev-parse", "HEAD")


def with_copies(count):
    return replaced((EXAMPLE / "train.c").read_text(), [(PLACE, PLACE + COPIES.format(count))])


def direct(results, count):
    """Whole runs of all variants in turn."""
    folder = Path(tempfile.mkdtemp(prefix="alpha-direct-"))
    shutil.copy(EXAMPLE / "text.txt", folder)
    variants = {"none": 0, **EFFECTS}
    for index, copies in enumerate(variants.values()):
        (folder / "train.c").write_text(with_copies(copies))
        subprocess.run(["cc", "-O2", "-o", folder / f"train{index}", folder / "train.c", "-lm"], check=True)
    for number in range(len(results.rows(experiment="direct")), count):
        order = list(range(len(variants)))
        order = order[number % len(order):] + order[:number % len(order)]
        seconds = {}
        for index in order:
            began = time.monotonic()
            subprocess.run([folder / f"train{index}", "--steps=1500"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
            seconds[list(variants)[index]] = round(time.monotonic() - began, 4)
        results.append(experiment="direct", number=number, seconds=seconds)
    shutil.rmtree(folder)
    rows = [row["seconds"] for row in results.rows(experiment="direct")]
    for name in EFFECTS:
        gains = sorted(100 * (row[name] / row["none"] - 1) for row in rows)
        print(f"{name}: median {statistics.median(gains):+.2f} %, quartiles {gains[len(gains) // 4]:+.2f} to {gains[3 * len(gains) // 4]:+.2f}")


def gain(results, kind, count):
    prepare(kind)
    for name, copies in EFFECTS.items():
        source = scratch.SCRATCH / "train.c"
        # Removing copies is a gain beside a HEAD that has them.
        source.write_text(with_copies(copies))
        git("checkout", "-q", "--orphan", f"copies-{copies}")
        git("add", "-A")
        git("commit", "-q", "-m", name)
        for number in range(count):
            if results.rows(experiment="gain", kind=kind, name=name, number=number):
                continue
            forget()
            git("checkout", "-q", "--force", "HEAD")
            loop("start", "a copy is not needed", "--parity=t0")
            shutil.copy(EXAMPLE / "train.c", source)
            append(results, loop("compare", BUDGET), experiment="gain", kind=kind, name=name, number=number)
    for name in EFFECTS:
        rows = results.rows(experiment="gain", kind=kind, name=name)
        print(f"{name}:", dict(collections.Counter(row["verdict"] for row in rows)),
              [round(row["speedup_pct"], 2) for row in rows if row["speedup_pct"] is not None])


def identical(results, kind, count):
    prepare(kind, steps=500)
    for number in range(count):
        if not results.rows(experiment="identical", kind=kind, number=number):
            forget()
            append(results, loop("compare", "--identical", BUDGET), experiment="identical", kind=kind, number=number)
    rows = results.rows(experiment="identical", kind=kind)
    print(f"{kind}:", dict(collections.Counter(row["verdict"] for row in rows)),
          "sd of a pair", [row["pair_sd_pct"] and round(row["pair_sd_pct"], 2) for row in rows])


def append(results, found, **key):
    results.append(**key, verdict=found.get("verdict"), exit_code=found["exit_code"], reason=found.get("reason") or found.get("error"),
                   speedup_pct=found.get("speedup_pct"), pairs=found.get("pairs"), pair_sd_pct=found.get("pair_sd_pct"),
                   wall_s=found["wall_s"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=["direct", "gain", "identical"])
    parser.add_argument("--kind", choices=list(CONFIGS), default="lines")
    parser.add_argument("--count", type=int, default=12)
    arguments = parser.parse_args()
    results = Results("c")
    if arguments.experiment == "direct":
        direct(results, arguments.count)
    else:
        {"gain": gain, "identical": identical}[arguments.experiment](results, arguments.kind, arguments.count)


if __name__ == "__main__":
    main()
