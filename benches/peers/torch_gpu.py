#!/usr/bin/env python3
"""A GPT's training step in PyTorch, eager, f32, on CUDA or MPS: what scripts/gpu-proof.sh measures beside alpha.

    torch_gpu.py LAYERS DIM HEADS BLOCK BATCH VOCAB BIAS SECONDS

The model and the step are alpha's: pre-norm layers with causal attention and gelu (tanh), a tied head, mean
cross-entropy, the gradient clipped to norm 1, AdamW. The host waits once in ten steps. Prints one JSON line.
"""
import json
import statistics
import sys
import time

try:
    import torch
    from torch import nn
    from torch.nn import functional as F
except ImportError:
    sys.exit(f"left out: `{sys.executable}` has no torch")

BLOCK_STEPS, WARM_UP_BLOCKS = 10, 2


class Layer(nn.Module):
    def __init__(self, dim, heads, bias):
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(dim, bias=bias), nn.LayerNorm(dim, bias=bias)
        self.attn, self.attn_proj = nn.Linear(dim, 3 * dim, bias=bias), nn.Linear(dim, dim, bias=bias)
        self.fc, self.mlp_proj = nn.Linear(dim, 4 * dim, bias=bias), nn.Linear(4 * dim, dim, bias=bias)

    def forward(self, x):
        batch, time_, dim = x.shape
        heads = self.attn(self.ln_1(x)).view(batch, time_, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(*heads, is_causal=True)
        x = x + self.attn_proj(attended.transpose(1, 2).reshape(batch, time_, dim))
        return x + self.mlp_proj(F.gelu(self.fc(self.ln_2(x)), approximate="tanh"))


class Gpt(nn.Module):
    def __init__(self, layers, dim, heads, block, vocab, bias):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocab, dim), nn.Embedding(block, dim)
        self.layers = nn.Sequential(*(Layer(dim, heads, bias) for _ in range(layers)))
        self.ln_f = nn.LayerNorm(dim, bias=bias)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def loss(self, tokens, targets):
        x = self.wte(tokens) + self.wpe.weight[: tokens.shape[1]]
        logits = F.linear(self.ln_f(self.layers(x)), self.wte.weight)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def main():
    layers, dim, heads, block, batch, vocab = map(int, sys.argv[1:7])
    bias, seconds = sys.argv[7] == "true", float(sys.argv[8])
    if torch.cuda.is_available():
        device, wait = "cuda", torch.cuda.synchronize
    elif torch.backends.mps.is_available():
        device, wait = "mps", torch.mps.synchronize
    else:
        sys.exit("left out: torch sees neither CUDA nor MPS")
    torch.manual_seed(1)
    model = Gpt(layers, dim, heads, block, vocab, bias).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1)
    times, end = [], None
    while end is None or time.monotonic() < end or len(times) < WARM_UP_BLOCKS + 3:
        start = time.perf_counter()
        for _ in range(BLOCK_STEPS):
            tokens = torch.randint(vocab, (batch, block + 1)).to(device)
            loss = model.loss(tokens[:, :-1], tokens[:, 1:])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        wait()
        times.append((time.perf_counter() - start) * 1e3 / BLOCK_STEPS)
        if len(times) == WARM_UP_BLOCKS:
            end = time.monotonic() + seconds
    ms = statistics.median(times[WARM_UP_BLOCKS:])
    name = torch.cuda.get_device_name() if device == "cuda" else device
    print(json.dumps({
        "device": name, "torch": torch.__version__, "ms": round(ms, 4), "tok_s": round(batch * block / ms * 1e3, 1),
        "steps": BLOCK_STEPS * (len(times) - WARM_UP_BLOCKS), "loss": round(loss.item(), 4),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
