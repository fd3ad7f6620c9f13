//! `loop.toml`: what is built, run, guarded and sealed.
//!
//! The file is part of the instrument: a change of it is never a gain. Paths are relative to the repository's root;
//! paths in commands are relative to the folder that a trainer runs in, which has artifacts and inputs under the same
//! relative paths. Placeholders in commands: `{steps}`, `{seed}`, `{step}`, `{checkpoint}`, `{prompt}`, and `{layout}`
//! in the build's; a placeholder without a value is an error.

mod check;
pub mod metrics;
pub mod step_line;
mod targets;
pub mod weaker;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use globset::GlobSet;
use pairbench::pair::{
    lines::StepLines,
    timed_command::{Sharing, TimedCommand},
};
use serde::{Deserialize, Deserializer};

use self::{check::glob_set, metrics::Metrics, step_line::StepForm};

/// The placeholder in a build command for the number of the layout.
pub const LAYOUT: &str = "{layout}";

/// The gain that must be exceeded where layouts are not measured and the configuration names no other.
pub const DEFAULT_FLOOR_PCT: f64 = 1.0;

/// Name of the file in the repository's root.
pub const FILE_NAME: &str = "loop.toml";
/// The whole file, or its values for one of its targets.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoopConfig {
    /// The target, if it is not the file's own workload: another thing to be made faster, such as a GPU backend.
    #[serde(skip)]
    pub target: Option<String>,
    /// Version of this format: 1.
    pub schema: u32,
    /// Smallest gain that counts, in per cent.
    #[serde(default = "default_epsilon_pct")]
    pub epsilon_pct: f64,
    /// The gain in per cent that must be exceeded, because code at another place in memory runs at another speed. Where
    /// `build.command` has `{layout}`, the self-test measures this, and its result counts instead.
    #[serde(default)]
    pub layout_floor_pct: Option<f64>,
    /// Longest comparison, without builds and confirmation.
    #[serde(default = "default_budget", deserialize_with = "duration")]
    pub budget: Duration,
    /// The folder of the records.
    #[serde(default = "default_ledger")]
    pub ledger: PathBuf,
    /// Globs of files that are not measured.
    #[serde(default = "default_unmeasured")]
    pub unmeasured: Vec<String>,
    /// Globs of files that belong to the instrument.
    #[serde(default)]
    pub sealed: Vec<String>,
    /// Names of environment variables that trainers get beside `PATH`, `HOME`, `TMPDIR` and `LC_ALL`.
    #[serde(default)]
    pub environment: Vec<String>,
    /// Folders and files outside the repository that builds and trainers may read, such as a data set or a virtual
    /// environment; `~` is the user's home. Behind walls they see no other files of users.
    #[serde(default)]
    pub visible: Vec<PathBuf>,
    /// Files and folders that trainers read and git does not track, such as a data set: relative to the working tree's
    /// root, or whole paths; `~` is the user's home. Their content is part of what is compared.
    #[serde(default)]
    pub data: Vec<PathBuf>,
    /// The artifact with the command `loop`, if the trainer is the loop's own program: then the baseline's program
    /// judges.
    #[serde(default)]
    pub judge: Option<PathBuf>,
    /// How a tree becomes a trainer.
    pub build: BuildConfig,
    /// The run whose speed is measured.
    pub workload: Workload,
    /// The 5-step test.
    #[serde(default)]
    pub smoke: Option<SmokeConfig>,
    /// Traced runs, which show where the time goes.
    #[serde(default)]
    pub trace: Option<TraceConfig>,
    /// Texts that must stay the same.
    #[serde(default)]
    pub sampling: Option<SamplingConfig>,
    /// What must not become worse, by name.
    #[serde(default)]
    pub guards: BTreeMap<String, Guard>,
    /// Parts of the trainer that a change can be about.
    #[serde(default)]
    pub areas: BTreeMap<String, Area>,
}

/// How a tree becomes a trainer.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildConfig {
    /// Run in the root of a checkout. If it has `{layout}`, each number builds another layout of the same program, and
    /// 0 builds the program as it is written.
    pub command: String,
    /// Files and folders that the trainer consists of, after the build.
    pub artifacts: Vec<PathBuf>,
    /// If a build takes longer, it is killed and counts as failed.
    #[serde(default = "default_build_timeout", deserialize_with = "duration")]
    pub timeout: Duration,
    /// Commands whose output names the toolchain: builds of another toolchain are not reused.
    #[serde(default)]
    pub toolchain: Vec<String>,
    /// Names of environment variables that builds get beside `PATH`, `HOME`, `TMPDIR` and `LC_ALL`.
    #[serde(default)]
    pub environment: Vec<String>,
}

