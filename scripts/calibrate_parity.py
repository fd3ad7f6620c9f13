#!/usr/bin/env python3
"""Shows what the rules of parity (`docs/parity.md`) find on known changes and faults of our own trainer.

    scripts/build.sh && cargo build -p feedback --example judge_parity && scripts/calibrate_parity.py

trains each case beside the same baseline, saves both trainers' weights through the turn protocol, has
`judge_parity` judge them, and prints a table: the rule that comes nearest to its limit or is furthest beyond,
what it found as a share of what it allows (more than 1 refuses), and the number of rules that refuse.
Faults that no flag can make come as programs of their own: `--candidate=NAME=PROGRAM` adds a row for each, and
settings before the path go to its environment: `--candidate=skip50=FAULT=skip,FAULT_FROM=50,/tmp/alpha-with-faults`.
"""
import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data/abc-small.txt"
SEED = 42
SHAPE = "--batch=2 --block=64 --layers=2 --dim=128 --heads=4"
WORKLOADS = {
    # The benchmark script's.
    "w1": f"--steps=100 {SHAPE} --lr=3e-5 --gradClip=0",
    # The same, learning ten times as fast and with a clip that is always at work.
    "clip": f"--steps=100 {SHAPE} --lr=3e-4 --gradClip=1",
    # README's.
    "tunes": "--steps=300 --batch=8 --block=64 --layers=2 --dim=128 --heads=4 --lr=1e-3 --gradClip=1 --tokenizer=char",
}
LEGITIMATE = {
    "nothing changed": "",
    "two threads": "--threads=2",
    "sums in another order (`cpu_ref`)": "--backend=cpu_ref",
}
FAULTS = {
    "lr doubled": "--lr={lr2}",
    "lr 1 % up": "--lr={lr101}",
    "no clip": "--gradClip=0",
    "half batch": "--batch={half}",
    "wrong weight decay (0)": "--weightDecay=0",
    "wrong weight decay (0.11)": "--weightDecay=0.11",
    "eps × 100": "--eps=1e-6",
    "beta2 0.99": "--beta2=0.99",
    "other seed": "--seed=43",
    "dropout 1 %": "--dropout=0.01",
}
EXEMPT = ["*.attn.c_attn.bias part 2 of 3"]


def value(flags, name):
    """The value of a flag."""
    return next(flag.split("=", 1)[1] for flag in flags if flag.startswith(f"--{name}="))


def replaced(flags, others):
    """Flags with some of them changed or added."""
    names = {flag.split("=")[0] for flag in others}
    return [flag for flag in flags if flag.split("=")[0] not in names] + others


