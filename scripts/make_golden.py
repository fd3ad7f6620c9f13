#!/usr/bin/env python3
"""Write the golden cases in tests/golden, computed by PyTorch in float64.

    python scripts/make_golden.py [CASE ...]      needs torch and safetensors; all cases without a name

A case is a folder:
  config.json           Hugging Face GPT-2 keys; what stock GPT-2 cannot hold has a `model_type` of its own
  model.safetensors     initial weights, f32, Hugging Face GPT-2 names without `transformer.`; linear weights [in, out]
  tokens.bin            the tokens, as llm.c writes them: 256 i32 (20240520, 1, count, 0 ...), then u16
  recipe.json           what the run is: the command line's flags, and for readers the same as numbers
  expected.safetensors  what PyTorch got:
      loss          f64 [steps]    mean over the micro-steps, before the update
      grad_norm     f64 [steps]    L2 norm of the mean gradient, before clipping
      grad.<name>   f32            mean gradient of the first step, before clipping
      final.<name>  f32            weights after the last update

Tokens are read in llm.c's order (see `micro_batches`). Both .safetensors files carry the SHA-256 of this script
in their metadata (`script_sha256`); scripts/tidy.py compares, so a change here means writing the cases again.
The gradient of the key bias (the middle third of `attn.c_attn.bias`) is zero by analysis: here it is rounding
noise of f64, which AdamW blows up into small updates. Compare it by its size, never by its values.
"""
import hashlib
import json
import math
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden"


@dataclass(frozen=True)
class Case:
    """One model and one run. `positions` is the model's context, `block` the run's."""

    name: str
    layers: int
    dim: int
    heads: int
    vocab: int
    positions: int
    block: int
    batch: int
    accum_steps: int
    steps: int
    stream_len: int
    activation: str
    ffn_dim: int
    is_tied: bool
    has_bias: bool
    lr: float
    beta2: float
    weight_decay: float
    grad_clip: float
    seed: int


CASES = [
    # Plain GPT-2; the clip bites in the first steps.
    Case("tied-gelu", 2, 24, 3, 61, 16, 16, 3, 1, 10, 481, "gelu", 96, True, True, 1e-3, 0.95, 0.1, 1.0, 1),
    # Accumulation; the clip always bites; the tokens wrap around in the middle of the run.
    Case("untied-relu-accum", 1, 20, 5, 83, 11, 11, 2, 2, 8, 200, "relu", 80, False, True, 2e-3, 0.95, 0.0, 0.25, 2),
    # No biases, no clip, a context shorter than the model's, strong decay, a hidden width that is not 4·dim.
    Case("silu-no-bias", 2, 26, 2, 37, 12, 9, 4, 1, 10, 361, "silu", 65, True, False, 1e-3, 0.99, 0.3, 0.0, 3),
    # One head, one sequence, three micro-steps.
    Case("swiglu-single", 2, 17, 1, 127, 13, 13, 1, 3, 9, 300, "swiglu", 23, False, True, 3e-3, 0.95, 0.05, 1.0, 4),
]


def initial_weights(case):
    """GPT-2's initialisation, but with biases and norms off their usual zeros and ones, so that each one matters."""
    generator = torch.Generator().manual_seed(case.seed)

    def normal(*shape, std, mean=0.0):
        return torch.randn(*shape, generator=generator, dtype=torch.float64) * std + mean

    weights, residual_std = {}, 0.1 / math.sqrt(2 * case.layers)

    def norm(prefix):
        weights[prefix + ".weight"] = normal(case.dim, std=0.1, mean=1.0)
        weights[prefix + ".bias"] = normal(case.dim, std=0.05)

    def linear(prefix, rows, cols, std):
        weights[prefix + ".weight"] = normal(rows, cols, std=std)
        weights[prefix + ".bias"] = normal(cols, std=0.05)

    weights["wte.weight"] = normal(case.vocab, case.dim, std=0.1)
    weights["wpe.weight"] = normal(case.positions, case.dim, std=0.1)
    for layer in range(case.layers):
        prefix = f"h.{layer}."
        norm(prefix + "ln_1")
        linear(prefix + "attn.c_attn", case.dim, 3 * case.dim, 0.1)
        linear(prefix + "attn.c_proj", case.dim, case.dim, residual_std)
        norm(prefix + "ln_2")
        linear(prefix + "mlp.c_fc", case.dim, case.ffn_dim * (2 if case.activation == "swiglu" else 1), 0.1)
        linear(prefix + "mlp.c_proj", case.ffn_dim, case.dim, residual_std)
    norm("ln_f")
    if not case.is_tied:
        weights["lm_head.weight"] = normal(case.vocab, case.dim, std=0.1)
    if not case.has_bias:
        for name, weight in weights.items():
            if name.endswith(".bias"):
                weight.zero_()
    return {name: weight.float() for name, weight in weights.items()}


