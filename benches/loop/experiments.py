#!/usr/bin/env python3
"""Measures the loop itself, on this repository's trainer in a scratch clone.

    benches/loop/experiments.py NAME [--count=N]

    identical   100 short comparisons of the trainer with itself, every second one under bursts of other load
    power       how often known effects are found
    bias        known effects: what the loop says beside what the trainer's own clock says in a run alone
    walls       what the walls around trainers cost a comparison, and what they do to its noise
    noise       a pair in turns beside a pair one after the other
    broken      broken trainers and samplers, refused by what? and harmless changes
    cycle       from a saved edit to landed or refused, everything in
    large       how often +3 % is found on steps of half a second and more
    smoke       false alarms of the 5-step test on programs of equal speed
    claims      the claims of this repository's history, measured again under the present rules, with layouts shuffled

Each appends rows to perf/loop-NAME.jsonl, goes on where it stopped, and prints what all rows say. Nothing else should run
on the machine meanwhile. Needs `scripts/build.sh` first, with the sources of HEAD.
"""
import argparse
import collections
import json
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import faults
from scratch import (ALPHA, ROOT, SCRATCH, STEP_START, STEPS, W1, W1_SHAPE, Results, forget, git, loop, prepare, rooted, spin, stand, step_us,
                     variant)

FOUND = ["verdict", "exit_code", "reason", "speedup_pct", "ci_low_pct", "ci_high_pct", "pairs", "pair_sd_pct", "seconds", "own_seconds",
         "wall_s", "error"]


def picked(found):
    row = {key: found[key] for key in FOUND if key in found}
    row |= {"reason": row["reason"][:300]} if row.get("reason") else {}
    broken = [guard for guard in found.get("guards", []) if not guard["holds"]]
    return row | ({"guards": broken} if broken else {})


BURST = """
import random, time
while True:
    time.sleep(random.uniform(1, 4))
    until = time.monotonic() + random.uniform(0.3, 2)
    while time.monotonic() < until:
        pass
"""


IDENTICAL_STEPS = 60


def identical(count):
    results = Results("identical")
    head = prepare()
    # Short runs, so that the budget reaches to the end of a plan of twenty pairs.
    short = variant(head, [("loop.toml", "steps = 200\ntokens", f"steps = {IDENTICAL_STEPS}\ntokens")], "short runs")
    stand(short, short)
    for number in range(len(results.rows(steps=IDENTICAL_STEPS)), count or 100):
        burst = subprocess.Popen([sys.executable, "-c", BURST]) if number % 2 else None
        try:
            found = loop("compare", "--identical", "--budget=20s")
        finally:
            if burst:
                burst.kill()
                burst.wait()
        results.append(number=number, steps=IDENTICAL_STEPS, burst=burst is not None, parity=(found.get("parity") or {}).get("passed"), **picked(found))
    for has_burst in [False, True]:
        rows = results.rows(burst=has_burst, steps=IDENTICAL_STEPS)
        pairs = sum(row.get("pairs") or 0 for row in rows)
        print("bursts of other load:" if has_burst else "quiet:", dict(collections.Counter(row.get("verdict", "error") for row in rows)),
              f"of {len(rows)}, {pairs} pairs, parity refused in {sum(row['parity'] is False for row in rows)}")


# Effect, share of a step that the candidate saves, comparisons, budget, smallest gain that counts.
POWER = [("+10 %", 0.10, 5, "120s", "0.5%"), ("+3 %", 0.03, 20, "120s", "0.5%"), ("+1 %", 0.01, 20, "180s", "0.5%"),
         ("+0.5 %", 0.005, 10, "300s", "0.2%")]


def power(count):
    results = Results("power")
    head = prepare()
    for name, share, times, budget, epsilon in POWER:
        times = count or times
        if len(results.rows(effect=name)) < times:
            slow = variant(head, spin_from(share * step_us()), f"slower by {name}")
            for number in range(len(results.rows(effect=name)), times):
                stand(slow, head)
                forget()
                found = loop("compare", f"--budget={budget}", f"--epsilon={epsilon}")
                results.append(effect=name, number=number, **picked(found))
    for name, _, _, budget, _ in POWER:
        rows = results.rows(effect=name)
        if rows:
            hits = sum(row.get("verdict") == "FASTER" for row in rows)
            print(f"{name}: FASTER in {hits} of {len(rows)} within {budget}, estimates {quartiles(row.get('speedup_pct') for row in rows)} %,"
                  f" {quartiles(row.get('pairs') for row in rows)} pairs, {quartiles(row.get('wall_s') for row in rows)} s")


