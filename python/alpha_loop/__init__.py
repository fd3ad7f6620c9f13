"""Lets `alpha loop` run a trainer in turns with another version of it (docs/turns.md in alpha's repository).

    turns = Turns()                              # after set-up, before the first step
    turns.before_step()                          # first in each step
    turns.after_step(loss, grad_norm, tokens)    # last in each step

Without a loop every step goes through at once, and the rows are written all the same.
"""
import atexit
import collections.abc
import hashlib
import json
import math
import os
import socket
import sys

__all__ = ["Turns"]

# Steps whose numbers are kept where nobody waits for them: reading a loss waits for the device.
MOST_PENDING = 64


def wait_for_devices():
    """Waits until the devices of PyTorch and MLX have done what they were given; JAX's numbers are waited for one by one."""
    torch = sys.modules.get("torch")
    if torch is not None:
        if torch.cuda.is_initialized():
            # A device that was never used has nothing to wait for, and would get a context.
            for device in range(torch.cuda.device_count()):
                if device == torch.cuda.current_device() or torch.cuda.memory_reserved(device) > 0:
                    torch.cuda.synchronize(device)
        if torch.backends.mps.is_available():
            torch.mps.synchronize()
    mlx = sys.modules.get("mlx.core")
    if mlx is not None:
        mlx.synchronize()


def bytes_of(tokens):
    """The memory of a buffer, of a tensor or array of any library, or of several in a tuple, a list or the values of a dict."""
    if isinstance(tokens, collections.abc.Mapping):
        tokens = [tokens[name] for name in sorted(tokens)]
    if isinstance(tokens, (tuple, list)):
        return b"".join(bytes_of(part) for part in tokens)
    if hasattr(tokens, "detach"):
        tokens = tokens.detach().to("cpu").contiguous().numpy()
    try:
        return memoryview(tokens).tobytes()
    except TypeError:
        import numpy
        return numpy.asarray(tokens).tobytes()


def kept(value):
    """A copy of tensors and arrays, whose memory the trainer may use again."""
    if isinstance(value, collections.abc.Mapping):
        return {name: kept(value[name]) for name in value}
    if isinstance(value, (tuple, list)):
        return [kept(part) for part in value]
    if hasattr(value, "detach"):
        return value.detach().clone()
    return value.copy() if hasattr(value, "dtype") and hasattr(value, "copy") else value


def number(value):
    """A float, or None where it is not finite."""
    value = float(value)
    return value if math.isfinite(value) else None


class Turns:
    """The steps of this process.

    `metrics` is the file of the rows, `workload.metrics` of `loop.toml`. `save`, if it is given, is called with the number of steps
    done, and writes the weights as safetensors to where `workload.weights` says.
    """

    def __init__(self, metrics="run/metrics.jsonl", save=None):
        os.makedirs(os.path.dirname(metrics) or ".", exist_ok=True)
        self._rows = open(metrics, "w", encoding="utf-8")
        self._save, self._socket, self._lines = save, None, None
        self._pending, self._hash = [], b""
        self._done, self._written, self._left = 0, 0, 0
        path = os.environ.get("ALPHA_TURNS")
        if path:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.connect(path)
            self._lines = self._socket.makefile("r", encoding="ascii")
            self._say("hello 1")
        atexit.register(self.close)

    def before_step(self):
        """Waits until the loop lets the next step through."""
        while self._lines is not None and self._left == 0:
            word, *argument = self._lines.readline().split() or ["gone"]
            if word == "go" and argument:
                self._left = int(argument[0])
            elif word == "save" and self._save is not None:
                self._save(self._done)
                wait_for_devices()
                self._say("saved")
            elif word == "gone":
                self._lines = None
                raise SystemExit("alpha loop is gone")
            else:
                self._say(f"failed cannot {word}: Turns was made without `save`" if word == "save" else f"failed unknown line {word}")
                self._lines = None
                raise SystemExit(f"alpha loop asked for `{word}`, which this trainer cannot do")

    def after_step(self, loss, grad_norm, tokens):
        """Records a step: its loss, the mean over micro-batches; the norm of its gradient before clipping; what it consumed."""
        self._pending.append((kept(loss), kept(grad_norm), kept(tokens)))
        self._done += 1
        if self._lines is not None:
            self._left -= 1
            if self._left == 0:
                wait_for_devices()
                self._write()
                self._say(f"done {self._done}")
        elif len(self._pending) == MOST_PENDING:
            self._write()

    def close(self):
        """Writes the rows that are left, and ends a turn that was longer than the training; called at the end of the program."""
        if self._rows.closed:
            return
        self._write()
        self._rows.close()
        if self._lines is not None and self._left > 0 and self._done > 0:
            wait_for_devices()
            self._say(f"done {self._done}")
        self._lines = None

    def _write(self):
        for loss, grad_norm, tokens in self._pending:
            self._written += 1
            consumed = bytes_of(tokens)
            if not consumed:
                raise ValueError(f"step {self._written} consumed no tokens: after_step gets what the step was trained on")
            self._hash = hashlib.blake2b(self._hash + consumed, digest_size=16).digest()
            row = {"step": self._written, "loss": number(loss), "gradNorm": number(grad_norm), "data_hash": self._hash.hex()}
            self._rows.write(json.dumps(row) + "\n")
        self._pending.clear()
        self._rows.flush()

    def _say(self, line):
        try:
            self._socket.sendall(f"{line}\n".encode())
        except OSError:
            self._lines = None
            raise SystemExit("alpha loop is gone") from None