def feed_forward(case, hidden):
    """The activation between the two projections; swiglu's columns are gate, then up."""
    if case.activation == "swiglu":
        gate, up = hidden.chunk(2, dim=-1)
        return F.silu(gate) * up
    return {"gelu": lambda x: F.gelu(x, approximate="tanh"), "silu": F.silu, "relu": F.relu}[case.activation](hidden)


def forward(case, weights, inputs, targets):
    """Mean cross-entropy of `inputs` [b, t] against `targets` [b, t], pre-norm, attention spelt out."""
    batch, block = inputs.shape
    head_dim = case.dim // case.heads
    mask = torch.full((block, block), float("-inf"), dtype=torch.float64).triu(1)

    def norm(x, prefix):
        return F.layer_norm(x, (case.dim,), weights[prefix + ".weight"], weights[prefix + ".bias"], 1e-5)

    def linear(x, prefix):
        return x @ weights[prefix + ".weight"] + weights[prefix + ".bias"]

    x = weights["wte.weight"][inputs] + weights["wpe.weight"][:block]
    for layer in range(case.layers):
        prefix = f"h.{layer}."
        qkv = linear(norm(x, prefix + "ln_1"), prefix + "attn.c_attn").split(case.dim, dim=-1)
        query, key, value = (y.view(batch, block, case.heads, head_dim).transpose(1, 2) for y in qkv)
        attention = (query @ key.transpose(-1, -2) / math.sqrt(head_dim) + mask).softmax(dim=-1) @ value
        x = x + linear(attention.transpose(1, 2).reshape(batch, block, case.dim), prefix + "attn.c_proj")
        hidden = feed_forward(case, linear(norm(x, prefix + "ln_2"), prefix + "mlp.c_fc"))
        x = x + linear(hidden, prefix + "mlp.c_proj")
    head = weights["wte.weight" if case.is_tied else "lm_head.weight"]
    return F.cross_entropy((norm(x, "ln_f") @ head.T).flatten(0, 1), targets.flatten())


def micro_batches(case, stream):
    """llm.c's order: each micro-step reads the next B·T+1 tokens and advances by B·T; one that would pass the end
    starts again at token 0."""
    position, advance = 0, case.batch * case.block
    while True:
        if position + advance + 1 > len(stream):
            position = 0
        tokens = stream[position : position + advance + 1]
        yield tokens[:-1].view(case.batch, case.block), tokens[1:].view(case.batch, case.block)
        position += advance


def train(case, initial, stream):
    """Runs the case; returns the content of expected.safetensors."""
    weights = {name: weight.double() for name, weight in initial.items()}
    weights["wpe.weight"] = weights["wpe.weight"][: case.block].clone()
    trained = {name: w for name, w in weights.items() if case.has_bias or not name.endswith(".bias")}
    for weight in trained.values():
        weight.requires_grad_()
    groups = [
        dict(params=[w for w in trained.values() if w.dim() == 2], weight_decay=case.weight_decay),
        dict(params=[w for w in trained.values() if w.dim() == 1], weight_decay=0.0),
    ]
    optimizer = torch.optim.AdamW(groups, lr=case.lr, betas=(0.9, case.beta2), eps=1e-8)
    batches, losses, norms, expected = micro_batches(case, stream), [], [], {}
    for step in range(case.steps):
        optimizer.zero_grad()
        loss = 0.0
        for _ in range(case.accum_steps):
            micro_loss = forward(case, weights, *next(batches)) / case.accum_steps
            micro_loss.backward()
            loss += micro_loss.item()
        norm = math.sqrt(sum(w.grad.square().sum().item() for w in trained.values()))
        if step == 0:
            expected |= {"grad." + name: w.grad.float() for name, w in trained.items()}
        if case.grad_clip > 0:
            for weight in trained.values():
                weight.grad *= min(1.0, case.grad_clip / (norm + 1e-6))
        optimizer.step()
        losses.append(loss)
        norms.append(norm)
    expected |= {"final." + name: w.detach().float() for name, w in weights.items()}
    expected["loss"] = torch.tensor(losses, dtype=torch.float64)
    expected["grad_norm"] = torch.tensor(norms, dtype=torch.float64)
    return expected


