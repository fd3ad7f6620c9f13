#!/usr/bin/env python3
"""Builds alpha, tests every kernel on a GPU, measures W1 to W3 in each dtype, and PyTorch and Burn beside it.

    scripts/gpu-proof.sh [--device=N] [--minutes=10] [--out=gpu-proof.json] [--python=PYTHON-WITH-TORCH]

The JSON has the device as `alpha devices` describes and measures it, the tests' outcome, and for each workload and dtype
the median milliseconds of a step, the tokens a second, the share of the device's measured peak (mfu), and what the first
and the last loss were. A stage that fails or for which no time is left says so, and the next one runs all the same.

PyTorch runs in eager mode on CUDA or MPS where `--python` has a torch that sees one (benches/peers/torch_gpu.py); Burn
where benches/peers/burn is built. Nothing is installed, nothing leaves this machine.
"""
import argparse
import json
import os
import platform
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

ROOT = Path(__file__).resolve().parent.parent
BURN = ROOT / "benches" / "peers" / "burn" / "target" / "release" / "burn-peer"
TORCH = ROOT / "benches" / "peers" / "torch_gpu.py"
SCHEMA = "alpha.gpu-proof/1"

# layers, dim, heads, block, batch, vocabulary, biases: those of docs/performance.md
WORKLOADS = {
    "W1": (2, 128, 4, 64, 2, 2000, False),
    "W2": (6, 384, 6, 256, 12, 96, False),
    "W3": (12, 768, 12, 64, 4, 50257, True),
}
DTYPES = ["f32", "f16", "bf16"]
DATA_TOKENS = 200_000
PROBE_STEPS = 12
# Of a measured run: how long it takes, about, and how many steps it has at least and at most.
MEASURED_S, FEWEST_STEPS, MOST_STEPS = 6, 10, 3000
WARM_UP_SHARE = 0.2


