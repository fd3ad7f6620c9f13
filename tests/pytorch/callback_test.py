"""`python/alpha_loop`: `Turns` with PyTorch's tensors, and the callbacks for the Trainer of transformers and for Lightning.
`scripts/pytorch.sh` installs what this needs and runs it.
"""
import json
import re
import unittest

from adapter_test import ROOT, STEPS, USUAL, run

PATH = {"PYTHONPATH": str(ROOT / "python"), "PYTHONDONTWRITEBYTECODE": "1"}
TURNS = [1, 2, 2, 1]

BY_HAND = USUAL.replace("for step in range(STEPS):", "from alpha_loop import Turns\nturns = Turns()\nfor step in range(STEPS):\n    turns.before_step()").replace(
    "    loss = loss_of(model, batch())\n    loss.backward()\n    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)",
    "    tokens = batch()\n    loss = loss_of(model, tokens)\n    loss.backward()\n    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)").replace(
    "    said(loss)", "    said(loss)\n    turns.after_step(loss, norm, tokens)")

HUGGINGFACE = """
import json, torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments
CALLBACK
class Said(TrainerCallback):
    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs:
            print("logged", json.dumps({"loss": float(logs["loss"]), "grad_norm": float(logs["grad_norm"])}))
torch.manual_seed(1)
data = [{"input_ids": torch.randint(0, 50, (8,)), "labels": torch.randint(0, 50, (8,))} for _ in range(64)]
model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=8, n_embd=16, n_layer=1, n_head=2))
settings = TrainingArguments(output_dir="run/out", max_steps=STEPS, per_device_train_batch_size=4, gradient_accumulation_steps=ACCUMULATION,
                             logging_steps=EVERY, save_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True)
Trainer(model=model, args=settings, train_dataset=data, callbacks=CALLBACKS).train()
print("weights", sum(p.double().sum().item() for p in model.parameters()).hex())
"""

LIGHTNING = """
import torch, lightning
CALLBACK
torch.manual_seed(1)
class Model(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Embedding(50, 16), torch.nn.Linear(16, 50))
    def training_step(self, batch, index):
        loss = torch.nn.functional.cross_entropy(self.layers(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        print("loss", loss.item().hex())
        return loss
    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2)
data = torch.utils.data.DataLoader(torch.randint(0, 50, (64, 9)), batch_size=4)
model = Model()
lightning.Trainer(max_steps=STEPS, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, gradient_clip_val=0.1,
                  accumulate_grad_batches=ACCUMULATION, callbacks=CALLBACKS).fit(model, data)
print("weights", sum(p.double().sum().item() for p in model.parameters()).hex())
"""


def filled(script, callback, accumulation=1, every=1):
    values = {"CALLBACKS": "[LoopCallback(), *([Said()] if 'Said' in globals() else [])]" if callback else "[Said()] if 'Said' in globals() else []",
              "CALLBACK": callback, "ACCUMULATION": str(accumulation), "EVERY": str(every)}
    for name, value in values.items():
        script = re.sub(rf"\b{name}\b", value, script)
    return script


class Callbacks(unittest.TestCase):
    def check(self, script, with_callback):
        """Alone, recorded and in turns the training is the same; returns the run in turns."""
        alone = run(script, adapter=False, environment=PATH)
        self.assertEqual(alone.code, 0, alone.err)
        recorded = run(with_callback, adapter=False, environment=PATH)
        in_turns = run(with_callback, turns=TURNS, adapter=False, environment=PATH)
        for other in [recorded, in_turns]:
            self.assertEqual(other.code, 0, other.err)
            self.assertEqual((other.losses(), other.end()), (alone.losses(), alone.end()))
            self.assertEqual([row["step"] for row in other.rows], list(range(1, STEPS + 1)))
            self.assertEqual(len({row["data_hash"] for row in other.rows}), STEPS)
        self.assertEqual(recorded.rows, in_turns.rows)
        self.assertEqual(in_turns.answers, ["hello 1", "done 1", "done 3", "done 5", "done 6"])
        return in_turns

    def test_three_lines(self):
        found = self.check(USUAL, BY_HAND)
        self.assertEqual([row["loss"] for row in found.rows], found.losses())
        # The adapter sees the same.
        adapter = run(USUAL)
        for one, other in zip(found.rows, adapter.rows):
            self.assertEqual((one["loss"], one["gradNorm"]), (other["loss"], other["gradNorm"]))

    def test_the_trainer_of_transformers(self):
        callback = "from alpha_loop.huggingface import LoopCallback"
        for accumulation in [1, 2]:
            found = self.check(filled(HUGGINGFACE, "", accumulation), filled(HUGGINGFACE, callback, accumulation))
            logged = [json.loads(line) for line in re.findall(r"^logged (.*)", found.out, re.M)]
            for row, log in zip(found.rows, logged, strict=True):
                self.assertAlmostEqual(row["loss"], log["loss"], places=3)
                self.assertEqual(row["gradNorm"], log["grad_norm"])

    def test_rare_logs_are_refused(self):
        found = run(filled(HUGGINGFACE, "from alpha_loop.huggingface import LoopCallback", every=10), adapter=False, environment=PATH)
        self.assertNotEqual(found.code, 0)
        self.assertIn("logging_steps=1", found.err)

    def test_lightning(self):
        callback = "from alpha_loop.lightning import LoopCallback"
        for accumulation in [1, 2]:
            found = self.check(filled(LIGHTNING, "", accumulation), filled(LIGHTNING, callback, accumulation))
            losses = found.losses()
            means = [sum(losses[at:at + accumulation]) / accumulation for at in range(0, len(losses), accumulation)]
            for row, mean in zip(found.rows, means, strict=True):
                self.assertAlmostEqual(row["loss"], mean, places=5)
                self.assertGreater(row["gradNorm"], 0.1, "the norm before clipping")


if __name__ == "__main__":
    unittest.main()
