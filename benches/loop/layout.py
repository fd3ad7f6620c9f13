#!/usr/bin/env python3
"""Measures the luck of layout: how much the speed of one source changes with where its code and data lie.

    benches/loop/layout.py noise [--count=N]        how much twelve layouts of a trainer differ, by the loop's self-test
    benches/loop/layout.py no-effect [--count=N]    changes without effect: how many are called faster, how many land
    benches/loop/layout.py rows                     what all rows say

Both for alpha and for the toy of the tests, or one of them with `--trainer=`. Appends rows to perf/loop-layout.jsonl and
goes on where it stopped. Nothing else should run on the machine meanwhile. Needs `scripts/build.sh` first, with the
sources of HEAD.
"""
import argparse
import collections
import os
import random
import re
import statistics
import sys

import scratch
from scratch import ALPHA, Results, forget, git, loop

# The toy's own file has an ε for planted effects of two thirds and more.
TOY_CONFIG = [("epsilon_pct = 30", "epsilon_pct = 0.5"), ('budget = "20s"', 'budget = "60s"'), ('"./build.sh"', '"./build.sh --layout={layout}"')]
# Files in which alpha is changed: kernels of the workload, and the step around them.
FILES = [f"crates/alpha-tensor/src/cpu/{name}.rs" for name in ["activation", "layer_norm", "optimizer", "head", "embedding", "attention"]]
RESULTS = Results("layout")


def prepare(trainer):
    """A scratch repository with the trainer; returns its commit. What `scratch` does from here on is done there."""
    return scratch.prepare() if trainer == "alpha" else scratch.toy("toy", TOY_CONFIG)


def stand(head):
    git("checkout", "-q", "--force", "-B", "experiment", head)
    git("clean", "-fdq")


def noise(trainer, count):
    stand(prepare(trainer))
    for number in range(len(RESULTS.rows(experiment="noise", trainer=trainer)), count or 5):
        found = loop("selftest", "--layouts=12")
        row = {key: found[key] for key in ["layout", "sd_pct", "seconds_per_pair", "failure", "error", "wall_s"] if key in found}
        RESULTS.append(experiment="noise", trainer=trainer, number=number, load=round(os.getloadavg()[0], 1), **row)


def python_change(text, draw):
    """A kind of change of the toy without effect, and the program with it."""
    definitions = [match.start() for match in re.finditer(r"^def (?!main)", text, re.MULTILINE)]
    kind = draw.choice(["unused functions", "reordered functions", "another constant"])
    if kind == "unused functions":
        for place in sorted(draw.sample(definitions, draw.randint(1, 5)), reverse=True):
            name = f"unused_{draw.getrandbits(32):08x}"
            body = "".join(f"    x = x * {draw.randint(2, 99)} + {draw.randint(1, 99)}\n" for _ in range(draw.randint(1, 12)))
            text = f"{text[:place]}def {name}(x):\n{body}    return x\n\n\n{text[place:]}"
    elif kind == "reordered functions":
        blocks = re.split(r"(?<=\n)\n\n(?=\S)", text)
        # Only functions that follow each other change places: constants may need what stands above.
        pairs = [place for place in range(len(blocks) - 1)
                 if all(re.match(r"def (?!main)", block) and not re.search(r"^[^\s#d]", block, re.MULTILINE) for block in blocks[place : place + 2])]
        for place in draw.sample(pairs, min(len(pairs), draw.randint(1, 3))):
            blocks[place], blocks[place + 1] = blocks[place + 1].rstrip("\n") + "\n", blocks[place].rstrip("\n") + "\n"
        text = "\n\n".join(blocks)
    else:
        place = draw.choice(definitions)
        text = f"{text[:place]}UNUSED_{draw.getrandbits(32):08x} = {draw.getrandbits(64)}\n\n\n{text[place:]}"
    return kind, text


