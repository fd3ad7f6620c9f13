//! Runs a few steps of a trainer as a comparison would, to see what it is.

use std::sync::Arc;

use pairbench::{
    Arm,
    draws::Randomization,
    pair::{self, PairRequest, schedule::Script, timed_command::TimedCommand},
    process::{isolation::Isolation, sandbox::SandboxSpec},
    stats::robust::median,
};
use serde::{Deserialize, Serialize};

use crate::{
    LoopError, Progress,
    config::{LoopConfig, is_of_tree},
    git::Repository,
    store::{
        adapter,
        build::{BuildStore, Wanted},
        state::State,
    },
};

/// Steps that are run.
const STEPS: u64 = 16;
/// Of these, the first are slower: memory is touched, kernels are chosen.
const WARM_UP: usize = 6;
/// Fewest and most steps of a workload; the first ten are not timed.
const FEWEST_STEPS: u64 = 30;
const MOST_STEPS: u64 = 400;
/// Shortest time of a run's steps, in seconds. Where the start takes longer, so do the steps.
const LEAST_S: f64 = 2.0;

/// What a few steps showed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Probed {
    /// Seconds from the start of the process to its first step.
    pub start_s: f64,
    /// Milliseconds of a step.
    pub step_ms: f64,
    /// Tokens of a step; 0 if they could not be seen.
    pub tokens_per_step: u64,
    /// Steps that a run of the workload should have.
    pub steps: u64,
    /// Seconds of a pair with as many steps.
    pub pair_s: f64,
    /// Whether every step showed a loss.
    pub has_losses: bool,
    /// Whether every step showed a gradient norm.
    pub has_grad_norms: bool,
    /// Whether every step showed a hash of its tokens.
    pub has_data_hashes: bool,
}

/// A row of the adapter's record.
#[derive(Deserialize)]
struct Row {
    loss: Option<f64>,
    #[serde(rename = "gradNorm")]
    grad_norm: Option<f64>,
    #[serde(default)]
    tokens: u64,
    data_hash: Option<String>,
}

/// Builds the working tree and runs [`STEPS`] steps.
pub(super) fn run(repository: &Repository, config: &LoopConfig, progress: &dyn Progress) -> Result<Probed, LoopError> {
    let state = State::open(repository)?;
    let _lock = state.lock()?;
    let mut hidden = repository.worktrees()?;
    hidden.extend(state.folders());
    hidden.extend([repository.common_dir().to_owned(), repository.git_dir().to_owned()]);
    let isolation = Arc::new(Isolation::detect(&hidden, &config.visible()));
    let builds = BuildStore::new(&state, Arc::clone(&isolation));
    let tree = repository.snapshot(&config.unmeasured())?.tree;
    let built = builds.build(repository, Wanted { name: "trainer", tree: &tree, config }, progress)?;
    let data = config.data(repository.root());
    let spec = SandboxSpec {
        artifacts_from: built.folder,
        binary_hash: built.binary_hash,
        inputs_from: state.folder().to_owned(),
        inputs: Vec::new(),
        data: data.into_iter().filter(|(_, name)| is_of_tree(name)).collect(),
        hooks: adapter::hooks(config, state.folder())?,
        environment: config.environment.clone(),
        isolation,
    };
    let spec = adapter::spec_for(&spec, &config.workload);
    let command = TimedCommand { steps: STEPS, ..config.workload.timed() };
    let request = PairRequest {
        command,
        specs: [&spec, &spec],
        script: &Script::default(),
        draws: Randomization::fresh(),
        number: 0,
        work: &state.work()?,
        slowed: None,
    };
    let run = pair::alone(&request, Arm::Baseline, progress)?;
    let path = run.folder.written(&config.workload.metrics)?;
    let text = std::fs::read_to_string(&path).map_err(|error| LoopError::io("read", &path, &error))?;
    let rows: Vec<Row> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let steps_ms: Vec<f64> = run.turns.iter().skip(WARM_UP).map(|turn| turn.ms).collect();
    let (start_s, step_ms) = (run.ready_ms / 1e3, median(&steps_ms));
    let all = |has: fn(&Row) -> bool| !rows.is_empty() && rows.iter().all(has);
    let steps = ((LEAST_S.max(start_s) * 1e3 / step_ms) as u64 + 10).clamp(FEWEST_STEPS, MOST_STEPS);
    Ok(Probed {
        start_s,
        step_ms,
        tokens_per_step: rows.last().map_or(0, |row| row.tokens),
        steps,
        pair_s: 2.0 * (start_s + steps as f64 * step_ms / 1e3),
        has_losses: all(|row| row.loss.is_some()),
        has_grad_norms: all(|row| row.grad_norm.is_some()),
        has_data_hashes: all(|row| row.data_hash.is_some()),
    })
}