def run(program, flags, folder, saves, environment):
    """Trains in turns and saves the weights after each of the given numbers of steps."""
    folder.mkdir(parents=True)
    steps = int(value(flags, "steps"))
    place = tempfile.mkdtemp(prefix="turns")  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{place}/s")
        listener.listen(1)
        listener.settimeout(600)
        with open(folder / "log", "w", encoding="utf-8") as log:
            trainer = subprocess.Popen(
                [program, "train", f"--data={DATA}", *flags, f"--runDir={folder / 'run'}"],
                env=os.environ | environment | {"ALPHA_TURNS": f"{place}/s"}, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        connection, _ = listener.accept()
    shutil.rmtree(place)
    with connection, connection.makefile("rw") as lines:

        def ask(line, answer):
            if line:
                lines.write(f"{line}\n")
                lines.flush()
            found = lines.readline().strip()
            if found != answer:
                sys.exit(f"error: `{line}` was answered by `{found}`, expected `{answer}`: see {folder / 'log'}")

        ask("", "hello 1")
        done = 0
        for step in [*saves, steps]:
            if step > done:
                ask(f"go {step - done}", f"done {step}")
                done = step
            if step < steps:
                ask("save", "saved")
    if trainer.wait() != 0:
        sys.exit(f"error: the trainer failed: see {folder / 'log'}")


def held_out(baseline, folder, steps):
    """Loss of the weights at the end on other data, by the baseline's program."""
    command = [baseline, "eval", f"--checkpoint={folder}/run/checkpoint-{steps}", f"--data={DATA}", "--split=val", "--json=true"]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    return json.loads(out)["loss"]


def share(check):
    """What was found as a share of what is allowed."""
    return float("inf") if check["found"] is None else check["found"] / check["allowed"]


def summary(judgement):
    """The rule with the largest share, and how many rules refuse."""
    # Rules that allow nothing say no more than that they refuse.
    graded = [check for check in judgement["checks"] if check["allowed"] > 0]
    worst = max(graded, key=share)
    refusals = sum(not check["passed"] for check in judgement["checks"])
    return f"`{worst['name']}` {share(worst):.2g}" + (f", **{refusals}**" if refusals else "")


def judge(arguments, folder, arm, steps, ends):
    """The judgement of an arm against the baseline."""

    def weights(start, stop):
        of = lambda arm: [f"{folder}/{arm}/run/weights-{step}.safetensors" for step in (start, stop)]
        return {"from": start, "to": stop, "weights": [of("baseline"), of(arm)]}

    metrics = [f"{folder}/{name}/run/metrics.jsonl" for name in ("baseline", arm)]
    evidence = {
        "tier": arguments.tier, "steps": steps, "seed": arguments.seed, "exempt": EXEMPT,
        "pairs": [{"seed": SEED, "metrics": metrics, "held_out": [ends["baseline"], ends[arm]]}],
        "updates": [weights(step - 1, step) for step in (1, 2, 10, arguments.drawn)] + [weights(0, steps - 1)],
    }  # fmt: skip
    path = folder / f"{arm}.json"
    path.write_text(json.dumps(evidence), encoding="utf-8")
    return json.loads(subprocess.run([arguments.judge, path], check=True, stdout=subprocess.PIPE).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--alpha", default=ROOT / ".bun-out/alpha", help="the baseline's program")
    parser.add_argument("--judge", default=ROOT / "target/debug/examples/judge_parity")
    parser.add_argument("--workload", choices=WORKLOADS, default="w1")
    parser.add_argument("--drawn", type=int, default=30, help="the step that is drawn after the run")
    parser.add_argument("--seed", type=int, default=1, help="of the projections")
    parser.add_argument("--tier", default="t1")
    parser.add_argument("--details", action="store_true", help="print every judgement as JSON instead")
    parser.add_argument("--candidate", action="append", default=[], metavar="NAME=[VARIABLE=VALUE,…]PROGRAM")
    arguments = parser.parse_args()

    folder = Path(tempfile.mkdtemp(prefix="calibrate"))
    common = "--evalInterval=0 --sampleInterval=0 --postSamples=false --logEvery=1000 --backend=cpu --threads=1"
    flags = [*WORKLOADS[arguments.workload].split(), *common.split(), f"--seed={SEED}"]
    flags.append(f"--tokenizerArtifacts={folder / 'tokenizer.json'}")
    steps = int(value(flags, "steps"))
    saves = sorted({0, 1, 2, 9, 10, arguments.drawn - 1, arguments.drawn, steps - 1})
    lr, batch = float(value(flags, "lr")), int(value(flags, "batch"))
    derived = {"lr2": 2 * lr, "lr101": 1.01 * lr, "half": batch // 2}

    cases = {
        name: (arguments.alpha, {}, text.format(**derived).split()) for name, text in (LEGITIMATE | FAULTS).items()
    }
    for candidate in arguments.candidate:
        name, rest = candidate.split("=", 1)
        *variables, program = rest.split(",")
        cases[name] = (program, dict(variable.split("=", 1) for variable in variables), [])

    run(arguments.alpha, flags, folder / "baseline", saves, {})
    ends = {"baseline": held_out(arguments.alpha, folder / "baseline", steps)}
    for number, (name, (program, environment, changed)) in enumerate(cases.items()):
        arm = f"case-{number}"
        run(program, replaced(flags, changed), folder / arm, saves, environment)
        ends[arm] = held_out(arguments.alpha, folder / arm, steps)
        judgement = judge(arguments, folder, arm, steps, ends)
        shown = json.dumps({"case": name} | judgement) if arguments.details else f"| {name} | {summary(judgement)} |"
        print(shown, flush=True)
        shutil.rmtree(folder / arm)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
