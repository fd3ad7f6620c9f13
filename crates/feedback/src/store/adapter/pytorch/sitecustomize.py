"""Lets a PyTorch trainer take turns without an edit. `alpha loop` puts this file's folder first on PYTHONPATH.

Python imports `sitecustomize` at its start. This one waits for `torch` and then watches from outside what every trainer
does: a step begins when the outermost module is called with gradients on after an optimiser has stepped; in between lie
losses (what `backward` is called on), the norm that `clip_grad_norm_` returns, and the integers that the module is called
with. It draws no random number and changes no tensor.

Environment: ALPHA_TURNS (the socket of the turn protocol; without it only the record is written), ALPHA_METRICS (the
record, a JSON object a step), ALPHA_WEIGHTS (where `save` writes, with {step}), ALPHA_STEPS (the steps of the run).
"""
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


def users_own():
    """Runs the `sitecustomize` that Python would have found without this one."""
    path = [entry for entry in sys.path if os.path.abspath(entry or ".") != HERE]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", path)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)


class AfterTorch(importlib.abc.MetaPathFinder):
    """Starts watching when `torch` has been imported."""

    def find_spec(self, name, path=None, target=None):
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def exec_module(module):
                run(module)
                import alpha_turns_torch

                alpha_turns_torch.watch()

            spec.loader.exec_module = exec_module
        return spec


# One process speaks for all ranks; the others wait for it in their collectives.
if os.environ.get("ALPHA_METRICS") and os.environ.get("RANK", "0") == "0":
    sys.meta_path.insert(0, AfterTorch())
users_own()
