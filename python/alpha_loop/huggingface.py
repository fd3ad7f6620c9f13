"""A callback for the Trainer of `transformers`, with `logging_steps=1`:

    trainer = Trainer(..., callbacks=[LoopCallback()])

Losses and tokens are those that the model is called with, at full precision; the norm is the Trainer's.
"""
from transformers import TrainerCallback

from . import Turns

__all__ = ["LoopCallback"]


class LoopCallback(TrainerCallback):
    """Takes turns. `metrics` and `save` are those of `Turns`."""

    def __init__(self, metrics="run/metrics.jsonl", save=None):
        self._metrics, self._save = metrics, save
        self._turns, self._hooks = None, []
        self._losses, self._tokens = [], []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        """Looks at the model's inputs and losses from now on."""
        if args.logging_steps != 1 or str(getattr(args.logging_strategy, "value", args.logging_strategy)) != "steps":
            raise ValueError(f"logging_steps is {args.logging_steps}; the loop needs the norm of every step: logging_steps=1")
        self._turns = Turns(self._metrics, self._save)
        self._hooks = [
            model.register_forward_pre_hook(self._called, with_kwargs=True),
            model.register_forward_hook(self._returned, with_kwargs=True),
        ]

    def _called(self, model, args, kwargs):
        if model.training:
            values = [*args, *(kwargs[name] for name in sorted(kwargs))]
            self._tokens.extend(value.detach() for value in values if hasattr(value, "detach"))

    def _returned(self, model, args, kwargs, output):
        loss = output.get("loss") if isinstance(output, dict) else getattr(output, "loss", None)
        if model.training and loss is not None:
            self._losses.append(loss.detach().clone())

    def on_step_begin(self, args, state, control, **kwargs):
        """Waits for its turn."""
        self._turns.before_step()

    def on_log(self, args, state, control, logs=None, **kwargs):
        """The Trainer logs a step after its end."""
        if not logs or "loss" not in logs:
            return
        if "grad_norm" not in logs:
            raise ValueError("the Trainer logs no grad_norm: transformers 4.38 or newer, and max_grad_norm above 0, are needed")
        losses, tokens = self._losses, self._tokens
        self._losses, self._tokens = [], []
        if not losses:
            raise ValueError("the model returns no loss, and the Trainer rounds its own: `adapter = \"pytorch\"` or `Turns` sees it whole")
        # Models that know of accumulation divide by it themselves; the logged loss, which is rounded, tells.
        total = float(sum(losses))
        loss = min([total, total / len(losses)], key=lambda value: abs(value - float(logs["loss"])))
        self._turns.after_step(loss, logs["grad_norm"], tokens)

    def on_train_end(self, args, state, control, **kwargs):
        """Writes what is left."""
        for hook in self._hooks:
            hook.remove()
        self._turns.close()
