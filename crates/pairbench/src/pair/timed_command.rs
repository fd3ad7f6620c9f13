//! The command that is timed.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;

use crate::{LoopError, pair::lines::StepLines};

/// A command line with placeholders, and how it shares the machine with the other arm's.
#[derive(Clone, Debug)]
pub struct TimedCommand {
    /// Words as a shell would split them; `{steps}` and `{seed}` are filled in.
    pub line: String,
    /// Steps of a run, all of the same size.
    pub steps: u64,
    /// How the two arms of a pair share the machine.
    pub sharing: Sharing,
    /// If a turn, or a run without turns, takes longer, the comparison ends.
    pub turn_timeout: Duration,
    /// Whether it writes its weights when it is asked to.
    pub writes_weights: bool,
    /// Tells its step lines: needed by [`Sharing::Lines`]; with [`Sharing::Whole`] they say when the warm-up is over.
    pub step_lines: Option<Arc<dyn StepLines>>,
}

/// How the two trainers of a pair share the machine.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Sharing {
    /// Both are alive at once and run in turns: the trainer speaks the turn protocol.
    #[default]
    Turns,
    /// Both are alive at once and run in turns, which end with the lines that the trainer prints for its steps.
    Lines,
    /// One after the other, with the turn protocol: for machines that cannot hold both. Noisier.
    Sequential,
    /// One after the other, whole processes timed: for trainers that do not speak the protocol. Start and end are
    /// part of the time, unless step lines tell the steps.
    Whole,
}

/// Splits a command as a shell would, without expanding anything.
///
/// # Errors
/// [`LoopError::usage`] where that yields no words.
pub fn words(command: &str) -> Result<Vec<String>, LoopError> {
    match shlex::split(command) {
        Some(words) if !words.is_empty() => Ok(words),
        Some(_) => Err(LoopError::usage("a command is empty")),
        None => Err(LoopError::usage(format!("`{command}` cannot be split into words: a quote is open"))),
    }
}

/// Splits a command and fills in its placeholders, each in the word it stands in.
pub fn fill(command: &str, values: &[(&str, &str)]) -> Result<Vec<String>, LoopError> {
    let mut words = words(command)?;
    for word in &mut words {
        for (name, value) in values {
            *word = word.replace(&format!("{{{name}}}"), value);
        }
        let open = ["steps", "seed", "step", "checkpoint", "prompt", "layout"]
            .into_iter()
            .find(|name| word.contains(&format!("{{{name}}}")) && !values.iter().any(|(known, _)| known == name));
        if let Some(name) = open {
            return Err(LoopError::usage(format!("`{{{name}}}` has no value in `{command}`")));
        }
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_without_a_value_are_errors() {
        assert!(fill("a {seed}", &[("steps", "1")]).is_err());
        assert_eq!(fill("a {other}", &[]).unwrap(), ["a", "{other}"]);
    }
}
