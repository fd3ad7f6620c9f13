//! Checks of `loop.toml`: ranges, placeholders, paths and globs.

use std::path::{Component, PathBuf};

use globset::{Glob, GlobSet, GlobSetBuilder};
use pairbench::pair::timed_command::{Sharing, words};

use super::{FILE_NAME, Guard, LoopConfig, Workload, is_of_tree, metrics::Form};
use crate::{LoopError, visible};

/// Variables that lead to the user's own files, whose changes nobody would see.
const OF_A_FRESH_HOME: [&str; 3] = ["HOME", "TMPDIR", "CARGO_HOME"];

/// Most characters in the name of a guard or an area, which records and messages repeat.
const MAX_NAME_CHARS: usize = 40;

/// The fewest steps of a workload.
const LEAST_STEPS: u64 = 10;

impl LoopConfig {
    /// # Errors
    /// [`LoopError::usage`], without the name of the file.
    pub(super) fn check(&self) -> Result<(), LoopError> {
        if self.schema != 1 {
            return Err(LoopError::usage(format!("schema is {}; this program reads 1", self.schema)));
        }
        in_range("epsilon_pct", self.epsilon_pct, 0.01, 50.0)?;
        if let Some(floor_pct) = self.layout_floor_pct {
            in_range("layout_floor_pct", floor_pct, 0.0, 50.0)?;
        }
        if self.build.artifacts.is_empty() {
            return Err(LoopError::usage("`build.artifacts` is empty: name what the build makes"));
        }
        self.check_commands()?;
        let guarded = self.guards.values().filter_map(|guard| match guard {
            Guard::Workload { workload, .. } => Some(&**workload),
            _ => None,
        });
        for workload in guarded {
            workload.check()?;
            if workload.adapter.is_some() && self.workload.adapter.is_none() {
                return Err(LoopError::usage(
                    "a guard's workload has an `adapter`, `[workload]` has none: both have it, or none",
                ));
            }
        }
        self.workload.check()?;
        self.check_places()?;
        self.check_guards()?;
        glob_set(&self.sealed)?;
        if glob_set(&self.unmeasured)?.is_match(FILE_NAME) {
            return Err(LoopError::usage(format!(
                "`unmeasured` matches `{FILE_NAME}`: what measures is always part of what is looked at"
            )));
        }
        for area in self.areas.values() {
            glob_set(&area.files)?;
            glob_set(&area.kernels)?;
        }
        Ok(())
    }

    fn check_commands(&self) -> Result<(), LoopError> {
        for (command, placeholders) in self.commands() {
            words(command)?;
            if let Some(missing) = placeholders.iter().find(|placeholder| !command.contains(**placeholder)) {
                return Err(LoopError::usage(format!("`{command}` has no `{missing}`, which the loop fills in")));
            }
        }
        Ok(())
    }

    /// Checks what builds make and see, and where records are kept.
    fn check_places(&self) -> Result<(), LoopError> {
        relative(&self.build.artifacts)?;
        if let Some(name) = self.build.environment.iter().find(|name| OF_A_FRESH_HOME.contains(&name.as_str())) {
            return Err(LoopError::usage(format!(
                "`build.environment` names `{name}`: builds have a home of their own"
            )));
        }
        relative([&self.ledger])?;
        relative(self.data.iter().filter(|path| is_of_tree(path)))?;
        let Some(path) = self.visible.iter().find(|path| is_of_tree(path)) else {
            return Ok(());
        };
        let path = path.display();
        Err(LoopError::usage(format!("`visible` has `{path}`; it names whole paths, such as `/data` or `~/venv`")))
    }

    fn check_guards(&self) -> Result<(), LoopError> {
        if let Some(name) = self.guards.keys().chain(self.areas.keys()).find(|name| !is_name(name)) {
            return Err(LoopError::usage(format!(
                "`{}` is not a name for a guard or an area: a name has 1 to {MAX_NAME_CHARS} characters that can be seen",
                visible::line(&visible::cut(name, MAX_NAME_CHARS))
            )));
        }
        for (name, guard) in &self.guards {
            in_range(&format!("guards.{name}.margin_pct"), guard.margin_pct(), 0.01, 1000.0)?;
        }
        Ok(())
    }

