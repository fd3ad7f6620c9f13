"""The turn protocol of `alpha loop` (docs/turns.md) for a PyTorch trainer that does not know of it."""
import atexit
import ctypes
import hashlib
import json
import os
import socket
import struct
import sys

import torch
from torch.optim import optimizer as optimizers

# Rows that are kept in memory where nobody waits for them: reading a loss waits for the device.
MOST_PENDING = 64
DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64"}


def refuse(why):
    """Ends the process: a trainer that cannot be watched must not look like one that was."""
    sys.stderr.write(f"alpha: {why}\n")
    sys.stderr.flush()
    os._exit(3)


def bytes_of(tensor):
    """The memory of a contiguous CPU tensor, not copied."""
    return (ctypes.c_char * (tensor.numel() * tensor.element_size())).from_address(tensor.data_ptr())


def on_cpu(tensor):
    return tensor.detach().to("cpu").contiguous()


def devices():
    """Functions that wait until a device in use has done what it was given."""
    waits = []
    if torch.cuda.is_initialized():
        waits.append(lambda: [torch.cuda.synchronize(device) for device in range(torch.cuda.device_count())])
    if torch.backends.mps.is_available():
        waits.append(torch.mps.synchronize)
    if hasattr(torch, "xpu") and torch.xpu.is_initialized():
        waits.append(torch.xpu.synchronize)
    return waits


class Step:
    """What was seen of a step."""

    def __init__(self):
        self.losses, self.inputs, self.clipped, self.unclipped, self.updates = [], [], [], [], 0