/// A training run whose speed is measured.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Starts the trainer; has `{steps}`, and `{seed}` if the trainer takes a seed.
    pub command: String,
    /// Optimiser steps of a run.
    pub steps: u64,
    /// Tokens of a step.
    pub tokens_per_step: u64,
    /// Files and folders that the command reads, taken from the baseline's tree.
    #[serde(default)]
    pub inputs: Vec<PathBuf>,
    /// The record of each step.
    #[serde(default)]
    pub metrics: Metrics,
    /// The form of the lines that end its steps, where `metrics` is not what it prints: a trainer's name, or a regular
    /// expression.
    #[serde(default, deserialize_with = "step_form")]
    pub step_line: Option<StepForm>,
    /// The weights after `{step}` steps, as safetensors.
    #[serde(default)]
    pub weights: Option<String>,
    /// The folder or file with everything that evaluating and sampling need after the last step, `{step}`.
    #[serde(default)]
    pub checkpoint: Option<String>,
    /// Prints an object with `loss` on stdout for `{checkpoint}`; run with the baseline's artifacts.
    #[serde(default)]
    pub eval: Option<String>,
    /// Tensors, or parts of them, whose gradient is zero by analysis: `<glob>` or `<glob> part 2 of 3`.
    #[serde(default)]
    pub exempt: Vec<String>,
    /// Names of exact counts in the metrics; if empty, the usual ones.
    #[serde(default)]
    pub counters: Vec<String>,
    /// How the two trainers of a pair share the machine.
    #[serde(default)]
    pub sharing: Sharing,
    /// What speaks the turn protocol for a trainer that does not, and writes its records and weights.
    #[serde(default)]
    pub adapter: Option<Adapter>,
    /// A turn that takes longer ends the comparison.
    #[serde(default = "default_turn_timeout", deserialize_with = "duration")]
    pub turn_timeout: Duration,
}

/// Where an adapter writes the weights, unless the workload names another place.
const ADAPTERS_WEIGHTS: &str = "run/weights-{step}.safetensors";

/// What speaks for a trainer that does not know of the loop.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Adapter {
    /// A module in the trainer's Python that sees its optimisers step (PyTorch 2.1 or newer).
    Pytorch,
}

impl Workload {
    /// With what an adapter writes of its own accord.
    fn complete(&mut self) {
        if self.adapter.is_some() {
            self.weights.get_or_insert_with(|| ADAPTERS_WEIGHTS.to_owned());
        }
    }

    /// The command that is timed.
    pub fn timed(&self) -> TimedCommand {
        TimedCommand {
            line: self.command.clone(),
            steps: self.steps,
            sharing: self.sharing,
            turn_timeout: self.turn_timeout,
            writes_weights: self.weights.is_some(),
            step_lines: self.step_form().map(|form| Arc::new(form.clone()) as Arc<dyn StepLines>),
        }
    }

    /// The form of the lines that end its steps, if it is known.
    pub fn step_form(&self) -> Option<&StepForm> {
        self.step_line.as_ref().or(self.metrics.printed())
    }
}

/// The 5-step test.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct SmokeConfig {
    /// As the workload's, but run without turns.
    pub command: String,
    /// Steps that it runs.
    #[serde(default = "default_smoke_steps")]
    pub steps: u64,
    /// As the workload's.
    #[serde(default)]
    pub inputs: Vec<PathBuf>,
    /// As the workload's; rows have `timing_<phase>_ms`.
    #[serde(default = "default_metrics")]
    pub metrics: PathBuf,
}

/// Traced runs, which show where the time goes.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct TraceConfig {
    /// The workload's command with tracing on.
    pub command: String,
    /// Steps of a traced run.
    pub steps: u64,
    /// Totals of each kernel: `{"steps":…,"kernels":[{"name","phase","calls","time_ms","flops","bytes"}…]}`.
    pub kernels: PathBuf,
    /// Prints the machine's peaks as an object with `gflops` and `gb_s`.
    #[serde(default)]
    pub peaks: Option<String>,
}

/// Texts that must stay the same.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct SamplingConfig {
    /// Prints a continuation of `{prompt}` from `{checkpoint}`, the likeliest token each time.
    pub greedy: String,
    /// The same, drawn with a fixed seed.
    pub seeded: String,
    /// The texts to continue.
    pub prompts: Vec<String>,
    /// The workload's command with sampling on: its losses must be the same bits.
    #[serde(default)]
    pub training: Option<String>,
    /// Steps of that run.
    #[serde(default = "default_sampled_steps")]
    pub steps: u64,
}

