"""The adapter for PyTorch against trainers of every usual shape. Needs PyTorch: `scripts/pytorch.sh` installs it and runs this.

Each case is a trainer in a few lines that knows nothing of the loop. It prints the losses that it saw, to the last bit,
and a hash of its weights at the end. It runs alone and under the adapter, with this test as the loop.
"""
import hashlib
import json
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import textwrap
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
ADAPTER = ROOT / "crates/feedback/src/store/adapter/pytorch"
STEPS = 6

START = """
import hashlib, sys, torch
torch.manual_seed(1)
torch.set_num_threads(1)
model = torch.nn.Sequential(torch.nn.Embedding(50, 16), torch.nn.Linear(16, 50))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
batch = lambda: torch.randint(0, 50, (4, 9))
def loss_of(model, tokens):
    return torch.nn.functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
def said(loss):
    print("loss", float(loss).hex(), flush=True)
def say_weights(model):
    all = hashlib.sha256()
    for parameter in model.parameters():
        all.update(bytes(parameter.detach().contiguous().view(torch.uint8).flatten().tolist()))
    print("weights", all.hexdigest(), torch.rand(1).item().hex(), flush=True)
finished = say_weights
"""
USUAL = START + """
model.eval()
with torch.no_grad():
    loss_of(model, batch())
model.train()
for step in range(STEPS):
    loss = loss_of(model, batch())
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    said(loss)
finished(model)
"""


class Run:
    """A trainer that has ended."""

    def __init__(self, done, rows, weights):
        self.code, self.out, self.err, self.rows, self.weights = done[0], done[1], done[2], rows, weights

    def losses(self):
        return [float.fromhex(word) for word in re.findall(r"^loss (\S+)", self.out, re.M)]

    def end(self):
        return re.findall(r"^weights .*", self.out, re.M)


def run(script, turns=(), adapter=True, environment=(), start=(sys.executable,), steps=STEPS):
    """Runs a trainer. `turns` are what the loop asks: a number of steps, or `save`."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "train.py").write_text(textwrap.dedent(script).replace("STEPS", str(STEPS)))
        given = {**os.environ, **dict(environment)}
        if adapter:
            users = given.get("PYTHONPATH", "")
            given |= {
                "PYTHONPATH": f"{ADAPTER}:{users}" if users else str(ADAPTER),
                "PYTHONDONTWRITEBYTECODE": "1",
                "ALPHA_METRICS": str(folder / "run/metrics.jsonl"),
                "ALPHA_WEIGHTS": str(folder / "run/weights-{step}.safetensors"),
                "ALPHA_STEPS": str(steps),
            }
        server = socket.socket(socket.AF_UNIX)
        if turns:
            server.bind(str(folder / "s"))
            server.listen(4)
            server.settimeout(60)
            given["ALPHA_TURNS"] = str(folder / "s")
        process = subprocess.Popen([*start, "train.py"], cwd=folder, env=given, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if turns:
            answers = converse(server, turns, folder / "run/metrics.jsonl")
        out, err = process.communicate(timeout=120)
        metrics = folder / "run/metrics.jsonl"
        rows = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
        weights = {int(path.stem.split("-")[1]): path.read_bytes() for path in folder.glob("run/weights-*.safetensors")}
        found = Run((process.returncode, out, err), rows, weights)
        found.answers = answers if turns else []
        return found


def converse(server, turns, metrics):
    """The loop's side; checks that the rows of finished steps are there when a turn has ended."""
    connection, _ = server.accept()
    connection.settimeout(60)
    lines = connection.makefile("r")
    answers = [lines.readline().strip()]
    for turn in turns:
        connection.sendall(f"{turn if turn == 'save' else f'go {turn}'}\n".encode())
        answers.append(lines.readline().strip())
        if answers[-1].startswith("done "):
            assert len(metrics.read_text().splitlines()) == int(answers[-1].split()[1])
    return answers


