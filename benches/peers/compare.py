#!/usr/bin/env python3
"""Measures alpha against other trainers on the same work, in turns, and prints medians with their spread.

    scripts/build.sh
    benches/peers/compare.py --rounds=5 [--workloads=W1,W2,W3] [--python=PYTHON-WITH-TORCH] [--burn=BURN-BENCH]
    benches/peers/compare.py --rounds=5 --workloads=W1,4x256 --contestants=helios,burn-wgpu

W1: 2 layers/128/4 heads, block 64, batch 2, vocabulary 2000, no biases. W2: 6/384/6, block 256, batch 12, vocabulary
96, no biases. W3: 12/768/12, block 64, batch 4, vocabulary 50257, biases. 4x256: 4/256/8, block 128, batch 4,
vocabulary 2000, no biases. f32, tied head; a step is data, forward, backward, clip to norm 1 and AdamW.

In each round every contestant runs once, as a fresh process, and the order turns from round to round: what drifts on
the machine meets all alike. A process's figure is the median over its steady steps; the table's is the median over the
processes, with the quartiles beside it, and the ratio of the medians. Peak memory is the kernel's VmHWM of the process.

`helios` and `burn-wgpu` run on the first GPU, or on a software device in its place (VK_DRIVER_FILES says which driver);
Burn's program is `cargo build --release` in benches/peers/burn.

The other trainers' programs come from the folder PEERS (default ../shared/peers: torch_gpt.py, burn/). What is not
there is said and left out; alpha is measured alone then. Each result is one line in perf/peers.jsonl. An interrupted
comparison goes on where it stopped: a series is the binary, the threads and the contestants' options (or --series).
Let nothing else run on the machine meanwhile.
"""
import argparse
import hashlib
import json
import os
import random
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS = ROOT / "perf" / "peers.jsonl"
ALPHA = ROOT / ".bun-out" / "alpha"
BURN_WGPU = ROOT / "benches" / "peers" / "burn" / "target" / "release" / "burn-peer"
DATA_TOKENS = 100_000

# layers, dim, heads, block, batch, vocabulary, biases; steps of alpha in a process of about ten seconds
WORKLOADS = {
    "W1": ((2, 128, 4, 64, 2, 2000, False), 2000),
    "W2": ((6, 384, 6, 256, 12, 96, False), 14),
    "W3": ((12, 768, 12, 64, 4, 50257, True), 16),
    "4x256": ((4, 256, 8, 128, 4, 2000, False), 120),
}
DEFAULT_WORKLOADS = ["W1", "W2", "W3"]
# A software device is some so many times slower than the processor itself.
HELIOS_STEPS_SHARE = 1 / 8
# Left out at the start of alpha's runs; the peers warm up by themselves.
WARM_UP_SHARE, WARM_UP_STEPS = 0.2, 3


