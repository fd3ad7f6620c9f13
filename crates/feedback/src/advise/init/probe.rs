//! Runs a few steps of a trainer as a comparison would, to see what it is.

use std::{fs, path::Path, sync::Arc, time::Duration};

use pairbench::{
    Arm,
    draws::Randomization,
    pair::{
        self, ArmRun, PairRequest,
        lines::StepLines,
        plan::pairs_within,
        schedule::Script,
        timed_command::{self, Sharing, TimedCommand},
    },
    process::{
        command,
        isolation::Isolation,
        sandbox::{Sandbox, SandboxSpec},
    },
    stats::robust::median,
};
use serde::{Deserialize, Serialize};

use super::forms::{self, Found, Search};
use crate::{
    LoopError, Progress,
    config::{LoopConfig, is_of_tree, metrics::Form},
    git::Repository,
    parity::record,
    store::{
        adapter,
        build::{BuildStore, Wanted},
        state::State,
    },
};

/// Steps that are run.
const STEPS: u64 = 16;
/// The training seed of the run whose output is looked at.
const SEED: &str = "1";
/// Of these, the first are slower: memory is touched, kernels are chosen.
const WARM_UP: usize = 6;
/// Fewest and most steps of a workload; the first ten are not timed.
const FEWEST_STEPS: u64 = 30;
const MOST_STEPS: u64 = 2_000;
/// Shortest time of a run's steps, in seconds. Where the start takes longer, so do the steps.
const LEAST_S: f64 = 2.0;
/// Longest run whose output is looked at.
const LOOK: Duration = Duration::from_secs(45);

/// What a few steps showed.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of the report")]
pub struct Probed {
    /// Seconds from the start of the process to its first step; to the end of it where steps are told by their lines.
    pub start_s: f64,
    /// Milliseconds of a step.
    pub step_ms: f64,
    /// Tokens of a step; 0 if they could not be seen.
    pub tokens_per_step: u64,
    /// Steps that a run of the workload should have.
    pub steps: u64,
    /// Seconds of a pair with as many steps.
    pub pair_s: f64,
    /// Pairs that a comparison within the budget has.
    pub pairs: usize,
    /// Whether every step showed a loss.
    pub has_losses: bool,
    /// Whether every step showed a gradient norm.
    pub has_grad_norms: bool,
    /// Whether every step showed a hash of its tokens.
    pub has_data_hashes: bool,
    /// The distance between two losses that are recorded differently; 0 where all digits are.
    pub loss_unit: f64,
    /// Whether it prints lines of steps, but not one for every step.
    pub has_sparse_lines: bool,
    /// How turns are taken: `adapter`, `lines` or, where they are not, `whole`.
    pub turns: &'static str,
}

/// What was found of step lines.
pub(super) type FoundLines = Option<Found>;

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

/// Builds the working tree and runs [`STEPS`] steps of it: through the adapter, or looking for step lines in its output.
pub(super) fn run(
    repository: &Repository,
    config: &LoopConfig,
    progress: &dyn Progress,
) -> Result<(Probed, FoundLines), LoopError> {
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
    let inputs = Inputs::copy(repository, config, &state.work()?.join("inputs"))?;
    let spec = SandboxSpec {
        artifacts_from: built.folder,
        binary_hash: built.binary_hash,
        inputs_from: inputs.0.clone(),
        inputs: Vec::new(),
        data: data.into_iter().filter(|(_, name)| is_of_tree(name)).collect(),
        hooks: adapter::hooks(config, state.folder())?,
        environment: config.environment.clone(),
        isolation,
    };
    let probe = Probe { spec: adapter::spec_for(&spec, &config.workload), config, work: &state.work()?, progress };
    if config.workload.adapter.is_some() {
        return Ok((probe.by_adapter()?, None));
    }
    probe.by_lines()
}

/// The tracked files that the trainer reads, as they are in the working tree; removed when dropped.
struct Inputs(std::path::PathBuf);

impl Inputs {
    fn copy(repository: &Repository, config: &LoopConfig, folder: &Path) -> Result<Inputs, LoopError> {
        pairbench::files::remove(folder)?;
        let inputs = Inputs(folder.to_owned());
        for input in &config.workload.inputs {
            pairbench::folder_content::copy(&repository.root().join(input), &folder.join(input))?;
        }
        Ok(inputs)
    }
}

impl Drop for Inputs {
    fn drop(&mut self) {
        // What stays is removed by the next probe.
        let _ = pairbench::files::remove(&self.0);
    }
}

struct Probe<'a> {
    spec: SandboxSpec,
    config: &'a LoopConfig,
    work: &'a Path,
    progress: &'a dyn Progress,
}