/// What must not become worse, and by how much it may.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Guard {
    /// Speed on another workload.
    Workload {
        /// Loss of speed that is allowed, in per cent.
        margin_pct: f64,
        /// The run.
        workload: Box<Workload>,
    },
    /// Peak resident memory of the primary workload.
    PeakMemory {
        /// Growth that is let through, in per cent.
        margin_pct: f64,
    },
    /// Time from the start of the process until its first step is done.
    FirstStep {
        /// Growth that is let through, in per cent.
        margin_pct: f64,
    },
    /// Time of a whole command, such as one that decodes text; may have `{checkpoint}`.
    Command {
        /// Growth that is let through, in per cent.
        margin_pct: f64,
        /// The command.
        command: String,
        /// Files and folders that it reads, taken from the baseline's tree.
        #[serde(default)]
        inputs: Vec<PathBuf>,
    },
    /// Time of the build.
    BuildTime {
        /// Growth that is let through, in per cent.
        margin_pct: f64,
    },
}

/// A part of the trainer that a change can be about.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Area {
    /// Globs of names in the trace: `kernel` or `phase/kernel`.
    #[serde(default)]
    pub kernels: Vec<String>,
    /// Globs of files.
    #[serde(default)]
    pub files: Vec<String>,
}

fn default_epsilon_pct() -> f64 {
    0.5
}

fn default_budget() -> Duration {
    Duration::from_secs(300)
}

fn default_build_timeout() -> Duration {
    Duration::from_secs(900)
}

fn default_turn_timeout() -> Duration {
    Duration::from_secs(60)
}

fn default_ledger() -> PathBuf {
    PathBuf::from("perf/ledger")
}

fn default_unmeasured() -> Vec<String> {
    ["perf/**", "runs/**"].map(String::from).to_vec()
}

fn default_metrics() -> PathBuf {
    PathBuf::from("run/metrics.jsonl")
}

fn default_smoke_steps() -> u64 {
    5
}

fn default_sampled_steps() -> u64 {
    20
}

/// A duration such as `90s`, `5m` or `1h`.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map_err(serde::de::Error::custom)
}

/// The name of a form, or an expression.
fn step_form<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<StepForm>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let is_name = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'));
    let form = match StepForm::known(&text) {
        Err(_) if !is_name => StepForm::of_any_expression(&text),
        known => known,
    };
    form.map(Some).map_err(|error| {
        let names = StepForm::names().collect::<Vec<_>>().join(", ");
        serde::de::Error::custom(format!("`step_line`: {error}; it is a regular expression, or one of {names}"))
    })
}

/// A text that is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a duration: write `90s`, `5m` or `1h`")]
pub struct NotADuration(String);

