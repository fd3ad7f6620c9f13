#!/usr/bin/env python3
"""Measures the loop on nanoGPT as it is, through the adapter for PyTorch.

    benches/loop/pytorch.py --repository=PATH broken             broken trainers, refused by what? and harmless rewrites
    benches/loop/pytorch.py --repository=PATH identical [--count=12]    the same code on both sides, four minutes each

PATH is a clone of nanoGPT with prepared data (`data/shakespeare_char/train.bin` …); PyTorch is in the Python of PATH. Each
appends rows to perf/loop-pytorch.jsonl and goes on where it stopped. Nothing else should run on the machine meanwhile. Needs
`scripts/build.sh` first, with the sources of HEAD.
"""
import argparse
import collections
import shutil
import subprocess
import tempfile
from pathlib import Path

import scratch
from scratch import Results, git, loop

TRAIN, MODEL = "train.py", "model.py"
STEP, CLIP = "    scaler.step(optimizer)", "        torch.nn.utils.clip_grad_norm_(model.parameters(), grad_clip)"
NEXT_BATCH = "        X, Y = get_batch('train')"

# Name, file, old, new.
BROKEN = [
    ("learning rate doubled", TRAIN, "param_group['lr'] = lr", "param_group['lr'] = 2 * lr"),
    ("no clipping", TRAIN, CLIP, "        pass"),
    ("half a batch", TRAIN, "(batch_size,))", "(batch_size // 2,))"),
    ("a step left out now and then", TRAIN, STEP, "    if iter_num % 7 or iter_num == 0: scaler.step(optimizer)"),
    ("one batch, repeated", TRAIN, NEXT_BATCH, "        pass"),
    ("gradients of the embedding dropped", TRAIN, STEP, "    raw_model.transformer.wpe.weight.grad.zero_()\n" + STEP),
    ("no weight decay", MODEL, "{'params': decay_params, 'weight_decay': weight_decay}", "{'params': decay_params, 'weight_decay': 0.0}"),
    ("targets two tokens ahead", TRAIN, "i+1:i+1+block_size]", "i+2:i+2+block_size]"),
    ("attention sees the future", MODEL, "is_causal=True", "is_causal=False"),
    ("a layer left out", MODEL, "for block in self.transformer.h:", "for block in self.transformer.h[1:]:"),
    ("gradients kept from the step before", TRAIN, "    optimizer.zero_grad(set_to_none=True)", "    iter_num % 5 == 4 or optimizer.zero_grad(set_to_none=True)"),
    ("first moment off", TRAIN, "beta1 = 0.9", "beta1 = 0.0"),
]
HARMLESS = [
    ("another name", TRAIN, "    t1 = time.time()\n    dt = t1 - t0\n    t0 = t1", "    now = time.time()\n    dt = now - t0\n    t0 = now"),
    ("the same product, written out", MODEL, "q, k, v  = self.c_attn(x).split(self.n_embd, dim=2)", "q, k, v = self.c_attn(x).chunk(3, dim=2)"),
    ("a quicker log line", TRAIN, "running_mfu*100:.2f}%", "running_mfu*100:.1f}%"),
]


def prepare(repository):
    """A clone with the `loop.toml` that `init` writes; returns its commit."""
    scratch.SCRATCH = Path(tempfile.gettempdir()) / "alpha-loop-scratch-nanogpt"
    folder = scratch.SCRATCH
    if not (folder / "loop.toml").exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run(["git", "clone", "-q", repository, folder], check=True)
        git("config", "user.name", "experiment")
        git("config", "user.email", "experiment@localhost")
        for path in Path(repository, "data/shakespeare_char").iterdir():
            if path.suffix in [".bin", ".pkl"]:
                shutil.copy(path, folder / "data/shakespeare_char")
        made = loop("init")
        assert made.get("probed"), made
        git("add", "loop.toml")
        git("commit", "-q", "-m", "loop.toml")
    git("checkout", "-q", "--force", "HEAD")
    (folder / ".git/alpha-loop/cycle.json").unlink(missing_ok=True)
    return git("rev-parse", "HEAD")


def edited(results, kind, edits):
    loop("start", "an edit", "--parity=t1")
    for name, path, old, new in edits:
        if results.rows(experiment=kind, name=name):
            continue
        git("checkout", "-q", "--force", "HEAD")
        file = scratch.SCRATCH / path
        text = file.read_text()
        assert old in text, f"`{path}` no longer has the place to edit: {old!r}"
        file.write_text(text.replace(old, new))
        found = loop("compare", "--budget=2m")
        results.append(experiment=kind, name=name, verdict=found.get("verdict"), exit_code=found["exit_code"], wall_s=found["wall_s"],
                       reason=found.get("reason") or found.get("error"))
    git("checkout", "-q", "--force", "HEAD")
    rows = results.rows(experiment=kind)
    print(f"{kind}:", dict(collections.Counter(row["verdict"] or "failed" for row in rows)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=["broken", "identical"])
    parser.add_argument("--repository", required=True, type=Path)
    parser.add_argument("--count", type=int, default=12)
    arguments = parser.parse_args()
    results = Results("pytorch")
    prepare(arguments.repository)
    if arguments.experiment == "broken":
        edited(results, "broken", BROKEN)
        edited(results, "harmless", HARMLESS)
        return
    for number in range(arguments.count):
        if not results.rows(experiment="identical", number=number):
            found = loop("compare", "--identical", "--budget=4m")
            results.append(experiment="identical", number=number, verdict=found.get("verdict"), exit_code=found["exit_code"],
                           reason=found.get("reason"), pairs=found.get("pairs"), pair_sd_pct=found.get("pair_sd_pct"),
                           seconds=found.get("seconds"), wall_s=found["wall_s"])
    rows = results.rows(experiment="identical")
    print("identical:", dict(collections.Counter(row["verdict"] for row in rows)))


if __name__ == "__main__":
    main()