impl Probe<'_> {
    fn by_adapter(&self) -> Result<Probed, LoopError> {
        let run = self.alone(TimedCommand { steps: STEPS, ..self.config.workload.timed() })?;
        let path = run.folder.written(self.config.workload.metrics.rows_file().unwrap_or(Path::new("")))?;
        let text = fs::read_to_string(&path).map_err(|error| LoopError::io("read", &path, &error))?;
        let rows: Vec<Row> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let all = |has: fn(&Row) -> bool| !rows.is_empty() && rows.iter().all(has);
        Ok(Probed {
            tokens_per_step: rows.last().map_or(0, |row| row.tokens),
            has_losses: all(|row| row.loss.is_some()),
            has_grad_norms: all(|row| row.grad_norm.is_some()),
            has_data_hashes: all(|row| row.data_hash.is_some()),
            turns: "adapter",
            ..self.timed(&run)
        })
    }

    /// Runs the trainer to its end, looks for step lines in what it printed, and then takes turns by them.
    fn by_lines(&self) -> Result<(Probed, FoundLines), LoopError> {
        let spec = &self.spec;
        let folder = Sandbox::create(&self.work.join("a"), spec)?;
        let line = &self.config.workload.command;
        let words = timed_command::fill(line, &[("steps", &STEPS.to_string()), ("seed", SEED)])?;
        let launch = folder.training(&words, spec, STEPS)?;
        let ended = command::run(&folder, &launch, LOOK, self.progress)?;
        let mut printed = Vec::new();
        for path in folder.output_files() {
            printed.extend(fs::read(&path).map_err(|error| LoopError::io("read", &path, &error))?);
        }
        let search = forms::search(&printed);
        let Some(exit) = ended.exit else {
            return Err(LoopError::failed(format!(
                "`{line}` with {STEPS} steps did not end within {} s{}",
                LOOK.as_secs(),
                ended.last_words
            ))
            .hint("does it take its number of steps from the command line? `--command='… {steps} …'` names the flag, and makes a run short"));
        };
        if !exit.success() {
            return Err(LoopError::failed(format!("`{line}` failed ({exit}){}", ended.last_words)));
        }
        if let (Some(form), Search::Sparse | Search::Nothing) = (self.config.workload.step_form(), &search) {
            let form = form.form();
            return Err(LoopError::failed(format!("`{line}` printed no line like `{form}` for each of {STEPS} steps"))
                .hint("`--command='…'` takes the flags that this version of the trainer has"));
        }
        let found = match search {
            Search::Found(found) => found,
            Search::Sparse => return Ok((Probed { has_sparse_lines: true, ..whole(ended.seconds) }, None)),
            Search::Nothing => return Ok((whole(ended.seconds), None)),
        };
        if found.steps.abs_diff(STEPS) > 1 {
            return Err(LoopError::failed(format!(
                "`{line}` printed {} lines for steps where {STEPS} steps were asked for",
                found.steps
            ))
            .hint("`{steps}` in `--command='…'` stands where the trainer takes its number of optimiser steps"));
        }
        if self.config.workload.metrics.form != Form::Rows {
            // The record itself, which a preset may have in a file.
            record::read::<&str>(&self.config.workload.metrics, &folder, &[], STEPS)?;
        }
        drop(folder);
        let command = TimedCommand {
            steps: STEPS,
            sharing: Sharing::Lines,
            step_lines: Some(Arc::new(found.form.clone())),
            ..self.config.workload.timed()
        };
        let run = self.alone(command)?;
        if median(&run.turns.iter().skip(WARM_UP).map(|turn| turn.ms).collect::<Vec<_>>()) <= 0.0 {
            return Err(LoopError::failed(format!(
                "`{line}` prints the lines of several steps at once: its output is buffered"
            ))
            .hint("have it flush its output after each line, and do not send it through a pipe"));
        }
        let probed = Probed {
            has_losses: true,
            has_grad_norms: found.has_grad_norms,
            loss_unit: found.loss_unit,
            turns: "lines",
            ..self.timed(&run)
        };
        Ok((probed, Some(found)))
    }

    /// Runs the baseline alone, a step a turn.
    fn alone(&self, command: TimedCommand) -> Result<ArmRun, LoopError> {
        let request = PairRequest {
            command,
            specs: [&self.spec, &self.spec],
            script: &Script::default(),
            draws: Randomization::fresh(),
            number: 0,
            work: self.work,
            slowed: None,
        };
        pair::alone(&request, Arm::Baseline, self.progress)
    }

    /// What the times of a run say.
    fn timed(&self, run: &ArmRun) -> Probed {
        let steps_ms: Vec<f64> = run.turns.iter().skip(WARM_UP).map(|turn| turn.ms).collect();
        let (start_s, step_ms) = (run.ready_ms / 1e3, median(&steps_ms));
        let steps = ((LEAST_S.max(start_s) * 1e3 / step_ms) as u64 + 10).clamp(FEWEST_STEPS, MOST_STEPS);
        let pair_s = 2.0 * (start_s + steps as f64 * step_ms / 1e3);
        Probed { start_s, step_ms, steps, pair_s, pairs: pairs_within(self.config.budget, pair_s), ..whole(0.0) }
    }
}

/// A trainer of which nothing is known but how long it took.
fn whole(seconds: f64) -> Probed {
    Probed {
        start_s: seconds,
        step_ms: 0.0,
        tokens_per_step: 0,
        steps: FEWEST_STEPS,
        pair_s: 2.0 * seconds,
        pairs: 0,
        has_losses: false,
        has_grad_norms: false,
        has_data_hashes: false,
        loss_unit: 0.0,
        has_sparse_lines: false,
        turns: "whole",
    }
}
