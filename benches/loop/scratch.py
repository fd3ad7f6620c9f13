"""A scratch clone of this repository, in which trainers with known effects and faults are built and compared.

The clone lies in `$SCRATCH` (default: a folder in the temporary directory) and is kept: builds are found again, and an
experiment goes on where it stopped. Results are rows of JSON in `perf/`, appended one whole line at a time.
"""
import functools
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
ALPHA = ROOT / ".bun-out/alpha"
SCRATCH = Path(os.environ.get("SCRATCH", Path(tempfile.gettempdir()) / "alpha-loop-scratch"))
STEPS = "crates/alpha-train/src/trainer/steps.rs"
STEP_START = "        let start = Instant::now();\n"
W1_SHAPE = "--batch=2 --block=64 --layers=2 --dim=128 --heads=4"
W1 = f"--data=data/abc-small.txt --backend=cpu {W1_SHAPE}"


def git(*arguments):
    return subprocess.run(["git", "-C", SCRATCH, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


# The last commit that an experiment made. Each goes on from the one before, whatever its tree: builds go on from what an
# ancestor left behind, and begin afresh anywhere else.
LINEAGE = "refs/experiment/lineage"


def prepare():
    """Clones HEAD, or brings an earlier clone to it; returns a commit of its tree. That has no history: the claims in it would be
    what a trainer that an experiment made slower is held against."""
    head = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    if not SCRATCH.exists():
        subprocess.run(["git", "clone", "-q", ROOT, SCRATCH], check=True)
        git("config", "user.name", "experiment")
        git("config", "user.email", "experiment@localhost")
    git("fetch", "-q", ROOT, head)
    known = git("for-each-ref", "--format=%(objectname)", LINEAGE)
    root = known and git("rev-list", "--max-parents=0", LINEAGE)
    if not known or git("rev-parse", f"{root}^{{tree}}") != git("rev-parse", f"{head}^{{tree}}"):
        root = git("commit-tree", f"{head}^{{tree}}", "-m", "the trainer")
        git("update-ref", LINEAGE, root)
    stand(root, root)
    # An experiment that was cut off may have left a cycle open, about another target.
    (SCRATCH / ".git/alpha-loop/cycle.json").unlink(missing_ok=True)
    return root


def toy(name, config=()):
    """A scratch repository beside the clone with the toy of the tests, `config` edited in its `loop.toml`; returns its commit.
    Everything here works there from then on."""
    global SCRATCH
    SCRATCH = SCRATCH.with_name(f"{SCRATCH.name}-{name}")
    if not SCRATCH.exists():
        shutil.copytree(ROOT / "tests/toy", SCRATCH)
        (SCRATCH / ".gitignore").write_text("out/\nrun/\n")
        text = (SCRATCH / "loop.toml").read_text()
        for old, new in config:
            assert old in text, f"the toy's loop.toml no longer has {old!r}"
            text = text.replace(old, new)
        (SCRATCH / "loop.toml").write_text(text)
        subprocess.run(["git", "init", "-q", SCRATCH], check=True)
        git("config", "user.name", "experiment")
        git("config", "user.email", "experiment@localhost")
        git("add", "-A")
        git("commit", "-q", "-m", "the toy")
        git("tag", "toy")
    return git("rev-parse", "toy")


def variant(head, edits, message):
    """A commit with the tree of `head` and `edits` to it, each `(file, old, new)`."""
    stand(head, head)
    for path, old, new in edits:
        file = SCRATCH / path
        text = file.read_text()
        if old not in text:
            sys.exit(f"error: `{path}` no longer has the place to edit: {old!r}")
        file.write_text(text.replace(old, new, 1))
    git("add", "-u")
    commit = git("commit-tree", git("write-tree"), "-p", LINEAGE, "-m", message)
    git("update-ref", LINEAGE, commit)
    return commit


def rooted(head, edits, message):
    """The same without a history: what a trainer that an experiment made slower would be held against. The lineage starts over."""
    tree = git("rev-parse", f"{variant(head, edits, message)}^{{tree}}")
    root = git("commit-tree", tree, "-m", message)
    git("update-ref", LINEAGE, root)
    return root


def stand(baseline, candidate):
    """The clone's HEAD is `baseline`, its working tree that of `candidate`."""
    git("checkout", "-q", "--force", "-B", "experiment", baseline)
    git("clean", "-fdq")
    if candidate != baseline:
        git("checkout", "-q", candidate, "--", "crates", "loop.toml")
        git("reset", "-q")


def forget():
    """Forgets every attempt, so that the same two programs can be compared afresh. Only experiments do this."""
    state = SCRATCH / ".git/alpha-loop"
    for folder in ["attempts", "counted"]:
        shutil.rmtree(state / folder, ignore_errors=True)
    (state / "cycle.json").unlink(missing_ok=True)
    git("update-ref", "-d", "refs/alpha-loop/attempts")
    shutil.rmtree(SCRATCH / "perf/ledger", ignore_errors=True)


def loop(*arguments, environment=None):
    """Runs `alpha loop … --json` in the clone; returns its object with `exit_code` and `wall_s` added."""
    began = time.monotonic()
    done = subprocess.run([ALPHA, "loop", *arguments, "--json"], cwd=SCRATCH, capture_output=True, text=True, check=False,
                          env=environment)
    if done.returncode < 0 or done.returncode in [130, 143]:
        sys.exit("error: the loop was interrupted: this run is not a row")
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    found = json.loads(lines[-1]) if lines else {"error": done.stderr[-300:]}
    return found | {"exit_code": done.returncode, "wall_s": round(time.monotonic() - began, 1)}


# Numbers that depend on each other, so that the processor cannot overlap them.
WORK = "let mut drawn = 1_u64;\nfor _ in 0..{turns}_u64 {{\n    drawn = std::hint::black_box(drawn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));\n}}\n"
CLOCK = """fn main() {{
    let best = (0..200).map(|_| {{
        let start = std::time::Instant::now();
        {work}
        start.elapsed().as_nanos()
    }}).min();
    println!("{{}}", best.unwrap_or(0));
}}
"""


@functools.cache
def turn_ns():
    """What a turn of `WORK` takes in a quiet moment."""
    turns = 100_000
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "clock.rs")
        source.write_text(CLOCK.format(work=WORK.format(turns=turns)))
        subprocess.run(["rustc", "-O", "-o", source.with_suffix(""), source], check=True, capture_output=True)
        best = subprocess.run([source.with_suffix("")], check=True, stdout=subprocess.PIPE, text=True).stdout
    return int(best) / turns


def spin(micros):
    """An edit: work without use in every step, that takes so long in a quiet moment. Not a wait of fixed length: where the
    machine is slow for a while, it is slow at this too, so that the effect stays the same share of a step."""
    work = "".join(f"        {line}\n" for line in WORK.format(turns=round(micros * 1000 / turn_ns())).splitlines())
    return [(STEPS, STEP_START, STEP_START + work)]


def step_us(flags=W1, steps=500, runs=6):
    """Time of a step of a workload in a run alone, with HEAD's program: the lower quartile of the medians of short runs,
    because this is to be the time in a quiet minute."""
    medians = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            rest = f"--steps={steps} --evalInterval=0 --sampleInterval=0 --postSamples=false --logEvery=100000 --runDir={folder}/run"
            subprocess.run([ALPHA, "train", *f"{flags} {rest}".split()], cwd=ROOT, check=True, capture_output=True)
            rows = [json.loads(line) for line in Path(folder, "run/metrics.jsonl").read_text().splitlines()]
        medians.append(statistics.median(row["ms_per_iter"] for row in rows[steps // 10:]))
        time.sleep(2)
    return 1000 * statistics.quantiles(medians, n=4)[0]


@functools.cache
def processor():
    """What the rows are of."""
    names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()) if Path("/proc/cpuinfo").exists() else []
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} processors"


# Rows without this are from before trainers ran behind walls, gains were confirmed in plain runs and layouts were shuffled.
RULES = {"rules": "walls"}


class Results:
    """Rows of an experiment in `perf/loop-<name>.jsonl`. Those from before the present rules stay there and are not counted."""

    def __init__(self, name):
        self.path = ROOT / "perf" / f"loop-{name}.jsonl"

    def rows(self, **like):
        if not self.path.exists():
            return []
        rows = [json.loads(line) for line in self.path.read_text().splitlines()]
        return [row for row in rows if all(row.get(key) == value for key, value in (RULES | like).items())]

    def append(self, **row):
        row |= RULES | {"processor": processor()}
        print(row, file=sys.stderr)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