class Watch:
    """The steps of this process."""

    def __init__(self):
        self.socket, self.lines = None, None
        # Opened at the first step: processes that only import PyTorch, such as workers, have no record.
        self.record = None
        self.owner = os.getpid()
        self.steps = int(os.environ.get("ALPHA_STEPS") or 2**62)
        self.outermost, self.has_backward = None, False
        self.step, self.pending = None, []
        self.begun, self.written, self.left = 0, 0, 0
        self.updates_per_step, self.is_updating = None, False
        self.hash = b""
        self.waits = []

    # The trainer's side: what it does is noticed.

    def is_training(self, module):
        return module.training and torch.is_grad_enabled() and not self.is_updating and os.getpid() == self.owner

    def before_call(self, module, args, kwargs):
        """The outermost module is about to be called."""
        if not self.is_training(module):
            return
        if self.step is None or self.step.updates:
            self.end_step()
            self.begin_step()
        if self.begun <= self.steps:
            self.step.inputs.append(integers(args, kwargs))

    def before_backward(self, tensors, scales):
        self.has_backward = True
        if self.step is None or self.begun > self.steps:
            return
        tensors = [tensors] if isinstance(tensors, torch.Tensor) else list(tensors or ())
        for tensor in tensors:
            if tensor.numel() == 1:
                self.step.losses.append(scales.pop(id(tensor), tensor).detach())

    def before_update(self, optimizer, args, kwargs):
        self.is_updating = True
        if self.step is not None and not self.step.clipped and self.begun <= self.steps:
            grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            grads = [grad for grad in grads if not grad.is_sparse]
            if grads:
                with torch.no_grad():
                    norms = torch._foreach_norm(grads)
                    norms = torch.stack([norm.float().to(norms[0].device) for norm in norms])
                    self.step.unclipped.append(torch.linalg.vector_norm(norms))

    def after_update(self, optimizer, args, kwargs):
        self.is_updating = False
        self.updated()

    def updated(self):
        """An optimiser has stepped, or a scaler has left that step out."""
        if self.step is None:
            return
        self.step.updates += 1
        # The last step has no next one that would end it.
        if self.begun == self.steps and self.step.updates == self.updates_per_step:
            self.end_step()

    # The loop's side.

    def begin_step(self):
        if self.begun == 0:
            path = os.environ["ALPHA_METRICS"]
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
            self.record = open(path, "w", encoding="utf-8")
            if os.environ.get("ALPHA_TURNS"):
                self.connect()
        while self.lines is not None and self.left == 0 and self.begun < self.steps:
            self.obey()
        self.begun += 1
        self.step = Step()

    def end_step(self):
        """The step is over: its row is kept, and at the end of a turn all rows are written."""
        if self.step is None or self.begun > self.steps:
            return
        self.updates_per_step = self.step.updates
        self.pending.append(self.step)
        self.step = None
        self.left -= 1
        if self.lines is None:
            if len(self.pending) >= MOST_PENDING:
                self.write_rows()
        elif self.left == 0 or self.begun == self.steps:
            for wait in self.waits:
                wait()
            self.write_rows()
            self.say(f"done {self.begun}")

    def connect(self):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(os.environ["ALPHA_TURNS"])
        self.lines = self.socket.makefile("r")
        self.waits = devices()
        self.say("hello 1")

    def say(self, line):
        try:
            self.socket.sendall(f"{line}\n".encode())
        except OSError:
            self.is_gone()

    def obey(self):
        word, *number = self.lines.readline().split() or ["gone"]
        if word == "go":
            self.left = int(number[0])
        elif word == "save":
            self.save()
            self.say("saved")
        else:
            self.is_gone()

    def is_gone(self):
        os._exit(1)

    # What is written.

    def write_rows(self):
        if self.record is None:
            return
        for step in self.pending:
            self.written += 1
            norms = step.clipped or step.unclipped
            for tensor in (tensor for call in step.inputs for tensor in call):
                data = on_cpu(tensor)
                chained = hashlib.sha1(self.hash)
                chained.update(f"{data.dtype} {tuple(data.shape)}".encode())
                chained.update(bytes_of(data))
                self.hash = chained.digest()
            row = {
                "step": self.written,
                "loss": number(sum(float(loss) for loss in step.losses)) if step.losses else None,
                "gradNorm": number(sum(float(norm) ** 2 for norm in norms) ** 0.5) if norms else None,
                "tokens": sum(call[0].numel() for call in step.inputs if call),
            }
            if self.hash:
                row["data_hash"] = self.hash.hex()
            self.record.write(json.dumps(row) + "\n")
        self.pending.clear()
        self.record.flush()

    def save(self):
        """Writes the parameters of the outermost module, as safetensors."""
        name = os.environ.get("ALPHA_WEIGHTS")
        if not name:
            return
        name = name.replace("{step}", str(self.written))
        tensors, seen = {}, set()
        for key, parameter in self.outermost.named_parameters():
            key = key.replace("_orig_mod.", "").replace("_fsdp_wrapped_module.", "").removeprefix("module.")
            if parameter.dtype not in DTYPES:
                refuse(f"the parameter `{key}` is {parameter.dtype}; weights can be float64, float32, float16 or bfloat16")
            if id(parameter) not in seen:
                seen.add(id(parameter))
                tensors[key] = on_cpu(parameter)
        header, at = {}, 0
        for key, tensor in tensors.items():
            size = tensor.numel() * tensor.element_size()
            header[key] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, at + size]}
            at += size
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
        with open(name + ".new", "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for tensor in tensors.values():
                file.write(bytes_of(tensor))
        os.replace(name + ".new", name)

    def finish(self):
        """The process ends: the last step is over at the latest now."""
        if os.getpid() != self.owner:
            return
        if self.step is not None and self.step.updates:
            self.end_step()
        self.write_rows()
        if self.lines is not None and self.begun < self.steps:
            self.say(f"failed the trainer ended after {self.written} of {self.steps} steps with an update")
        if self.written == 0 and (self.outermost is not None or self.has_backward):
            sys.stderr.write(
                "alpha: no optimiser step was seen: a trainer whose whole step is compiled or captured needs the three "
                "lines of docs/turns.md\n"
            )


def number(value):
    return value if value - value == 0.0 else None


def integers(args, kwargs):
    """Copies of the integer tensors among the arguments: trainers use buffers again."""
    found = []
    for value in [*args, *kwargs.values()]:
        is_several = hasattr(value, "values") and not isinstance(value, torch.Tensor)
        for tensor in value.values() if is_several else [value]:
            if isinstance(tensor, torch.Tensor) and not tensor.is_floating_point() and tensor.dtype != torch.bool:
                found.append(tensor.detach().clone())
    return found


def watch():
    """Watches this process."""
    if not hasattr(optimizers, "register_optimizer_step_post_hook"):
        refuse(f"PyTorch {torch.__version__} has no hooks for all optimisers; 2.1 or newer is needed")
    watching = Watch()
    call = torch.nn.Module.__call__

    def first_call(self, *args, **kwargs):
        # A hook on all modules would be traced into compiled ones; one on the outermost is not.
        if watching.is_training(self):
            torch.nn.Module.__call__ = call
            watching.outermost = self
            self.register_forward_pre_hook(watching.before_call, with_kwargs=True)
        return call(self, *args, **kwargs)

    torch.nn.Module.__call__ = first_call
    optimizers.register_optimizer_step_pre_hook(watching.before_update)
    optimizers.register_optimizer_step_post_hook(watching.after_update)
    atexit.register(watching.finish)
    scales = {}

    backward = torch.autograd.backward

    def watched_backward(tensors, *args, **kwargs):
        watching.before_backward(tensors, scales)
        return backward(tensors, *args, **kwargs)

    torch.autograd.backward = watched_backward

    for place in [torch.nn.utils, torch.nn.utils.clip_grad]:
        clip = place.clip_grad_norm_

        def watched_clip(*args, clip=clip, **kwargs):
            norm = clip(*args, **kwargs)
            if watching.step is not None:
                watching.step.clipped.append(norm.detach())
            return norm

        place.clip_grad_norm_ = watched_clip

    scaler = torch.amp.GradScaler
    scale, step = scaler.scale, scaler.step

    def watched_scale(self, outputs):
        scaled = scale(self, outputs)
        if isinstance(outputs, torch.Tensor) and scaled is not outputs:
            scales[id(scaled)] = outputs
        return scaled

    def watched_step(self, optimizer, *args, **kwargs):
        before = watching.step.updates if watching.step is not None else 0
        result = step(self, optimizer, *args, **kwargs)
        # It leaves the update out where gradients are not finite: that is a step of the trainer all the same.
        if watching.step is not None and watching.step.updates == before:
            watching.updated()
        return result

    scaler.scale, scaler.step = watched_scale, watched_step