    /// Every command, with the placeholders that it must have.
    fn commands(&self) -> Vec<(&str, &'static [&'static str])> {
        const STEPS: &[&str] = &["{steps}"];
        fn of(workload: &Workload) -> impl Iterator<Item = (&str, &'static [&'static str])> {
            let eval = workload.eval.iter().map(|eval| (eval.as_str(), &["{checkpoint}"][..]));
            eval.chain([(workload.command.as_str(), STEPS)])
        }
        let mut commands = vec![(self.build.command.as_str(), &[][..])];
        commands.extend(of(&self.workload));
        for guard in self.guards.values() {
            match guard {
                Guard::Workload { workload, .. } => commands.extend(of(workload)),
                Guard::Command { command, .. } => commands.push((command, &[])),
                Guard::PeakMemory { .. } | Guard::FirstStep { .. } | Guard::BuildTime { .. } => {}
            }
        }
        commands.extend(self.smoke.iter().map(|smoke| (smoke.command.as_str(), STEPS)));
        if let Some(trace) = &self.trace {
            commands.push((&trace.command, STEPS));
            commands.extend(trace.peaks.iter().map(|peaks| (peaks.as_str(), &[][..])));
        }
        if let Some(sampling) = &self.sampling {
            commands.extend(
                [&sampling.greedy, &sampling.seeded].map(|one| (one.as_str(), &["{checkpoint}", "{prompt}"][..])),
            );
            commands.extend(sampling.training.iter().map(|training| (training.as_str(), STEPS)));
        }
        commands
    }
}

impl Workload {
    fn check(&self) -> Result<(), LoopError> {
        if self.steps < LEAST_STEPS {
            let steps = self.steps;
            return Err(LoopError::usage(format!("`steps` is {steps}; a workload has at least {LEAST_STEPS}")));
        }
        if self.tokens_per_step == 0 {
            return Err(LoopError::usage("`tokens_per_step` is 0"));
        }
        relative(&self.inputs)?;
        relative(self.metrics.file.as_ref())?;
        self.check_record()?;
        if self.sharing == Sharing::Lines && self.step_form().is_none() {
            return Err(LoopError::usage(
                "`sharing = \"lines\"` needs the form of the lines that it prints for its steps: `metrics = { format = \"…\" }` or `step_line = '…'`",
            ));
        }
        let has_protocol = matches!(self.sharing, Sharing::Turns | Sharing::Sequential);
        if has_protocol && self.step_line.is_some() {
            return Err(LoopError::usage(
                "`step_line` belongs to `sharing = \"lines\"` or `\"whole\"`: by the turn protocol the trainer says itself when a step is done",
            ));
        }
        if !has_protocol && self.adapter.is_some() {
            return Err(LoopError::usage(
                "`adapter` speaks the turn protocol: `sharing` is then `turns` or `sequential`",
            ));
        }
        if !has_protocol && self.weights.is_some() {
            return Err(LoopError::usage(
                "`weights` needs the turn protocol: with `sharing = \"whole\"` or `\"lines\"` nobody can ask for them",
            ));
        }
        Ok(())
    }

    fn check_record(&self) -> Result<(), LoopError> {
        if self.adapter.is_some() && self.metrics.rows_file().is_none() {
            return Err(LoopError::usage("`adapter` writes the record itself: `metrics` is then the name of a file"));
        }
        match &self.metrics.form {
            Form::Lines(form) if !form.has("loss") => Err(LoopError::usage(format!(
                "the step lines of `{}` have no training loss, so that nobody can tell whether both train the same",
                form.name
            ))
            .hint(
                "`adapter = \"pytorch\"` sees the losses; or add the loss to the line, and name its form with `regex`",
            )),
            _ => Ok(()),
        }
    }
}

fn in_range(name: &str, value: f64, low: f64, high: f64) -> Result<(), LoopError> {
    if value.is_finite() && value >= low && value <= high {
        return Ok(());
    }
    Err(LoopError::usage(format!("`{name}` is {value}; it can be {low} to {high}")))
}

fn is_name(name: &str) -> bool {
    (1..=MAX_NAME_CHARS).contains(&name.chars().count()) && !name.contains(visible::is_hidden)
}

/// The globs, compiled.
pub(super) fn glob_set(globs: &[String]) -> Result<GlobSet, LoopError> {
    let wrong = |error: globset::Error| LoopError::usage(error.to_string());
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        set.add(Glob::new(glob).map_err(wrong)?);
    }
    set.build().map_err(wrong)
}

fn relative<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> Result<(), LoopError> {
    for path in paths {
        let inside = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !inside || path.as_os_str().is_empty() {
            let path = path.display();
            return Err(LoopError::usage(format!("`{path}` must be a path inside the repository")));
        }
    }
    Ok(())
}