def config(case):
    """config.json."""
    is_gpt2 = case.activation != "swiglu"
    keys = dict(
        model_type="gpt2" if is_gpt2 else "alpha_gpt",
        architectures=["GPT2LMHeadModel"] if is_gpt2 else ["AlphaGPTLMHeadModel"],
        n_layer=case.layers,
        n_embd=case.dim,
        n_head=case.heads,
        n_positions=case.positions,
        n_ctx=case.positions,
        n_inner=None if case.ffn_dim == 4 * case.dim else case.ffn_dim,
        vocab_size=case.vocab,
        layer_norm_epsilon=1e-5,
        activation_function={"gelu": "gelu_new"}.get(case.activation, case.activation),
        tie_word_embeddings=case.is_tied,
        attn_pdrop=0.0,
        embd_pdrop=0.0,
        resid_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=None,
    )
    return keys if case.has_bias else keys | dict(alpha_bias=False)


def flags(case):
    """The command line of the run, but for --data, --init, --backend and --runDir."""
    return [
        "--packed",
        f"--steps={case.steps}",
        f"--batch={case.batch}",
        f"--accumSteps={case.accum_steps}",
        f"--block={case.block}",
        f"--lr={case.lr}",
        "--schedule=constant",
        "--warmupIters=-1",
        "--beta1=0.9",
        f"--beta2={case.beta2}",
        "--eps=1e-8",
        f"--weightDecay={case.weight_decay}",
        f"--gradClip={case.grad_clip}",
        "--evalInterval=1000",
        "--sampleInterval=0",
        "--postSamples=false",
    ]


def write(case):
    """Computes a case and writes its folder."""
    folder = GOLDEN / case.name
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {"format": "pt", "script_sha256": hashlib.sha256(Path(__file__).read_bytes()).hexdigest()}
    generator = torch.Generator().manual_seed(1000 + case.seed)
    stream = torch.randint(0, case.vocab, (case.stream_len,), generator=generator)
    initial = initial_weights(case)
    expected = train(case, initial, stream)
    recipe = dict(
        flags=flags(case), steps=case.steps, batch=case.batch, accum_steps=case.accum_steps, block=case.block,
        optimizer="adamw", lr=case.lr, schedule="constant", beta1=0.9, beta2=case.beta2, eps=1e-8,
        weight_decay=case.weight_decay, grad_clip=case.grad_clip,
        weight_decay_applies_to="tensors with two dimensions, embeddings included",
    )  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config(case), indent=1) + "\n")
    (folder / "recipe.json").write_text(json.dumps(recipe, indent=1) + "\n")
    header = [20240520, 1, len(stream)] + [0] * 253
    (folder / "tokens.bin").write_bytes(
        struct.pack("<256i", *header) + struct.pack(f"<{len(stream)}H", *stream.tolist())
    )
    save_file({name: w.contiguous() for name, w in initial.items()}, folder / "model.safetensors", metadata)
    save_file({name: w.contiguous() for name, w in expected.items()}, folder / "expected.safetensors", metadata)
    for path in folder.iterdir():
        path.chmod(0o644)
    size = sum(path.stat().st_size for path in folder.iterdir())
    losses, norms = expected["loss"], expected["grad_norm"]
    print(f"{case.name}: loss {losses[0]:.4f} -> {losses[-1]:.4f}, norms {norms.min():.3f}-{norms.max():.3f}, {size} bytes")


def main():
    names = sys.argv[1:] or [case.name for case in CASES]
    unknown = set(names) - {case.name for case in CASES}
    if unknown:
        sys.exit(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(case.name for case in CASES)}")
    for case in CASES:
        if case.name in names:
            write(case)


if __name__ == "__main__":
    main()
