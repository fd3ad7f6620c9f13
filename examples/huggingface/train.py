"""A small GPT-2 with the Trainer of `transformers`, which predicts the next byte of a text.

    python3 train.py --max_steps=100 --seed=1

It knows nothing of any loop. Needs torch, transformers and accelerate.
"""
import argparse

import torch
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

BLOCK = 64


class Bytes(Dataset):
    """Pieces of a text."""

    def __init__(self, path):
        with open(path, "rb") as file:
            self.text = torch.frombuffer(bytearray(file.read()), dtype=torch.uint8).long()

    def __len__(self):
        return (len(self.text) - 1) // BLOCK

    def __getitem__(self, index):
        piece = self.text[index * BLOCK:(index + 1) * BLOCK]
        return {"input_ids": piece, "labels": piece}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--max_steps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    settings = TrainingArguments(
        output_dir="run", max_steps=arguments.max_steps, seed=arguments.seed, per_device_train_batch_size=8, learning_rate=1e-3,
        logging_steps=1, save_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True)
    torch.manual_seed(arguments.seed)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=256, n_positions=BLOCK, n_embd=96, n_layer=3, n_head=4, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0))
    Trainer(model=model, args=settings, train_dataset=Bytes("text.txt")).train()


if __name__ == "__main__":
    main()
