//! `alpha loop init`: writes a `loop.toml` from what a repository looks like.

use std::{fs, path::Path};

use pairbench::files;

use crate::{
    LoopError,
    config::{FILE_NAME, LoopConfig},
};

/// The file that was written, and the parts that the user has to check.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Initialised {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The kind of repository: `alpha`, `cargo`, `make`, `python`, `unknown`.
    pub kind: &'static str,
    /// Guesses that the user should check.
    pub guesses: Vec<String>,
    /// The file's text.
    pub text: String,
}

/// Version of [`Initialised`].
pub const SCHEMA: &str = "alpha.loop.init/1";

/// Writes `loop.toml` into the root of a repository that has none.
pub fn init(root: &Path) -> Result<Initialised, LoopError> {
    let path = root.join(FILE_NAME);
    if path.exists() {
        return Err(LoopError::usage(format!("`{}` is there already", path.display()))
            .hint("edit it; `alpha loop doctor` checks it"));
    }
    let made = describe(root);
    LoopConfig::parse(&made.text, None)?;
    files::write(&path, made.text.as_bytes())?;
    Ok(made)
}

/// The file that `init` would write.
pub fn describe(root: &Path) -> Initialised {
    let has = |name: &str| root.join(name).exists();
    let (kind, text, guesses): (_, String, &[&str]) = if has("crates/alpha") && has("scripts/build.sh") {
        ("alpha", ALPHA.to_owned(), &[])
    } else if has("Cargo.toml") {
        let name = package_name(root);
        let build = "cargo build --release --target-dir target".to_owned();
        (
            "cargo",
            template(&build, &format!("target/release/{name}"), &format!("./target/release/{name} --steps={{steps}}")),
            &GUESSES,
        )
    } else if has("Makefile") || has("makefile") {
        ("make", template("make", "train", "./train --steps={steps}"), &GUESSES)
    } else if let Some(script) = ["train.py", "train_gpt2.py", "main.py"].into_iter().find(|name| has(name)) {
        ("python", template("true", script, &format!("python3 {script} --steps={{steps}}")), &GUESSES)
    } else {
        ("unknown", template("make", "train", "./train --steps={steps}"), &GUESSES)
    };
    Initialised { schema: SCHEMA, kind, guesses: guesses.iter().map(ToString::to_string).collect(), text }
}

const GUESSES: [&str; 3] = [
    "`build.command` and `build.artifacts`: how the trainer is built, and what it consists of",
    "`workload.command`, `steps`, `tokens_per_step`, `inputs`: a run of about a second of steps",
    "`workload.sharing`: `turns` needs the turn protocol (docs/turns.md); `whole` times whole processes",
];

/// The package's name in `Cargo.toml`, as far as it can be told without cargo.
fn package_name(root: &Path) -> String {
    let text = fs::read_to_string(root.join("Cargo.toml")).unwrap_or_default();
    let table: Option<toml::Table> = text.parse().ok();
    let name = table.as_ref().and_then(|table| table.get("package")?.get("name")?.as_str());
    name.unwrap_or("train").to_owned()
}

fn template(build: &str, artifact: &str, command: &str) -> String {
    format!(
        r#"# What `alpha loop` builds, runs, guards and seals. Read it over: the values below are guesses.
schema = 1
epsilon_pct = 0.5          # the smallest gain that counts
budget = "3m"              # the longest comparison, builds and confirmation aside
unmeasured = ["perf/**", "runs/**"]
# Files of the instrument: a change of one is never a gain.
sealed = ["data/**"]

[build]
command = "{build}"
artifacts = ["{artifact}"]
toolchain = []             # commands whose output names the toolchain, such as "rustc -vV"

[workload]
command = "{command}"
steps = 200
tokens_per_step = 1024
inputs = []                # files and folders that the command reads
metrics = "run/metrics.jsonl"
sharing = "whole"          # "turns" once the trainer speaks the turn protocol: far less noise

[guards.memory]
kind = "peak_memory"
margin_pct = 5
"#
    )
}

/// The `loop.toml` of this program's own repository.
const ALPHA: &str = include_str!("init/alpha.toml");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_repository_gets_a_file_that_can_be_read() {
        for (name, kind) in [
            ("crates/alpha/x", "alpha"),
            ("Cargo.toml", "cargo"),
            ("Makefile", "make"),
            ("train.py", "python"),
            ("x", "unknown"),
        ] {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir_all(root.path().join("crates")).unwrap();
            if kind == "alpha" {
                files::write(&root.path().join("scripts/build.sh"), b"").unwrap();
            }
            files::write(&root.path().join(name), b"[package]\nname = \"gpt\"\n").unwrap();
            let made = init(root.path()).unwrap();
            assert_eq!(made.kind, kind);
            LoopConfig::parse(&fs::read_to_string(root.path().join(FILE_NAME)).unwrap(), None).unwrap();
            assert_eq!(made.text.contains("target/release/gpt"), kind == "cargo");
            let again = init(root.path()).unwrap_err();
            assert!(again.to_string().contains("is there already"), "{again}");
        }
    }

    #[test]
    fn this_repository_has_the_file_that_init_writes() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let tracked = fs::read_to_string(root.join(FILE_NAME)).unwrap();
        assert_eq!(describe(&root).text, tracked);
    }
}