def quartiles(values):
    values = sorted(value for value in values if value is not None)
    if len(values) < 2:
        return str(values)
    low, mid, high = statistics.quantiles(values, method="inclusive")
    return f"{mid:.2f} ({low:.2f}..{high:.2f})"


def spin_from(micros):
    return spin(micros) if micros >= 1 else []


# Reads `mib` of memory, one number of every cache line, in every step.
STREAM = """        let swept: u64 = SWEPT.iter().step_by(8).sum();
        std::hint::black_box(swept);
"""
STREAM_OF = "static SWEPT: std::sync::LazyLock<Vec<u64>> = std::sync::LazyLock::new(|| (0..{mib} << 17).collect());\n\nimpl Training<'_> {{"


def stream(mib):
    return [(STEPS, "impl Training<'_> {", STREAM_OF.format(mib=mib)), (STEPS, STEP_START, STEP_START + STREAM)]


def every_second_stretch(edits):
    """The same edits, at work in every second stretch of 32 steps only."""
    *rest, (path, old, new) = edits
    extra = new.removeprefix(old)
    return [*rest, (path, old, f"{old}        if (step / 32) % 2 == 1 {{\n{extra}        }}\n")]


def alone_us(head, edits):
    """What an effect costs a step, in one run alone: stretches of steps with it against those beside them. And a step."""
    commit = variant(head, every_second_stretch(edits), "every second stretch")
    stand(commit, commit)
    subprocess.run(["scripts/build.sh"], cwd=SCRATCH, check=True, capture_output=True)
    with tempfile.TemporaryDirectory() as folder:
        flags = f"{W1} --steps=8000 --evalInterval=0 --sampleInterval=0 --postSamples=false --logEvery=100000 --runDir={folder}/run"
        subprocess.run([SCRATCH / ".bun-out/alpha", "train", *flags.split()], cwd=SCRATCH, check=True, capture_output=True)
        rows = [json.loads(line) for line in Path(folder, "run/metrics.jsonl").read_text().splitlines()]
    stretches = collections.defaultdict(list)
    for row in rows:
        if row["step"] % 32 >= 4:  # the first steps of a stretch still have the caches of the one before
            stretches[row["step"] // 32].append(row["ms_per_iter"])
    medians = [statistics.median(stretches[number]) for number in sorted(stretches)]
    beside = [(medians[number - 1] + medians[number + 1]) / 2 for number in range(3, len(medians) - 1, 2)]
    ratios = [medians[number] / other for number, other in zip(range(3, len(medians) - 1, 2), beside)]
    step = 1000 * statistics.median(beside)
    return (statistics.median(ratios) - 1) * step, step


def loop_us(found):
    """The same, as the comparison found it, from the pairs of its record."""
    record = json.loads((SCRATCH / "perf/ledger" / f"{found['record']}.json").read_text())["body"]["attempt"]
    steps = record["plan"]["blocks"]["steps"]
    # Rows of values: d is the fourth, the time in turns the last.
    fast = statistics.median(1e6 * row[-1] / (1 + math.exp(row[3])) / steps for row in record["pairs"])
    return found["speedup_pct"] / 100 * fast, fast


# Rows without this key are from when a block was timed from its first step, whose caches the other trainer had filled.
REFRESHED = {"refreshed": True}


def bias(count):
    results = Results("bias")
    head = prepare()
    step = step_us()
    effects = [(f"work of {share:.1%}", spin_from(share * step)) for share in [0.005, 0.01, 0.03, 0.10]]
    effects += [(f"reading {mib} MiB", stream(mib)) for mib in [1, 8]]
    for name, edits in effects:
        for number in range(len(results.rows(effect=name, **REFRESHED)), count or 3):
            alone, alone_step = alone_us(head, edits)
            slow = variant(head, edits, name)
            stand(slow, head)
            forget()
            found = loop("compare", "--budget=60s")
            us, loop_step = loop_us(found) if found.get("record") else (None, None)
            results.append(effect=name, number=number, alone_us=alone, alone_step_us=alone_step, loop_us=us, loop_step_us=loop_step,
                           **REFRESHED, **picked(found))
    # Effects are work, which takes longer where the machine is slow for a minute, as the step does: so as shares of a step.
    for name, _ in effects:
        rows = [row for row in results.rows(effect=name, **REFRESHED) if row.get("loop_us") is not None]
        if rows:
            alone = statistics.median(100 * row["alone_us"] / row["alone_step_us"] for row in rows)
            found = statistics.median(row["speedup_pct"] for row in rows)
            print(f"{name}: alone {alone:.2f} % of a step, by the loop {found:.2f} %, difference {found - alone:+.2f}, of {len(rows)}")


def walls(count):
    results = Results("walls")
    head = prepare()
    stand(head, head)
    with tempfile.TemporaryDirectory() as folder:
        # Fails, as where the machine does not allow it.
        program = Path(folder, "bwrap")
        program.write_text("#!/bin/sh\nexit 1\n")
        program.chmod(0o755)
        without = os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
        for number in range(len(results.rows()), count or 10):
            row = {}
            sides = [("behind", None), ("without", without)]
            for name, environment in sides if number % 2 else sides[::-1]:
                found = loop("compare", "--identical", "--budget=30s", "--epsilon=0.01%", environment=environment)
                row |= {f"{name}_{key}": found.get(key) for key in ["pair_sd_pct", "pairs", "seconds", "own_seconds", "error"] if key in found}
            results.append(number=number, **row)
    rows = [row for row in results.rows() if row.get("behind_pairs") and row.get("without_pairs")]
    pair_s = {name: [row[f"{name}_seconds"] / row[f"{name}_pairs"] for row in rows] for name in ["behind", "without"]}
    cost = [100 * (behind / without - 1) for behind, without in zip(pair_s["behind"], pair_s["without"])]
    sd = [row["behind_pair_sd_pct"] / row["without_pair_sd_pct"] for row in rows]
    print(f"a pair takes {quartiles(pair_s['behind'])} s behind walls, {quartiles(pair_s['without'])} s without: {quartiles(cost)} % more;",
          f"its sd {quartiles(sd)} times as large; of {len(rows)}")


def noise(count):
    results = Results("noise")
    head = prepare()
    text = (SCRATCH / "loop.toml").read_text()
    sequential = variant(head, [("loop.toml", 'turn_timeout = "60s"', 'turn_timeout = "60s"\nsharing = "sequential"')], "one after the other")
    assert "sharing" not in text.split("[smoke]")[0], "loop.toml already says how the machine is shared"
    for number in range(len(results.rows()), count or 5):
        row = {}
        for name, commit in [("turns", head), ("sequential", sequential)]:
            stand(commit, commit)
            found = loop("compare", "--identical", "--budget=60s", "--epsilon=0.01%")
            row |= {f"{name}_{key}": found.get(key) for key in ["pair_sd_pct", "pairs", "seconds", "error"] if key in found}
        results.append(number=number, **row)
    rows = [row for row in results.rows() if row.get("sequential_pair_sd_pct") and row.get("turns_pair_sd_pct")]
    ratios = [row["sequential_pair_sd_pct"] / row["turns_pair_sd_pct"] for row in rows]
    print(f"sd of a pair: in turns {quartiles(row['turns_pair_sd_pct'] for row in rows)} %, one after the other",
          f"{quartiles(row['sequential_pair_sd_pct'] for row in rows)} %, ratio {quartiles(ratios)}")


# The share of a step by which a baseline is held up, so that there is something to take away.
HELD_UP_BY = 0.12


def says_something(row):
    """Sampling is looked at where there is a gain: a row of a busy minute, in which none was found, is measured again."""
    return row["kind"] != "sampler" or row.get("verdict") in ["FASTER", "REFUSED"]


def broken(_):
    results = Results("broken")
    head = prepare()
    step = step_us()
    cases = [("trainer", *case) for case in faults.TRAINERS] + [("sampler", *case) for case in faults.SAMPLERS]
    cases += [("harmless", *case) for case in faults.HARMLESS]
    for kind, name, edits in cases:
        if any(says_something(row) for row in results.rows(case=name)):
            continue
        candidate = variant(head, edits, name)
        # Sampling is looked at where there is a gain to let in: these get one.
        base = head if kind == "trainer" else variant(head, spin(HELD_UP_BY * step), "held up")
        stand(base, candidate)
        forget()
        found = loop("compare", "--budget=60s")
        parity = found.get("parity") or {}
        refusing = [check["name"] for check in parity.get("checks", []) if not check["passed"]]
        results.append(case=name, kind=kind, commit=head, parity=parity.get("passed"), refusing=refusing,
                       **picked(found))
    told = list(filter(says_something, results.rows()))
    for _, name, _ in cases:
        if name not in [row["case"] for row in told]:
            print("NOT MEASURED", name)
    for row in told:
        is_refused = row.get("verdict") == "REFUSED" and row["parity"] is False
        # A harmless change may still be slower, or lose to a guard: it is the same training.
        good = row["parity"] is True if row["kind"] == "harmless" else is_refused
        print("ok " if good else "BAD", row["kind"], row["case"], row.get("verdict"), " ".join(row["refusing"]))


# Rows without this had a faster ancestor in their history, which a claim is held against: their gains took back a slowdown.
ROOTED = {"rooted": True}

# A candidate's effect.
CYCLES = [("none", 0.0), ("-5 %", -0.05), ("+10 %", 0.10), ("+3 %", 0.03), ("+1 %", 0.01)]


def cycle(count):
    results = Results("cycle")
    head = prepare()
    step = step_us()
    base = None
    for number in range(count or 5):
        for name, effect in CYCLES:
            if results.rows(effect=name, number=number, **ROOTED):
                continue
            if not base:
                # The last accepted trainer is built, and the instrument proved, when somebody changes it.
                base = rooted(head, spin(HELD_UP_BY * step), "held up")
                stand(base, base)
                loop("selftest")
            # A number that differs each time, so that the candidate is built and nothing is found in the store.
            fresh = [(STEPS, STEP_START, f"        std::hint::black_box({random.getrandbits(32)}_u64);\n{STEP_START}")]
            candidate = variant(head, spin(((1 + HELD_UP_BY) / (1 + effect) - 1) * step) + fresh, "edit")
            forget()
            stand(base, candidate)
            loop("start", f"an effect of {name}", "--area=step")
            found = loop("run", "-m", "an experiment")
            compare = found.get("compare") or {}
            results.append(effect=name, number=number, **ROOTED, exit_code=found["exit_code"], wall_s=found["wall_s"], landed=bool(found.get("landed")),
                           verdict=compare.get("verdict"), speedup_pct=compare.get("speedup_pct"), pairs=compare.get("pairs"),
                           refusal=found.get("refusal"), seconds=found.get("seconds"), error=found.get("error"),
                           compare_seconds=compare.get("seconds"), own_seconds=compare.get("own_seconds"))
    for name, _ in CYCLES:
        rows = results.rows(effect=name, **ROOTED)
        if rows:
            print(f"{name}: {quartiles(row['wall_s'] for row in rows)} s, landed {sum(row['landed'] for row in rows)} of {len(rows)},",
                  dict(collections.Counter(row["verdict"] for row in rows)))


# W2 with half its batch.
LARGE_SHAPE = "--batch=6 --block=256 --layers=6 --dim=384 --heads=6"
LARGE_STEPS = 20


def large(count):
    results = Results("large")
    head = prepare()
    step = step_us(W1.replace(W1_SHAPE, LARGE_SHAPE), steps=10, runs=3)
    text = (SCRATCH / "loop.toml").read_text()
    workload, sampling = (next(line for line in text.splitlines() if line.startswith(f"{name} = ") and W1_SHAPE in line)
                          for name in ["command", "training"])
    edits = [("loop.toml", line, line.replace(W1_SHAPE, LARGE_SHAPE)) for line in [workload, sampling]]
    edits += [("loop.toml", "steps = 200\ntokens_per_step = 128", f"steps = {LARGE_STEPS}\ntokens_per_step = {6 * 256}")]
    fast, slow = variant(head, edits, "larger steps"), variant(head, edits + spin(0.03 * step), "slower by +3 %")
    for number in range(len(results.rows()), count or 5):
        stand(slow, fast)
        forget()
        found = loop("compare", "--budget=10m")
        results.append(number=number, step_ms=round(step / 1000), **picked(found))
    rows = results.rows()
    print(f"+3 % on steps of {step / 1000:.0f} ms: FASTER in {sum(row.get('verdict') == 'FASTER' for row in rows)} of {len(rows)},",
          f"estimates {quartiles(row.get('speedup_pct') for row in rows)} %, {quartiles(row.get('wall_s') for row in rows)} s")


def smoke(count):
    results = Results("smoke")
    head = prepare()
    other = variant(head, spin(1), "another program as fast")
    stand(head, other)
    for number in range(len(results.rows()), count or 200):
        found = loop("smoke")
        results.append(number=number, passed=found.get("passed"), problems=found.get("problems"), wall_s=found["wall_s"],
                       error=found.get("error"))
    rows = results.rows()
    print(f"{sum(row['passed'] is not True for row in rows)} alarms in {len(rows)}, {quartiles(row['wall_s'] for row in rows)} s each")


# How a layout is made, for trees from before builds knew any.
LAYOUT_FILES = ["scripts/build.sh", "crates/alpha/build.rs"]


def with_layouts(commit, instrument):
    """The tree of `commit`, with today's build script and instrument, as a commit without history."""
    git("checkout", "-q", "--force", "--detach", commit)
    git("clean", "-fdq")
    for path in LAYOUT_FILES:
        shutil.copy(ROOT / path, SCRATCH / path)
    (SCRATCH / "loop.toml").write_text(instrument)
    git("add", "-A", *LAYOUT_FILES, "loop.toml")
    return git("commit-tree", git("write-tree"), "-m", commit)


def claims(count):
    results = Results("claims")
    prepare()
    git("fetch", "-q", ROOT, "HEAD")
    history = git("log", "--reverse", "--format=%H %s", "--grep=^perf: .*% tok/s)$", "FETCH_HEAD").splitlines()
    # The program that judges is this one: those of old trees do not know the present rules.
    instrument = "".join(line for line in (ROOT / "loop.toml").read_text().splitlines(keepends=True) if not line.startswith("judge ="))
    for number in range(count or 1):
        for commit, subject in (line.split(" ", 1) for line in history):
            if results.rows(claim=commit, number=number):
                continue
            changed = git("diff", "--name-only", f"{commit}^", commit, "--", "crates")
            target = ["--target=helios"] if "crates/helios/" in changed else []
            baseline, candidate = with_layouts(f"{commit}^", instrument), with_layouts(commit, instrument)
            forget()
            stand(baseline, candidate)
            loop("start", "measured again", "--parity=t0", *target)
            # A pair on a software device takes half a minute.
            found = loop("run", "--widen=measured again", "--budget=15m", "-m", "measured again")
            compare = found.get("compare") or {}
            landed = found.get("landed") or {}
            row = picked(compare) | {key: found.get(key) for key in ["exit_code", "wall_s", "error", "refusal"]}
            results.append(**row, claim=commit, subject=subject, number=number, landed=bool(landed), claim_pct=landed.get("claim_pct"))
    for commit, subject in (line.split(" ", 1) for line in history):
        for row in results.rows(claim=commit):
            print(f"{commit[:12]} {subject}: {row.get('verdict')} {row.get('speedup_pct')}, landed as {row['claim_pct']}; {row['refusal'] or row['error'] or ''}")


def main():
    experiments = {"identical": identical, "power": power, "bias": bias, "walls": walls, "noise": noise, "broken": broken, "cycle": cycle,
                   "large": large, "smoke": smoke, "claims": claims}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=experiments)
    parser.add_argument("--count", type=int, help="repetitions (of each effect)")
    arguments = parser.parse_args()
    if not ALPHA.exists():
        sys.exit("error: `.bun-out/alpha` is not there\n\nhint: `scripts/build.sh`")
    experiments[arguments.experiment](arguments.count)


if __name__ == "__main__":
    main()
