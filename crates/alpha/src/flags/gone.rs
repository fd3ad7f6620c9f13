//! Flags of the original program that are gone, and what replaces them.

use super::camel_case;

/// The sentence for a flag that is gone, by its name without dashes, in either spelling.
pub(crate) fn sentence(flag: &str) -> Option<&'static str> {
    let flag = camel_case(flag);
    GONE.iter().find(|(name, _)| *name == flag).map(|(_, sentence)| *sentence)
}

const GONE: &[(&str, &str)] = &[
    ("syncEvery", "a step is submitted and waited for as a whole: there is nothing to tune"),
    ("gcEvery", "nothing is collected: all memory is planned before the first step, and a step allocates none"),
    ("gpuProfile", "`--trace` times every operation, on each backend, and writes `kernels.json` and `trace.json`"),
    ("minGpuSize", "a backend runs every operation itself, whatever its size: `--backend` is the choice"),
    ("noFallback", "no backend falls back: `--backend=helios` ends with exit code 3 where it cannot run"),
    ("log", "each step is a row in the run folder's `metrics.jsonl`; `--logEvery` says how many steps get a line"),
    ("embGradScale", "embedding gradients are exact and not scaled; `--gradClip` limits the norm of all together"),
    ("symbio", "it changed the model while it trained: compare `--activation`s in separate runs"),
];