/// Reads `90s`, `5m`, `1.5h`, `800ms`.
pub fn parse_duration(text: &str) -> Result<Duration, NotADuration> {
    let wrong = || NotADuration(text.to_owned());
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds = match &text[digits.len()..] {
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    let value: f64 = digits.parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(value * seconds).ok().filter(|time| !time.is_zero()).ok_or_else(wrong)
}

impl LoopConfig {
    /// The folders of [`LoopConfig::visible`] and the data outside of the working tree, by their whole paths.
    pub fn visible(&self) -> Vec<PathBuf> {
        let data = self.data.iter().filter(|path| !is_of_tree(path));
        self.visible.iter().chain(data).map(|path| whole_path(path)).collect()
    }

    /// The data, by their places on this machine and their names: paths in the trainer's folder, or whole paths.
    pub fn data(&self, root: &Path) -> Vec<(PathBuf, PathBuf)> {
        let place = |path: &PathBuf| if is_of_tree(path) { root.join(path) } else { whole_path(path) };
        self.data.iter().map(|path| (place(path), path.clone())).collect()
    }

    /// The globs of files that are not measured. The ledger is always among them.
    pub fn unmeasured(&self) -> GlobSet {
        let mut globs = self.unmeasured.clone();
        globs.push(format!("{}/**", globset::escape(&self.ledger.to_string_lossy())));
        glob_set(&globs).expect("checked when the file was read")
    }

    /// The globs of the instrument's files; the file itself is always among them.
    pub fn sealed(&self) -> GlobSet {
        let mut globs = self.sealed.clone();
        globs.push(FILE_NAME.to_owned());
        glob_set(&globs).expect("checked when the file was read")
    }
}

/// Whether a path is relative to the working tree's root.
pub fn is_of_tree(path: &Path) -> bool {
    !path.is_absolute() && !path.starts_with("~")
}

fn whole_path(path: &Path) -> PathBuf {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    path.strip_prefix("~").map_or_else(|_| path.to_owned(), |below| home.join(below))
}

impl Guard {
    /// The allowed loss, in per cent.
    pub fn margin_pct(&self) -> f64 {
        match self {
            Guard::Workload { margin_pct, .. }
            | Guard::PeakMemory { margin_pct }
            | Guard::FirstStep { margin_pct }
            | Guard::Command { margin_pct, .. }
            | Guard::BuildTime { margin_pct } => *margin_pct,
        }
    }
}

impl Area {
    /// The kernels' globs.
    pub fn kernels(&self) -> GlobSet {
        glob_set(&self.kernels).expect("checked when the file was read")
    }

    /// The files' globs.
    pub fn files(&self) -> GlobSet {
        glob_set(&self.files).expect("checked when the file was read")
    }
}

/// Whether a configuration can build other layouts.
pub fn is_layout_varied(config: &LoopConfig) -> bool {
    config.build.command.contains(LAYOUT)
}

#[cfg(test)]
mod tests {
    use pairbench::pair::timed_command;

    use super::*;

    pub(in crate::config) const SMALL: &str = r#"
        schema = 1
        budget = "90s"
        [build]
        command = "make -s"
        artifacts = ["out/trainer"]
        [workload]
        command = "./out/trainer --steps={steps} --name='a b'"
        steps = 50
        tokens_per_step = 128
        [guards.memory]
        kind = "peak_memory"
        margin_pct = 5
    "#;

    #[test]
    fn a_small_file_is_read() {
        let config = LoopConfig::parse(SMALL, None).unwrap();
        assert_eq!((config.epsilon_pct, config.budget), (0.5, Duration::from_secs(90)));
        assert_eq!(config.guards["memory"], Guard::PeakMemory { margin_pct: 5.0 });
        assert!(config.unmeasured().is_match("perf/ledger/a.json"));
        assert!(config.sealed().is_match("loop.toml"));
        let words = timed_command::fill(&config.workload.command, &[("steps", "7")]).unwrap();
        assert_eq!(words, ["./out/trainer", "--steps=7", "--name=a b"]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (from, to, named) in [
            ("schema = 1", "schema = 2", "schema is 2"),
            ("90s", "soon", "`soon` is not a duration"),
            ("--steps={steps}", "", "has no `{steps}`"),
            ("steps = 50", "steps = 3", "at least 10"),
            ("out/trainer\"]", "../trainer\"]", "`../trainer` must be a path inside"),
            ("margin_pct = 5", "margin_pct = -1", "guards.memory.margin_pct"),
            ("guards.memory", "guards.\"a\\u001bb\"", "`a\\u{1b}b` is not a name"),
            ("guards.memory", "guards.a-name-of-more-than-forty-characters-is-too-long", "is not a name"),
            ("peak_memory", "peak_momory", "peak_momory"),
            ("'a b'", "'a b", "a quote is open"),
            ("[build]", "unknown = 1\n[build]", "unknown"),
            ("[build]", "[build]\nenvironment = [\"CC\", \"HOME\"]", "`build.environment` names `HOME`"),
            ("[guards", "[smoke]\ncommand = \"./out/trainer\"\n[guards", "has no `{steps}`"),
            ("[guards", "[smoke]\ncommand = \"./out/trainer '{steps}\"\n[guards", "a quote is open"),
            (
                "[guards",
                "[sampling]\ngreedy = \"x {prompt}\"\nseeded = \"x\"\nprompts = [\"a\"]\n[guards",
                "has no `{checkpoint}`",
            ),
            ("[guards", "[trace]\nsteps = 9\nkernels = \"k\"\ncommand = \"x\"\n[guards", "has no `{steps}`"),
        ] {
            let text = SMALL.replace(from, to);
            assert_ne!(text, SMALL, "{from}");
            let error = LoopConfig::parse(&text, None).unwrap_err();
            assert!(error.to_string().contains(named), "{error}");
            assert_eq!(error.exit_code(), 2);
        }
    }

    #[test]
    fn durations_have_units() {
        let seconds = |text: &str| parse_duration(text).map(|time| time.as_secs_f64());
        assert_eq!(seconds("1.5h"), Ok(5400.0));
        assert_eq!(seconds("800ms"), Ok(0.8));
        for text in ["5", "m", "0s", "-1s", "5 m", "1e400s", "infs", "nans", ""] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
