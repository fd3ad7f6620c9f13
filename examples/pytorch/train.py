"""A small GPT in PyTorch that predicts the next byte of a text.

    python3 train.py --steps=100 --seed=1

It knows nothing of any loop.
"""
import argparse
import time

import torch
from torch import nn
from torch.nn import functional

BLOCK, BATCH, LAYERS, HEADS, WIDTH, VOCAB = 64, 8, 3, 4, 96, 256


class Block(nn.Module):
    """Attention and a feed-forward layer, each behind a norm (Radford et al. 2019)."""

    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)])
        self.attention, self.projection = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.feed_forward = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x):
        batch, length, _ = x.shape
        parts = self.attention(self.norms[0](x)).split(WIDTH, dim=2)
        q, k, v = [part.view(batch, length, HEADS, WIDTH // HEADS).transpose(1, 2) for part in parts]
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.projection(mixed.transpose(1, 2).reshape(batch, length, WIDTH))
        return x + self.feed_forward(self.norms[1](x))


class Gpt(nn.Module):
    """The model; `forward` returns the mean loss of a batch."""

    def __init__(self):
        super().__init__()
        self.tokens, self.places = nn.Embedding(VOCAB, WIDTH), nn.Embedding(BLOCK, WIDTH)
        self.blocks = nn.ModuleList([Block() for _ in range(LAYERS)])
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCAB, bias=False)

    def forward(self, x, y):
        h = self.tokens(x) + self.places(torch.arange(x.shape[1]))
        for block in self.blocks:
            h = block(h)
        return functional.cross_entropy(self.head(self.norm(h)).view(-1, VOCAB), y.view(-1))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    with open("text.txt", "rb") as file:
        text = torch.frombuffer(bytearray(file.read()), dtype=torch.uint8).long()
    model = Gpt()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1, foreach=False)
    for step in range(1, arguments.steps + 1):
        begun = time.perf_counter()
        starts = torch.randint(len(text) - BLOCK - 1, (BATCH,))
        x = torch.stack([text[start:start + BLOCK] for start in starts])
        y = torch.stack([text[start + 1:start + 1 + BLOCK] for start in starts])
        loss = model(x, y)
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        ms = 1e3 * (time.perf_counter() - begun)
        print(f"step {step}/{arguments.steps} | loss {loss.item():.6f} | norm {norm:.4f} | {ms:.2f} ms")


if __name__ == "__main__":
    main()
