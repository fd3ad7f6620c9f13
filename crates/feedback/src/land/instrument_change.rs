//! A change of the instrument: a measurement with both instruments, so that the series can be joined.

use pairbench::{
    Arm,
    draws::{Purpose, Randomization},
    pair::{self, PairRequest, schedule::Script},
    process::sandbox::SandboxSpec,
    stats::{robust::median, signed_rank::WalshAverages},
    verdict::pct_of_log,
};
use serde::{Deserialize, Serialize};

use crate::{
    LoopError, Progress,
    attempt::Revision,
    compare::built_arms::BuiltArms,
    config::{LoopConfig, Workload},
    ledger::RecordId,
    store::{
        adapter,
        inputs::{self, Inputs},
        session::{Session, config_text},
    },
};

/// The kind of its records.
pub const KIND: &str = "bridge";
/// Runs under each instrument.
const RUNS: u64 = 6;

/// A measurement with the old and the new instrument.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InstrumentChange {
    /// The commit before the change.
    pub baseline: Revision,
    /// The commit with the change.
    pub candidate: Revision,
    /// The workload before.
    pub old_command: String,
    /// The workload after.
    pub new_command: String,
    /// ln(seconds per token before / after), for each pair of runs.
    pub d: Vec<f64>,
}

/// A change that was recorded.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Its record.
    pub id: RecordId,
    /// Its result, in a sentence.
    pub text: String,
}

/// Runs the baseline's program under the old configuration and the candidate's under the new one, alternately.
pub fn measure(session: &mut Session, built_arms: &BuiltArms, progress: &dyn Progress) -> Result<Recorded, LoopError> {
    let old = session.config.workload.clone();
    let text = config_text(&session.repository, &built_arms.revisions[1].tree)?;
    let new_config = LoopConfig::parse(&text, session.config.target.as_deref())?;
    let state = session.state.folder();
    let inputs = |arm: Arm, paths| {
        let tree = &built_arms.revisions[arm.index()].tree;
        inputs::folder(&session.repository, state, Inputs { tree, paths, arm }, progress)
    };
    let new = new_config.workload.clone();
    let new_spec = SandboxSpec { hooks: adapter::hooks(&new_config, state)?, ..built_arms.specs[1].clone() };
    let (old_inputs, new_inputs) = (inputs(Arm::Baseline, &old.inputs)?, inputs(Arm::Candidate, &new.inputs)?);
    let specs = [
        SandboxSpec { inputs_from: old_inputs, ..adapter::spec_for(&built_arms.specs[0], &old) },
        SandboxSpec { inputs_from: new_inputs, ..adapter::spec_for(&new_spec, &new) },
    ];
    let draws = Randomization::fresh();
    let work = session.work()?;
    let script = Script::default();
    let mut d = Vec::new();
    for number in 0..RUNS {
        let mut seconds_per_token = [0.0; 2];
        for arm in draws.order(Purpose::Pair, number, 0) {
            let workload = if arm == Arm::Baseline { &old } else { &new };
            let specs = [&specs[0], &specs[1]];
            let request = PairRequest {
                command: workload.timed(),
                specs,
                script: &script,
                draws,
                number,
                work: &work,
                slowed: None,
            };
            let run = pair::alone(&request, arm, progress)?;
            seconds_per_token[arm.index()] = steady_step_s(&run) / workload_tokens(workload);
        }
        d.push((seconds_per_token[0] / seconds_per_token[1]).ln());
    }
    let [baseline, candidate] = built_arms.revisions.clone();
    let factor = WalshAverages::of(&d).estimate();
    let change = InstrumentChange { baseline, candidate, old_command: old.command, new_command: new.command, d };
    let id = session.ledger.append(KIND, &change, None)?;
    let text = format!("{:+.2} % tok/s under the new one, {RUNS} runs each", pct_of_log(factor));
    Ok(Recorded { id, text })
}

fn steady_step_s(run: &pair::ArmRun) -> f64 {
    let steps_ms: Vec<f64> = run.turns.iter().skip(run.turns.len() / 4).map(|turn| turn.ms).collect();
    median(&steps_ms) / 1e3
}

fn workload_tokens(workload: &Workload) -> f64 {
    workload.tokens_per_step as f64
}
