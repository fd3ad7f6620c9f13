//! Adapters: modules of this program that speak the turn protocol for a trainer that does not know of it.
//!
//! Both arms get the same module, from a folder of the loop's own. It also writes the trainer's records and, on request,
//! its weights, under the names that the workload has for them.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use pairbench::{
    files,
    process::sandbox::{Hooks, SandboxSpec},
};

use crate::{
    LoopError,
    config::{Adapter, LoopConfig, Workload},
};

/// The modules for PyTorch: Python imports the first at its start.
const PYTORCH: [(&str, &str); 2] = [
    ("sitecustomize.py", include_str!("adapter/pytorch/sitecustomize.py")),
    ("alpha_turns_torch.py", include_str!("adapter/pytorch/alpha_turns_torch.py")),
];

/// The hooks of a configuration with an adapter, written below the loop's folder `state`. [`spec_for`] adds what
/// depends on the workload.
pub fn hooks(config: &LoopConfig, state: &Path) -> Result<Option<Hooks>, LoopError> {
    let Some(Adapter::Pytorch) = config.workload.adapter else { return Ok(None) };
    let path = config.environment.iter().any(|name| name == "PYTHONPATH");
    let users = env::var("PYTHONPATH").ok().filter(|users| path && !users.is_empty());
    let variables = vec![(
        "PYTHONPATH".to_owned(),
        users.map_or_else(|| "{hooks}".to_owned(), |users| format!("{{hooks}}:{users}")),
    )];
    Ok(Some(Hooks { folder: folder(state)?, variables }))
}

/// An arm's spec for a workload: its inputs, and its adapter.
pub fn spec_for(spec: &SandboxSpec, workload: &Workload) -> SandboxSpec {
    let hooks = spec.hooks.as_ref().filter(|_| workload.adapter.is_some()).map(|hooks| {
        let mut hooks = hooks.clone();
        hooks.variables.retain(|(name, _)| name == "PYTHONPATH");
        let inside = |name: &str| format!("{{run}}/{name}");
        hooks.variables.push((
            "ALPHA_METRICS".into(),
            inside(&workload.metrics.rows_file().unwrap_or(Path::new("")).to_string_lossy()),
        ));
        hooks.variables.push(("ALPHA_WEIGHTS".into(), inside(workload.weights.as_deref().unwrap_or_default())));
        hooks.variables.push(("ALPHA_STEPS".into(), "{steps}".into()));
        hooks
    });
    SandboxSpec { inputs: workload.inputs.clone(), hooks, ..spec.clone() }
}

/// The folder with the modules as they are in this program.
fn folder(state: &Path) -> Result<PathBuf, LoopError> {
    let mut hasher = blake3::Hasher::new();
    for (_, text) in PYTORCH {
        hasher.update(text.as_bytes());
    }
    let folder = state.join("adapters").join(&hasher.finalize().to_hex()[..16]);
    for (name, text) in PYTORCH {
        let path = folder.join(name);
        if fs::read(&path).ok().as_deref() != Some(text.as_bytes()) {
            files::write(&path, text.as_bytes())?;
        }
    }
    Ok(folder)
}