class Adapter(unittest.TestCase):
    def check(self, script, **options):
        """Alone, recorded, and in turns: the same bits; returns the run in turns."""
        alone = run(script, adapter=False, **options)
        self.assertEqual(alone.code, 0, alone.err)
        recorded = run(script, **options)
        in_turns = run(script, turns=["save", 1, 2, "save", 2, 1], **options)
        for other in [recorded, in_turns]:
            self.assertEqual(other.code, 0, other.err)
            self.assertEqual((other.losses(), other.end()), (alone.losses(), alone.end()))
            self.assertEqual([row["step"] for row in other.rows], list(range(1, STEPS + 1)))
            self.assertTrue(all("data_hash" in row for row in other.rows))
        self.assertEqual(recorded.rows, in_turns.rows)
        self.assertEqual(in_turns.answers, ["hello 1", "saved", "done 1", "done 3", "saved", "done 5", "done 6"])
        self.assertEqual(sorted(in_turns.weights), [0, 3])
        return in_turns

    def test_a_usual_trainer(self):
        found = self.check(USUAL)
        self.assertEqual([row["loss"] for row in found.rows], found.losses())
        self.assertTrue(all(row["gradNorm"] > 0 and row["tokens"] == 32 for row in found.rows))
        self.assertEqual(len({row["data_hash"] for row in found.rows}), STEPS)

    def test_norms_are_known_without_clipping(self):
        clipped = self.check(USUAL.replace("model.parameters(), 1.0)", "model.parameters(), 1e9)"))
        unclipped = self.check(re.sub(r".*clip_grad_norm_.*\n", "", USUAL))
        for one, other in zip(clipped.rows, unclipped.rows):
            self.assertAlmostEqual(one["gradNorm"], other["gradNorm"], places=5)

    def test_weights_are_what_the_trainer_has(self):
        shown = USUAL.replace("    said(loss)", "    said(loss)\n    if step == 2: say_weights(model)")
        found = self.check(shown)
        data = found.weights[3]
        length = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8:8 + length])
        self.assertEqual(sorted(header), ["0.weight", "1.bias", "1.weight"])
        self.assertEqual(header["1.weight"], {"dtype": "F32", "shape": [50, 16], "data_offsets": [3200, 6400]})
        self.assertEqual(f"weights {hashlib.sha256(data[8 + length:]).hexdigest()}", found.end()[0].rsplit(" ", 1)[0])

    def test_accumulation_is_one_step(self):
        found = self.check(USUAL.replace(
            "    loss = loss_of(model, batch())\n    loss.backward()\n",
            "    for _ in range(3):\n        loss = loss_of(model, batch()) / 3\n        loss.backward()\n"))
        self.assertTrue(all(row["tokens"] == 96 and row["loss"] > 3 for row in found.rows))

    def test_several_optimisers_are_one_step(self):
        self.check(USUAL.replace("optimizer.step()", "optimizer.step(); other.step()").replace(
            "batch =", "other = torch.optim.SGD(model[1].parameters(), lr=1e-3)\nbatch ="))

    def test_an_optimiser_inside_backward_is_one_step(self):
        self.check(USUAL.replace("    optimizer.step()\n", "").replace("    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)\n", "").replace("batch =", """
each = {p: torch.optim.SGD([p], lr=1e-3) for p in model.parameters()}
for p in model.parameters():
    p.register_post_accumulate_grad_hook(lambda p: [each[p].step(), each[p].zero_grad()] and None)
batch ="""))

    def test_closures_are_one_step(self):
        self.check(START + """
optimizer = torch.optim.LBFGS(model.parameters(), lr=1e-2, max_iter=2)
for step in range(STEPS):
    tokens = batch()
    loss_of(model, tokens)
    def closure():
        optimizer.zero_grad()
        loss = loss_of(model, tokens)
        loss.backward()
        return loss
    said(optimizer.step(closure))
finished(model)
""")

    def test_a_step_that_the_scaler_leaves_out_is_a_step(self):
        found = self.check(USUAL.replace("optimizer.step()", "scaler.step(optimizer); scaler.update()").replace(
            "    loss.backward()\n",
            "    scaler.scale(loss).backward()\n    if step == 2: model[1].bias.grad[0] = float('inf')\n    scaler.unscale_(optimizer)\n").replace(
            "batch =", "scaler = torch.amp.GradScaler('cpu', init_scale=8.0)\nbatch ="))
        self.assertEqual([row["loss"] for row in found.rows], found.losses())
        self.assertEqual(found.rows[2]["gradNorm"], None)

    def test_a_compiled_model_is_not_cut(self):
        script = USUAL.replace("model.eval()", "plain = model; model = torch.compile(model, backend='aot_eager')\nmodel.eval()").replace(
            "\nfinished(model)", "\nfinished(plain)\nprint('graphs', dict(torch._dynamo.utils.counters['stats']), dict(torch._dynamo.utils.counters['graph_break']))")
        graphs = lambda found: re.findall("graphs.*", found.out)
        self.assertEqual(graphs(self.check(script)), graphs(run(script, adapter=False)))

    def test_steps_beyond_the_last_and_an_evaluation_between(self):
        script = USUAL.replace("range(STEPS)", "range(STEPS + 2)").replace("    said(loss)", """
    said(loss)
    with torch.no_grad():
        model.eval(); loss_of(model, batch()); model.train()""")
        self.check(script)

    def test_workers_of_a_data_loader(self):
        head, training = USUAL.split("model.eval()")
        for way in ["fork", "spawn"]:
            with self.subTest(way):
                main = f"""
loader = iter(torch.utils.data.DataLoader(Tokens(), batch_size=4, num_workers=2, multiprocessing_context="{way}"))
batch = lambda: next(loader)
model.eval()""" + training
                self.check(head + """
class Tokens(torch.utils.data.Dataset):
    def __len__(self): return 100
    def __getitem__(self, index): return torch.full((9,), index % 50)
if __name__ == "__main__":
""" + textwrap.indent(main, "    "))

    def test_a_process_that_imports_torch_in_the_middle_leaves_the_record_alone(self):
        script = USUAL.replace("    said(loss)", """
    said(loss)
    if step == 3:
        import subprocess
        print(subprocess.run([sys.executable, "-c", "import torch"], capture_output=True, check=True).stderr)""")
        found = self.check(script)
        self.assertIn("b''", found.out)

    def test_the_users_own_sitecustomize_runs(self):
        with tempfile.TemporaryDirectory() as users:
            Path(users, "sitecustomize.py").write_text("import builtins\nbuiltins.of_the_user = 'mine'\n")
            script = USUAL.replace("\nfinished(model)", "\nfinished(model)\nprint(of_the_user)")
            found = self.check(script, environment={"PYTHONPATH": users})
            self.assertIn("mine", found.out)

    def test_two_ranks_have_one_voice(self):
        script = USUAL.replace("batch =", """
torch.distributed.init_process_group("gloo")
model = torch.nn.parallel.DistributedDataParallel(model)
batch =""").replace("    said(loss)", "    said(loss) if torch.distributed.get_rank() == 0 else None").replace(
            "\nfinished(model)", "\nfinished(model) if torch.distributed.get_rank() == 0 else None\ntorch.distributed.destroy_process_group()")
        start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
        found = self.check(script, start=start, environment={"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"})
        self.assertEqual(len(found.weights), 2)

    def test_a_trainer_without_an_optimiser_is_told(self):
        script = START + """
for step in range(STEPS):
    loss = loss_of(model, batch())
    loss.backward()
    with torch.no_grad():
        for p in model.parameters():
            p -= 1e-2 * p.grad; p.grad = None
    said(loss)
finished(model)
"""
        found = run(script)
        self.assertEqual((found.code, found.rows), (0, []))
        self.assertIn("no optimiser step was seen", found.err)

    def test_a_run_that_is_too_short_is_told(self):
        found = run(USUAL.replace("range(STEPS)", "range(STEPS - 2)"), turns=[3, 3])
        self.assertEqual(found.answers[-1], "failed the trainer ended after 4 of 6 steps with an update")

    def test_a_loop_that_is_gone_ends_the_trainer(self):
        found = run(USUAL, turns=[1])
        self.assertEqual((found.code, len(found.rows)), (1, 1), found.err)

    def test_a_python_without_torch_is_left_alone(self):
        found = run("import sys\nprint('torch' in sys.modules, 'alpha_turns_torch' in sys.modules)")
        self.assertEqual((found.code, found.out), (0, "False False\n"), found.err)


if __name__ == "__main__":
    unittest.main()
