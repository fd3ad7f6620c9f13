"""A callback for Lightning:

    trainer = Trainer(..., callbacks=[LoopCallback()])

The loss is the one that `training_step` returns, the norm that of the gradients before clipping.
"""
import collections.abc

import torch

try:
    from lightning.pytorch.callbacks import Callback
except ImportError:
    from pytorch_lightning.callbacks import Callback

from . import Turns

__all__ = ["LoopCallback"]


def tensors_of(batch):
    """The tensors of a batch, in order."""
    if isinstance(batch, torch.Tensor):
        return [batch.detach()]
    if isinstance(batch, collections.abc.Mapping):
        batch = [batch[name] for name in sorted(batch)]
    return [tensor for part in batch for tensor in tensors_of(part)] if isinstance(batch, (list, tuple)) else []


class LoopCallback(Callback):
    """Takes turns. `metrics` and `save` are those of `Turns`."""

    def __init__(self, metrics="run/metrics.jsonl", save=None):
        self._metrics, self._save = metrics, save
        self._turns, self._is_within = None, False
        self._losses, self._tokens, self._norm = [], [], None

    def on_train_start(self, trainer, pl_module):
        """Set-up is over."""
        self._turns = Turns(self._metrics, self._save)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        """Waits for its turn, before the first micro-batch of a step."""
        if not self._is_within:
            self._turns.before_step()
            self._is_within = True
        self._tokens.extend(tensors_of(batch))

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        """Gradients are whole and not clipped yet."""
        grads = [p.grad.detach() for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norms = [torch.linalg.vector_norm(grad.float()) for grad in grads]
        norm = torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())
        self._norm = norm if self._norm is None else torch.hypot(self._norm, norm)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        """A step is over when an optimiser has stepped."""
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        self._losses.append(loss.detach().clone())
        if self._norm is None:
            return
        # Lightning has divided each by the number of micro-batches.
        self._turns.after_step(sum(self._losses), self._norm, self._tokens)
        self._losses, self._tokens, self._norm, self._is_within = [], [], None, False

    def on_train_end(self, trainer, pl_module):
        """Writes what is left."""
        self._turns.close()