class Proof:
    def __init__(self, args):
        self.args = args
        self.deadline = time.monotonic() + 60 * args.minutes
        self.alpha = ROOT / ".bun-out" / "alpha"
        self.folder = Path(tempfile.mkdtemp(prefix="gpu-proof-"))
        self.result = {
            "schema": SCHEMA,
            "timestamp": datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ"),
            "system": platform.platform(),
            "stages": [],
        }

    def left_s(self):
        return self.deadline - time.monotonic()

    def run(self, command, limit_s, env=None):
        """The process's outcome within the limit and the proof's deadline; raises what the stage's record says."""
        limit_s = min(limit_s, self.left_s())
        if limit_s < 1:
            raise RuntimeError("no time left")
        try:
            done = subprocess.run(
                [str(part) for part in command], cwd=ROOT, env=env or os.environ, text=True, capture_output=True,
                timeout=limit_s,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"no end within {limit_s:.0f} s") from None
        if done.returncode != 0:
            raise RuntimeError(f"exit code {done.returncode}: {(done.stdout + done.stderr)[-1500:].strip()}")
        return done

    def stage(self, name, work):
        """Runs `work` and records what it returns, or why it did not."""
        start = time.monotonic()
        record = {"stage": name}
        try:
            record["ok"], record["result"] = True, work()
        except Exception as error:  # noqa: BLE001: whatever a stage runs into, the others go on
            record["ok"], record["why"] = False, str(error) or type(error).__name__
        record["seconds"] = round(time.monotonic() - start, 1)
        self.result["stages"].append(record)
        self.write()
        said = json.dumps(record["result"]) if record["ok"] else record["why"].splitlines()[0]
        print(f"{name}: {'ok' if record['ok'] else 'FAILED'} in {record['seconds']} s: {said[:200]}", file=sys.stderr)
        return record.get("result")

    def write(self):
        path = Path(self.args.out)
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_text(json.dumps(self.result, indent=1) + "\n")
        temporary.replace(path)

    def build(self):
        self.run([ROOT / "scripts" / "build.sh"], 600)
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, text=True, capture_output=True)
        return {"commit": commit.stdout.strip() or None}

    def device(self):
        """The chosen device; an error where there is none."""
        devices = json.loads(self.run([self.alpha, "devices", "--json=true"], 120).stdout)["gpus"]
        order = ["discrete", "integrated", "virtual", "unknown", "software"]
        able = [gpu for gpu in devices if gpu["lacks"] is None]
        if self.args.device is not None:
            able = [gpu for gpu in able if gpu["index"] == self.args.device]
        if not able:
            raise RuntimeError(f"no such device that can run the kernels among {[gpu['name'] for gpu in devices]}")
        return min(able, key=lambda gpu: (order.index(gpu["kind"]), gpu["index"]))

    def default_device_only(self):
        """What does not take a device of ours would measure another one under its name."""
        if self.args.device is not None:
            raise RuntimeError("left out: it runs on the default device alone; leave `--device` out")

    def kernels(self):
        """Every operation, forward and backward, against the f64 reference."""
        self.default_device_only()
        command = ["cargo", "test", "--locked", "-p", "alpha-tensor", "-p", "helios", "--lib", "--test", "ops", "--test"]
        out = self.run([*command, "backend"], 300).stdout
        return [line for line in out.splitlines() if line.startswith("test result")]

    def train(self, workload, dtype, device):
        layers, dim, heads, block, batch, vocab, bias = WORKLOADS[workload]
        data = self.folder / f"{vocab}.bin"
        if not data.exists():
            tokens = random.Random(1).choices(range(vocab), k=DATA_TOKENS)
            data.write_bytes(struct.pack(f"<{len(tokens)}H", *tokens))

        def rows(steps, limit_s):
            run_dir = self.folder / f"{workload}-{dtype}"
            shutil.rmtree(run_dir, ignore_errors=True)
            command = [
                self.alpha, "train", f"--data={data}", "--tokenDtype=u16", f"--vocabSize={vocab}", "--backend=helios",
                f"--device={device['index']}", f"--dtype={dtype}", f"--layers={layers}", f"--dim={dim}",
                f"--heads={heads}", f"--block={block}", f"--batch={batch}", f"--bias={str(bias).lower()}",
                f"--steps={steps}", "--evalInterval=0", "--sampleInterval=0", "--postSamples=false",
                f"--logEvery={steps}", f"--runDir={run_dir}", "--keepCheckpoints=1",
            ]  # fmt: skip
            self.run(command, limit_s)
            return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]

        # The first start on a device tests its kernels and chooses among them.
        probe = statistics.median(row["ms_per_iter"] for row in rows(PROBE_STEPS, 120)[2:])
        steps = int(min(max(MEASURED_S * 1e3 / probe, FEWEST_STEPS), MOST_STEPS))
        measured = rows(steps, 60)
        steady = measured[int(WARM_UP_SHARE * len(measured)) :]
        times = sorted(row["ms_per_iter"] for row in steady)
        ms = statistics.median(times)
        flops = steady[0]["flops"]
        peak = device["gflops"]
        return {
            "ms": round(ms, 4),
            "quartiles_ms": [round(times[len(times) * part // 4], 4) for part in (1, 3)],
            "steps": len(times),
            "tok_s": round(batch * block / ms * 1e3, 1),
            "gflops": round(flops / ms / 1e6, 1),
            "share_of_f32_peak": round(flops / ms / 1e6 / peak, 4) if peak else None,
            "dispatches": steady[0].get("dispatches"),
            "first_loss": measured[0]["loss"],
            "last_loss": measured[-1]["loss"],
            "updates_left_out": sum("skipped" in row for row in measured),
        }

    def torch(self, workload):
        self.default_device_only()
        shape = [str(part).lower() for part in WORKLOADS[workload]]
        out = self.run([self.args.python, TORCH, *shape, str(MEASURED_S)], 90).stdout
        return json.loads(out.splitlines()[-1])

    def burn(self, workload):
        self.default_device_only()
        *shape, bias = WORKLOADS[workload]
        if bias:
            raise RuntimeError("left out: benches/peers/burn has no biases")
        out = self.run([BURN, *map(str, shape), str(MEASURED_S)], 150).stdout
        return json.loads(out.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=int, help="number, as `alpha devices` lists it")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--out", default="gpu-proof.json")
    parser.add_argument("--python", default=sys.executable, help="a Python with torch")
    proof = Proof(parser.parse_args())
    try:
        proof.stage("build", proof.build)
        device = proof.stage("device", proof.device)
        if device is not None:
            if device["kind"] == "software":
                print("A SOFTWARE DEVICE, NOT A GPU: the figures are not a card's", file=sys.stderr)
            proof.stage("kernels", proof.kernels)
            for dtype in DTYPES:
                for workload in WORKLOADS:
                    proof.stage(f"{workload} {dtype}", lambda: proof.train(workload, dtype, device))
            for workload in WORKLOADS:
                proof.stage(f"{workload} torch", lambda: proof.torch(workload))
            if BURN.exists():
                for workload in WORKLOADS:
                    proof.stage(f"{workload} burn", lambda: proof.burn(workload))
    finally:
        shutil.rmtree(proof.folder, ignore_errors=True)
    failed = [record["stage"] for record in proof.result["stages"] if not record["ok"]]
    print(f"wrote {proof.args.out}" + (f"; failed: {', '.join(failed)}" if failed else ""), file=sys.stderr)
    is_left_out = lambda record: "left out" in record.get("why", "")  # noqa: E731
    sys.exit(any(not record["ok"] and not is_left_out(record) for record in proof.result["stages"]))


if __name__ == "__main__":
    main()