def run_measured(command, env):
    """Runs a process to its end; returns its stdout and its peak resident memory in MB.

    VmHWM is polled, because `ru_maxrss` of a child begins at its parent's size.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, env=env)
        peak_kb = 0
        while process.poll() is None:
            peak_kb = max(peak_kb, high_water_kb(process.pid))
            time.sleep(0.05)
        out.seek(0)
        err.seek(0)
        if process.returncode != 0:
            raise RuntimeError(f"{' '.join(map(str, command))}: exit code {process.returncode}\n{err.read()[-2000:]}")
        return out.read(), peak_kb / 1024


def high_water_kb(pid):
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)


def measure_alpha(backend, dtype="f32", steps_share=1):
    return lambda workload, args: run_alpha(workload, args, backend, dtype, steps_share)


def run_alpha(workload, args, backend, dtype, steps_share):
    """One training run on random tokens; the median of `ms_per_iter` over the steady steps."""
    (layers, dim, heads, block, batch, vocab, bias), steps = WORKLOADS[workload]
    steps = max(8, round(steps * steps_share * args.seconds / 10))
    with tempfile.TemporaryDirectory(prefix="alpha-bench-") as folder:
        tokens = random.Random(1).choices(range(vocab), k=DATA_TOKENS)
        data = Path(folder) / "tokens.bin"
        data.write_bytes(struct.pack(f"<{len(tokens)}H", *tokens))
        command = [
            ALPHA, "train", f"--data={data}", "--tokenDtype=u16", f"--vocabSize={vocab}", f"--backend={backend}",
            f"--dtype={dtype}", f"--threads={args.threads}", f"--layers={layers}", f"--dim={dim}", f"--heads={heads}", f"--block={block}",
            f"--batch={batch}", f"--bias={str(bias).lower()}", "--tie=true", "--gradClip=1", f"--steps={steps}",
            f"--evalInterval={10 * steps}", "--sampleInterval=0", "--postSamples=false", f"--logEvery={steps}",
            f"--runDir={folder}/run",
        ]  # fmt: skip
        _, peak_mb = run_measured(command, cache(folder, backend))
        rows = [json.loads(line) for line in (Path(folder) / "run/metrics.jsonl").read_text().splitlines()]
    steady = [row["ms_per_iter"] for row in rows][max(WARM_UP_STEPS, int(WARM_UP_SHARE * len(rows))) :]
    return statistics.median(steady), len(steady), peak_mb


def cache(folder, backend):
    """A cache of the run's own; a GPU's choice of kernels is kept, as it is for users."""
    return os.environ | ({"XDG_CACHE_HOME": folder} if backend == "cpu" else {"NODEVICE_SELECT": "1"})


def measure_torch(mode, dtype):
    def measure(workload, args):
        script = args.peers / "torch_gpt.py"
        command = [args.python, script, "--workload", workload, "--mode", mode, "--dtype", dtype]
        command += ["--threads", str(args.threads), "--seconds", str(args.seconds)]
        out, peak_mb = run_measured(command, peer_environment())
        result = json.loads(out.splitlines()[-1])
        return result["ms"], result["steps"], peak_mb

    return measure


def measure_burn(workload, args):
    env = peer_environment() | {"RAYON_NUM_THREADS": str(args.threads)}
    out, peak_mb = run_measured([args.burn, workload, str(args.seconds)], env)
    result = json.loads(out.splitlines()[-1])
    return result["ms"], result["steps"], peak_mb


def measure_burn_wgpu(workload, args):
    (layers, dim, heads, block, batch, vocab, bias), _ = WORKLOADS[workload]
    if bias:
        raise RuntimeError(f"burn-wgpu: {workload} has biases, which benches/peers/burn leaves out")
    command = [args.burn_wgpu, *map(str, (layers, dim, heads, block, batch, vocab, round(args.seconds)))]
    out, peak_mb = run_measured(command, peer_environment() | {"NODEVICE_SELECT": "1"})
    result = json.loads(out.splitlines()[-1])
    return result["ms"], result["steps"], peak_mb


def peer_environment():
    """These two, set on some machines, slow numpy and PyTorch."""
    return {key: value for key, value in os.environ.items() if key not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}


CONTESTANTS = {
    "alpha": measure_alpha("cpu"),
    "torch-eager": measure_torch("eager", "f32"),
    "torch-compile": measure_torch("compile", "f32"),
    "torch-eager-avx512": measure_torch("eager+avx512", "f32"),
    "torch-eager-bf16": measure_torch("eager", "bf16"),
    "burn": measure_burn,
    "helios": measure_alpha("helios", "f32", HELIOS_STEPS_SHARE),
    "helios-f16": measure_alpha("helios", "f16", HELIOS_STEPS_SHARE),
    "helios-bf16": measure_alpha("helios", "bf16", HELIOS_STEPS_SHARE),
    "burn-wgpu": measure_burn_wgpu,
}
DEFAULT_CONTESTANTS = ["alpha", "torch-eager", "torch-compile", "burn"]


def available(args):
    """The contestants that can run here; says why the others cannot."""
    missing = {}
    if not (args.peers / "torch_gpt.py").is_file():
        missing["torch"] = f"no `torch_gpt.py` in `{args.peers}` (PEERS)"
    elif subprocess.run([args.python, "-c", "import torch"], capture_output=True, env=peer_environment()).returncode != 0:
        missing["torch"] = f"`{args.python}` has no torch (--python)"
    if not (args.burn and Path(args.burn).is_file()):
        missing["burn"] = "not built (--burn)"
    if not args.burn_wgpu.is_file():
        missing["burn-wgpu"] = f"no `{args.burn_wgpu}` (--burn-wgpu)"
    names = []
    for name in args.contestants:
        family = "torch" if name.startswith("torch") else name
        why = missing.get(family)
        if why:
            print(f"left out: {name}: {why}", file=sys.stderr)
        else:
            names.append(name)
    return names


def machine():
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = next((line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")), "unknown")
    return f"{model}, {len(os.sched_getaffinity(0))} cores"


def commit():
    run = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return run.stdout.strip() if run.returncode == 0 else "none"


def read_results():
    """All records; a torn or foreign line is passed over."""
    records = []
    if RESULTS.exists():
        for line in RESULTS.read_text(errors="replace").splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and "series" in record:
                records.append(record)
    return records


def append_result(record):
    """One line, one write. A line that a crash cut short must not swallow this one."""
    RESULTS.parent.mkdir(exist_ok=True)
    is_torn = RESULTS.exists() and not RESULTS.read_bytes().endswith(b"\n")
    with open(RESULTS, "ab", buffering=0) as file:
        file.write(("\n" * is_torn + json.dumps(record) + "\n").encode())


def quartiles(values):
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def print_table(records):
    print("| workload | contestant | rounds | ms/step (quartiles) | tok/s | alpha is | peak MB | alpha's memory |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for workload in WORKLOADS:
        of_workload = [record for record in records if record["workload"] == workload]
        by_name = {name: [record for record in of_workload if record["contestant"] == name] for name in CONTESTANTS}
        alpha = by_name["alpha"] or by_name["helios"]
        for name in CONTESTANTS:
            own = by_name[name]
            if not own:
                continue
            times = [record["ms"] for record in own]
            median, (low, high) = statistics.median(times), quartiles(times)
            peak = statistics.median(record["peak_rss_mb"] for record in own)
            faster = smaller = ""
            if alpha and name != alpha[0]["contestant"]:
                faster = f"{median / statistics.median(record['ms'] for record in alpha):.2f}× as fast"
                smaller = f"{statistics.median(record['peak_rss_mb'] for record in alpha) / peak:.2f}×"
            tok_s = own[0]["tokens_per_step"] / median * 1000
            print(
                f"| {workload} | {name} | {len(own)} | {median:.2f} ({low:.2f}–{high:.2f}) | {tok_s:.0f} | {faster} "
                f"| {peak:.0f} | {smaller} |"
            )


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = lambda text: text.split(",")  # noqa: E731
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workloads", type=names, default=DEFAULT_WORKLOADS)
    parser.add_argument("--contestants", type=names, default=DEFAULT_CONTESTANTS, help=", ".join(CONTESTANTS))
    parser.add_argument("--seconds", type=float, default=10, help="length of one process, about")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--python", default=sys.executable, help="a Python with torch")
    parser.add_argument("--burn", default=shutil.which("burn_bench"), help="the built program of PEERS/burn")
    parser.add_argument("--burn-wgpu", type=Path, default=BURN_WGPU, help="the built program of benches/peers/burn")
    parser.add_argument("--series", help="go on with this series, or begin it")
    parser.add_argument("--table", action="store_true", help="measure nothing, print the table of the series")
    args = parser.parse_args()
    for given, known, flag in [(args.workloads, WORKLOADS, "--workloads"), (args.contestants, CONTESTANTS, "--contestants")]:
        for name in given:
            if name not in known:
                parser.error(f"{flag}: found `{name}`, expected some of {', '.join(known)}")
    args.peers = Path(os.environ.get("PEERS", ROOT.parent / "shared" / "peers"))
    return args


def main():
    args = parse_args()
    if not ALPHA.is_file():
        sys.exit(f"error: `{ALPHA.relative_to(ROOT)}` is not there\n\nhint: scripts/build.sh")
    binary = hashlib.sha256(ALPHA.read_bytes()).hexdigest()[:12]
    series = args.series or f"{binary}-{args.threads}-threads-{args.seconds:g}-s"
    done = {(r["workload"], r["contestant"], r["round"]) for r in read_results() if r["series"] == series}
    contestants = [] if args.table else available(args)
    for turn in range(args.rounds):
        for workload in args.workloads:
            # Everyone is first as often as last.
            shift = turn % max(1, len(contestants))
            for name in contestants[shift:] + contestants[:shift]:
                if (workload, name, turn) in done:
                    continue
                ms, steps, peak_mb = CONTESTANTS[name](workload, args)
                (_, _, _, block, batch, _, _), _ = WORKLOADS[workload]
                record = dict(
                    series=series, timestamp=datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ"), commit=commit(),
                    binary=binary, machine=machine(), threads=args.threads, workload=workload, contestant=name, round=turn,
                    ms=round(ms, 4), steps=steps, tokens_per_step=block * batch, peak_rss_mb=round(peak_mb, 1),
                )  # fmt: skip
                append_result(record)
                print(f"round {turn + 1}: {workload} {name}: {ms:.2f} ms/step, {peak_mb:.0f} MB", file=sys.stderr)
    print(f"series {series}, {machine()}\n")
    print_table([record for record in read_results() if record["series"] == series])


if __name__ == "__main__":
    main()
