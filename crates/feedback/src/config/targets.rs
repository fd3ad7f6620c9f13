//! `[targets]`: what differs for another thing that is made faster.

use super::{FILE_NAME, Guard, LoopConfig};
use crate::LoopError;

/// The keys that a target may set differently from the file; all targets share the rest.
const OF_TARGET: [&str; 7] = ["epsilon_pct", "workload", "smoke", "trace", "sampling", "guards", "areas"];

impl LoopConfig {
    /// Reads and checks the file's text, including all of its targets, and returns the configuration of one of them.
    pub fn parse(text: &str, target: Option<&str>) -> Result<LoopConfig, LoopError> {
        let wrong = |what: String| LoopError::usage(format!("`{FILE_NAME}`: {what}"));
        let shown = |error: toml::de::Error| error.to_string().trim_end().to_owned();
        let mut file: toml::Table = toml::from_str(text).map_err(|error| wrong(shown(error)))?;
        let has_targets = file.contains_key("targets");
        let targets = match file.remove("targets") {
            None => toml::Table::new(),
            Some(toml::Value::Table(targets)) => targets,
            Some(_) => return Err(wrong("`targets` is not a table".to_owned())),
        };
        let read = |table: &toml::Table| -> Result<LoopConfig, LoopError> {
            // Without targets the text is parsed, because then errors have line numbers.
            let parsed = if has_targets { table.clone().try_into() } else { toml::from_str(text) };
            let mut config: LoopConfig = parsed.map_err(|error| LoopError::usage(shown(error)))?;
            config.workload.complete();
            for guard in config.guards.values_mut() {
                if let Guard::Workload { workload, .. } = guard {
                    workload.complete();
                }
            }
            config.check()?;
            Ok(config)
        };
        let mut chosen = read(&file).map_err(|error| wrong(error.message))?;
        for (name, values) in &targets {
            if !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)) || name.is_empty() {
                return Err(wrong(format!("`targets.{name}`: a name has letters, digits, `-` and `_`")));
            }
            let mut merged = file.clone();
            let values = values.as_table().ok_or_else(|| wrong(format!("`targets.{name}` is not a table")))?;
            for (key, value) in values {
                if !OF_TARGET.contains(&key.as_str()) {
                    return Err(wrong(format!("`targets.{name}.{key}`: a target has {}", OF_TARGET.join(", "))));
                }
                merged.insert(key.clone(), value.clone());
            }
            let config = read(&merged).map_err(|error| wrong(format!("`targets.{name}`: {}", error.message)))?;
            if target == Some(name) {
                chosen = LoopConfig { target: Some(name.clone()), ..config };
            }
        }
        match target {
            Some(target) if chosen.target.is_none() => {
                let known: Vec<&str> = targets.keys().map(String::as_str).collect();
                Err(LoopError::usage(format!("`{target}` is not a target of `{FILE_NAME}`"))
                    .hint(format!("it has: {}", if known.is_empty() { "none".to_owned() } else { known.join(", ") })))
            }
            _ => Ok(chosen),
        }
    }

    /// The names of the targets of the file's text.
    pub fn targets(text: &str) -> Result<Vec<String>, LoopError> {
        let file: toml::Table =
            toml::from_str(text).map_err(|error| LoopError::usage(format!("`{FILE_NAME}`: {error}")))?;
        let targets = file.get("targets").and_then(toml::Value::as_table);
        Ok(targets.map_or_else(Vec::new, |targets| targets.keys().cloned().collect()))
    }

    /// Whether the file's text has this target.
    pub fn has_target(text: &str, target: &str) -> bool {
        let file: Option<toml::Table> = toml::from_str(text).ok();
        file.and_then(|file| Some(file.get("targets")?.as_table()?.contains_key(target))).unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::SMALL;

    #[test]
    fn a_target_says_otherwise_what_it_may_and_keeps_the_rest() {
        let text = format!(
            "{SMALL}\n[targets.gpu.workload]\ncommand = \"./out/trainer --gpu {{steps}}\"\nsteps = 20\n\
             tokens_per_step = 64\n[targets.gpu.guards.first]\nkind = \"first_step\"\nmargin_pct = 9\n"
        );
        let own = LoopConfig::parse(&text, None).unwrap();
        assert_eq!((own.target, own.workload.steps, own.guards.len()), (None, 50, 1));
        let gpu = LoopConfig::parse(&text, Some("gpu")).unwrap();
        assert_eq!((gpu.target.as_deref(), gpu.workload.steps, gpu.budget), (Some("gpu"), 20, own.budget));
        assert_eq!(gpu.guards.keys().collect::<Vec<_>>(), ["first"], "a table of the target replaces the file's");
        assert!(LoopConfig::has_target(&text, "gpu") && !LoopConfig::has_target(&text, "cpu"));
        assert!(!LoopConfig::has_target(SMALL, "gpu"));
        LoopConfig::parse(&format!("{SMALL}\n[targets]\n"), None).unwrap();
        for (from, to, target, named) in [
            ("", "", Some("cpu"), "`cpu` is not a target"),
            // Also if it is not the requested target.
            ("steps = 20", "steps = 2", None, "`targets.gpu`: `steps` is 2"),
            (
                "[targets.gpu.guards",
                "[targets.gpu.build]\ncommand = \"x\"\n[targets.gpu.guards",
                None,
                "targets.gpu.build",
            ),
            ("--gpu {steps}", "--gpu", Some("gpu"), "has no `{steps}`"),
            ("targets.gpu", "targets.\"g/u\"", None, "letters, digits"),
        ] {
            let error = LoopConfig::parse(&text.replace(from, to), target).unwrap_err();
            assert!(error.to_string().contains(named), "{error}");
        }
        let error = LoopConfig::parse(SMALL, Some("gpu")).unwrap_err();
        assert!(error.to_string().contains("not a target"), "{error}");
    }
}
