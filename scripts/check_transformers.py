#!/usr/bin/env python3
"""Checks by hand, not in CI, that alpha and Hugging Face transformers read each other's folders.

    scripts/build.sh && python scripts/check_transformers.py      needs torch, transformers and safetensors

1. alpha trains a few small models (tied and not, with and without biases, other activations); transformers opens each
   checkpoint as it is, and its loss over the data is what `alpha eval` says.
2. transformers saves models (f32, f16, bf16, in several shards, without the head), and `alpha train --init` on each
   starts from the loss that transformers computes.
"""
import json
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

ROOT = Path(__file__).resolve().parent.parent
ALPHA = ROOT / ".bun-out" / "alpha"
DATA = ROOT / "data" / "abc-small.txt"
TOLERANCE = 1e-4


def alpha(*arguments):
    run = subprocess.run([ALPHA, *map(str, arguments)], capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"error: alpha {' '.join(map(str, arguments))}: exit code {run.returncode}\n{run.stderr}")
    return run.stdout


def mean_loss(model, tokens, block):
    """Mean cross-entropy over windows of `block` that do not overlap, the last one shorter."""
    total, count = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(tokens) - 1, block):
            window = torch.tensor(tokens[start : start + block + 1])
            logits = model(window[None, :-1]).logits[0].double()
            total += F.cross_entropy(logits, window[1:], reduction="sum").item()
            count += len(window) - 1
    return total / count


def compare(what, found, expected):
    error = abs(found - expected) / expected
    print(f"{'ok' if error <= TOLERANCE else 'FAILED'}: {what}: alpha {found:.6f}, transformers {expected:.6f} ({error:.1e})")
    return error <= TOLERANCE


def check_opened_by_transformers(folder):
    """Part 1."""
    text = folder / "text.txt"
    text.write_text(DATA.read_text()[:20_000])
    shapes = {
        "tied gelu, bpe": ["--tokenizer=bpe"],
        "untied relu, char": ["--tokenizer=char", "--tie=false", "--activation=relu"],
        "tied silu without biases, byte": ["--tokenizer=byte", "--bias=false", "--activation=silu", "--ffnDim=80"],
    }
    passed = True
    for number, (what, flags) in enumerate(shapes.items()):
        run_dir = folder / f"run-{number}"
        alpha(
            "train", f"--data={DATA}", "--backend=cpu", "--steps=20", "--batch=4", "--block=32", "--layers=2", "--dim=48",
            "--heads=3", "--lr=3e-3", "--sampleInterval=0", "--postSamples=false", f"--runDir={run_dir}", *flags,
        )  # fmt: skip
        checkpoint = run_dir / "checkpoint-20"
        found = json.loads(alpha("eval", f"--checkpoint={checkpoint}", f"--data={text}", "--backend=cpu", "--json"))["loss"]
        model, info = GPT2LMHeadModel.from_pretrained(checkpoint, output_loading_info=True)
        problems = {key: value for key, value in info.items() if value and "head" not in str(value)}
        if problems:
            print(f"FAILED: {what}: transformers complains: {problems}")
            passed = False
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(checkpoint / "tokenizer.json"))
        tokens = tokenizer.encode(text.read_text(), add_special_tokens=False)
        passed &= compare(f"opened: {what}", found, mean_loss(model.eval(), tokens, 32))
    return passed


def check_trains_from_transformers(folder):
    """Part 2."""
    torch.manual_seed(1)
    batch, block, vocab = 2, 24, 101
    tokens = torch.randint(0, vocab, (batch * block + 1,))
    data = folder / "tokens.bin"
    data.write_bytes(struct.pack("<256i", 20240520, 1, len(tokens), *[0] * 253) + struct.pack(f"<{len(tokens)}H", *tokens.tolist()))
    cases = {
        "f32": ({}, torch.float32, {}),
        "untied": (dict(tie_word_embeddings=False), torch.float32, {}),
        "f16": ({}, torch.float16, {}),
        "bf16": ({}, torch.bfloat16, {}),
        "several shards": ({}, torch.float32, dict(max_shard_size="20KB")),
        "n_inner and relu": (dict(n_inner=70, activation_function="relu"), torch.float32, {}),
    }
    passed = True
    for number, (what, (extra, dtype, saving)) in enumerate(cases.items()):
        ids = dict(bos_token_id=None, eos_token_id=None)
        shape = dict(n_layer=2, n_embd=32, n_head=4, n_positions=block, vocab_size=vocab)
        config = GPT2Config(**shape, **ids, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **extra)
        init = folder / f"init-{number}"
        GPT2LMHeadModel(config).to(dtype).save_pretrained(init, **saving)
        model = GPT2LMHeadModel.from_pretrained(init, dtype=torch.float32).eval()
        with torch.no_grad():
            logits = model(tokens[:-1].view(batch, block)).logits
        expected = F.cross_entropy(logits.flatten(0, 1).double(), tokens[1:]).item()
        run_dir = folder / f"from-{number}"
        alpha(
            "train", f"--init={init}", f"--data={data}", "--packed", "--backend=cpu", "--steps=1", f"--batch={batch}",
            "--evalInterval=100", "--sampleInterval=0", "--postSamples=false", f"--runDir={run_dir}",
        )  # fmt: skip
        found = json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[0])["loss"]
        passed &= compare(f"--init: {what}", found, expected)
    return passed


def main():
    if not ALPHA.is_file():
        sys.exit("error: `.bun-out/alpha` is not there\n\nhint: scripts/build.sh")
    with tempfile.TemporaryDirectory(prefix="alpha-transformers-") as folder:
        opened = check_opened_by_transformers(Path(folder))
        trains = check_trains_from_transformers(Path(folder))
    sys.exit(not (opened and trains))


if __name__ == "__main__":
    main()