def rust_change(text, draw):
    """The same of alpha. What nobody calls is kept by a table that nobody reads, or the linker would leave it out."""
    kind = draw.choice(["unused functions", "another constant", "reordered functions"])
    functions = [match.start() for match in re.finditer(r"^(?:///[^\n]*\n|#\[[^\n]*\n)*(?:pub(?:\([^)]*\))? )?fn ", text, re.MULTILINE)]
    tests = text.find("#[cfg(test)]")
    functions = [place for place in functions if tests < 0 or place < tests]
    if kind == "reordered functions":
        ends = [text.index("\n}\n", place) + 3 for place in functions]
        pairs = [at for at in range(len(functions) - 1) if not text[ends[at] : functions[at + 1]].strip()]
        if pairs:
            at = draw.choice(pairs)
            (one, end_one), (other, end_other) = (functions[at], ends[at]), (functions[at + 1], ends[at + 1])
            return kind, text[:one] + text[other:end_other] + "\n" + text[one:end_one] + text[end_other:]
        kind = "unused functions"
    place = draw.choice(functions)
    name = f"unused_{draw.getrandbits(32):08x}"
    if kind == "another constant":
        values = ", ".join(str(draw.getrandbits(63)) for _ in range(draw.randint(1, 40)))
        count = values.count(",") + 1
        return kind, f"{text[:place]}#[used]\nstatic {name.upper()}: [u64; {count}] = [{values}];\n\n{text[place:]}"
    body = "".join(f"    x = x.rotate_left({draw.randint(1, 31)}).wrapping_mul({draw.getrandbits(30) | 1});\n" for _ in range(draw.randint(1, 40)))
    function = f"fn {name}(mut x: u32) -> u32 {{\n{body}    x\n}}\n#[used]\nstatic {name.upper()}: fn(u32) -> u32 = {name};\n\n"
    return kind, text[:place] + function + text[place:]


def no_effect(trainer, count):
    head = prepare(trainer)
    for number in range(len(RESULTS.rows(experiment="no-effect", trainer=trainer)), count or {"toy": 100, "alpha": 30}[trainer]):
        stand(head)
        forget()
        draw = random.Random(f"{trainer} {number}")
        if trainer == "toy":
            file, change = scratch.SCRATCH / "src/trainer.py", python_change
        else:
            file, change = scratch.SCRATCH / draw.choice(FILES), rust_change
        kind, text = change(file.read_text(), draw)
        file.write_text(text)
        loop("start", f"{kind}, without effect")
        found = loop("run", "--widen=an experiment", "-m", "a change without effect")
        compare = found.get("compare") or {}
        row = {key: compare[key] for key in ["verdict", "speedup_pct", "ci_low_pct", "ci_high_pct", "pairs", "pair_sd_pct"] if key in compare}
        guards = [guard["name"] for guard in compare.get("guards", []) if not guard["holds"]]
        RESULTS.append(experiment="no-effect", trainer=trainer, number=number, kind=kind, file=file.name, landed=bool(found.get("landed")),
                       refusal=(found.get("refusal") or "")[:200], failed_guards=guards, error=found.get("error"),
                       exit_code=found["exit_code"], wall_s=found["wall_s"], load=round(os.getloadavg()[0], 1), **row)


def tell():
    for trainer in ["alpha", "toy"]:
        rows = [row["layout"] for row in RESULTS.rows(experiment="noise", trainer=trainer) if row.get("layout")]
        if rows:
            middle = {key: statistics.median(row[key] for row in rows) for key in ["sd_pct", "spread_pct", "pair_sd_pct", "seconds", "build_s"]}
            spans = ", ".join(f"{row['sd_pct']:.2f}" for row in rows)
            print(f"{trainer}: layouts differ by {middle['sd_pct']:.2f} % (sd; each time {spans}), with what is left of noise {middle['spread_pct']:.2f} %;",
                  f"a pair's noise {middle['pair_sd_pct']:.2f} %; {middle['seconds']:.0f} s of pairs, {middle['build_s']:.0f} s of builds")
        rows = RESULTS.rows(experiment="no-effect", trainer=trainer)
        if rows:
            # A guard or parity is asked only after FASTER.
            faster = sum(row.get("verdict") == "FASTER" or bool(row["failed_guards"]) for row in rows)
            print(f"{trainer}: of {len(rows)} changes without effect {faster} FASTER, {sum(row['landed'] for row in rows)} landed;",
                  dict(collections.Counter(row.get("verdict") or "error" for row in rows)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=["noise", "no-effect", "rows"])
    parser.add_argument("--trainer", choices=["alpha", "toy"], help="only this one")
    parser.add_argument("--count", type=int, help="rows of each trainer")
    arguments = parser.parse_args()
    if arguments.experiment != "rows":
        if not ALPHA.exists():
            sys.exit("error: `.bun-out/alpha` is not there\n\nhint: `scripts/build.sh`")
        alphas_scratch = scratch.SCRATCH
        for trainer in [arguments.trainer] if arguments.trainer else ["toy", "alpha"]:
            scratch.SCRATCH = alphas_scratch
            {"noise": noise, "no-effect": no_effect}[arguments.experiment](trainer, arguments.count)
    tell()


if __name__ == "__main__":
    main()
