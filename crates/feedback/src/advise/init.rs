//! `alpha loop init`: writes a `loop.toml` from what a repository looks like, and tries it.

mod data;
mod forms;
mod presets;
mod probe;
mod pytorch;

use std::{fs, path::Path};

use pairbench::{files, pair::timed_command};

use crate::{
    LoopError, Progress,
    config::{FILE_NAME, LoopConfig},
    git::Repository,
};

pub use self::probe::Probed;

/// The file that was written, and the parts that the user has to check.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Initialised {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The kind of repository: `alpha`, a known trainer's name, `pytorch`, `cargo`, `make`, `python`, `unknown`.
    pub kind: &'static str,
    /// Guesses that the user should check.
    pub guesses: Vec<String>,
    /// The command of a run, with its placeholders.
    pub command: String,
    /// The file's text.
    pub text: String,
    /// What a few steps showed; none if they were not run.
    pub probed: Option<Probed>,
    /// Why the trainer did not run, if it did not.
    pub problem: Option<String>,
}

/// Version of [`Initialised`].
pub const SCHEMA: &str = "alpha.loop.init/1";

/// What the user says of the repository.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The kind, instead of what the files look like: see [`kinds`].
    pub preset: Option<String>,
    /// The command of a short run, with `{steps}`.
    pub command: Option<String>,
    /// Whether a few steps are run.
    pub is_probed: bool,
}

/// The names that [`Request::preset`] can have.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    presets::names().chain(["pytorch", "cargo", "make", "python"])
}

/// Writes `loop.toml` into the root of a repository that has none. Some steps of the trainer are run first, as a
/// comparison would run them, and the file holds what they showed.
///
/// # Errors
/// [`LoopError::usage`] where the file is there already, or the request names a kind that is not known or a command
/// without `{steps}`. A trainer that does not run is not an error: the file is written, and [`Initialised::problem`]
/// says why.
pub fn init(repository: &Repository, request: &Request, progress: &dyn Progress) -> Result<Initialised, LoopError> {
    let root = repository.root();
    let path = root.join(FILE_NAME);
    if path.exists() {
        return Err(LoopError::usage(format!("`{}` is there already", path.display()))
            .hint("edit it; `alpha loop doctor` checks it"));
    }
    let mut draft = describe(repository, request.preset.as_deref(), request.command.as_deref())?;
    if let Some(command) = &request.command {
        draft.take_command(command)?;
    }
    let (mut probed, mut problem) = (None, None);
    if request.is_probed && draft.is_probed() {
        progress.note(&format!("running a few steps of `{}`, as a comparison runs them", draft.command));
        let ran = LoopConfig::parse(&draft.text(), None).and_then(|config| probe::run(repository, &config, progress));
        match ran {
            Ok((found, form)) => {
                draft.take(&found, form);
                probed = Some(found);
            }
            Err(error) if error.kind == crate::ErrorKind::Interrupted => return Err(error),
            Err(error) => problem = Some(error.to_string()),
        }
    }
    let text = draft.text();
    LoopConfig::parse(&text, None)?;
    files::write(&path, text.as_bytes())?;
    let Draft { kind, guesses, command, .. } = draft;
    Ok(Initialised { schema: SCHEMA, kind, guesses, command, text, probed, problem })
}

/// What the file will say.
#[derive(Clone, Debug, Default)]
struct Draft {
    kind: &'static str,
    /// The whole text, where it is known.
    whole: Option<&'static str>,
    build: String,
    artifacts: Vec<String>,
    toolchain: Vec<String>,
    command: String,
    steps: u64,
    tokens_per_step: u64,
    /// What git tracks and the command reads.
    inputs: Vec<String>,
    /// What git does not track.
    data: Vec<String>,
    visible: Vec<String>,
    adapter: Option<&'static str>,
    /// `workload.metrics`, where the trainer prints its steps.
    metrics: Option<String>,
    /// Whether it can take turns only after an edit.
    needs_edit: bool,
    guesses: Vec<String>,
}

/// What `init` would write for this repository.
fn describe(repository: &Repository, preset: Option<&str>, command: Option<&str>) -> Result<Draft, LoopError> {
    let root = repository.root();
    let has = |name: &str| root.join(name).exists();
    if let Some(name) = preset
        && !kinds().any(|kind| kind == name)
    {
        let known = kinds().collect::<Vec<_>>().join(", ");
        return Err(LoopError::usage(format!("`{name}` is not a kind of trainer that is known: {known}")));
    }
    if preset.is_none() && has("crates/alpha") && has("scripts/build.sh") {
        return Ok(Draft { kind: "alpha", whole: Some(ALPHA), ..Draft::default() });
    }
    if let Some(draft) = presets::describe(repository, preset)? {
        return Ok(draft);
    }
    if preset.is_none_or(|name| ["pytorch", "nanogpt"].contains(&name)) {
        let draft = pytorch::describe(repository, command)?;
        let fits = |draft: &Draft| preset.is_none_or(|name| name == "pytorch" || name == draft.kind);
        match (draft.filter(fits), preset) {
            (Some(draft), _) => return Ok(draft),
            (None, Some(name)) => {
                return Err(LoopError::usage(format!("`--preset={name}`: no script of this kind is here"))
                    .hint("`--command='python3 path/to/script.py … {steps} …'` names it"));
            }
            (None, None) => {}
        }
    }
    let kind = preset.unwrap_or(if has("Cargo.toml") {
        "cargo"
    } else if has("Makefile") || has("makefile") {
        "make"
    } else {
        "python"
    });
    built(repository, kind)
}

/// A program that a build makes, or a script without PyTorch.
fn built(repository: &Repository, kind: &str) -> Result<Draft, LoopError> {
    let root = repository.root();
    let script = pytorch::SCRIPTS.into_iter().find(|name| root.join(name).exists());
    let (kind, build, artifact, program) = match (kind, script) {
        ("cargo", _) => {
            let program = format!("target/release/{}", package_name(root));
            ("cargo", "cargo build --release --target-dir target", program.clone(), format!("./{program}"))
        }
        ("make", _) => ("make", "make", "train".to_owned(), "./train".to_owned()),
        (_, Some(script)) => ("python", "true", script.to_owned(), format!("python3 {script}")),
        (_, None) => ("unknown", "make", "train".to_owned(), "./train".to_owned()),
    };
    let ignored = data::ignored_beside_builds(&repository.ignored()?);
    let sources = data::sources(repository)?;
    let steps_flag = pytorch::steps_flag(&sources).unwrap_or_else(|| "--steps".to_owned());
    let seed = if sources.contains("--seed") { " --seed={seed}" } else { "" };
    let toolchain = match kind {
        "cargo" => vec!["rustc --version".to_owned()],
        "make" => vec!["cc --version".to_owned()],
        "python" => vec!["python3 --version".to_owned()],
        _ => Vec::new(),
    };
    Ok(Draft {
        kind,
        build: build.to_owned(),
        artifacts: vec![artifact],
        toolchain,
        command: format!("{program} {steps_flag}={{steps}}{seed}"),
        steps: 200,
        tokens_per_step: 1024,
        inputs: data::tracked(repository)?,
        data: ignored.iter().map(|path| path.display().to_string()).collect(),
        guesses: GUESSES.map(str::to_owned).to_vec(),
        ..Draft::default()
    })
}

const GUESSES: [&str; 2] = [
    "`build.command` and `build.artifacts`: how the trainer is built, and what it consists of",
    "`workload.command`, `inputs`: a run of about two seconds of steps, and the files that it reads",
];

/// What the file asks for that no run shows.
const TOKENS: &str = "`workload.tokens_per_step`: the tokens of a step, which could not be seen";

/// The package's name in `Cargo.toml`, as far as it can be told without cargo.
fn package_name(root: &Path) -> String {
    let text = fs::read_to_string(root.join("Cargo.toml")).unwrap_or_default();
    let table: Option<toml::Table> = text.parse().ok();
    let name = table.as_ref().and_then(|table| table.get("package")?.get("name")?.as_str());
    name.unwrap_or("train").to_owned()
}

impl Draft {
    /// With the user's command. The program that it starts is an artifact, where it is one of the repository's.
    fn take_command(&mut self, command: &str) -> Result<(), LoopError> {
        if !command.contains("{steps}") {
            return Err(LoopError::usage(format!("`--command={command}` has no `{{steps}}`, which the loop fills in")));
        }
        let words = timed_command::words(command)?;
        if let Some(program) = words[0].strip_prefix("./")
            && !self.artifacts.iter().any(|artifact| artifact == program)
        {
            self.artifacts = vec![program.to_owned()];
        }
        command.clone_into(&mut self.command);
        self.guesses.retain(|guess| !guess.starts_with("`workload.command`:"));
        Ok(())
    }

    /// Whether there is a command that can be tried.
    fn is_probed(&self) -> bool {
        self.whole.is_none() && self.kind != "unknown" && !self.needs_edit
    }

    /// With what the probe showed.
    fn take(&mut self, probed: &Probed, form: probe::FoundLines) {
        self.steps = probed.steps;
        if probed.tokens_per_step > 0 {
            self.tokens_per_step = probed.tokens_per_step;
        } else {
            self.guesses.push(TOKENS.to_owned());
        }
        if probed.has_sparse_lines {
            self.guesses.push(
                "`workload.command`: with a line for every step (a log interval of 1) it can take turns: remove `loop.toml`, then `alpha loop init --command='…'`"
                    .to_owned(),
            );
        } else if probed.turns == "whole" {
            self.guesses.push(
                "`workload.metrics`: no step lines were found in what it prints; `{ format = \"regex\", regex = '…' }` names their form, `{ format = \"jsonl\" }` or `\"csv\"` a file"
                    .to_owned(),
            );
        }
        if let Some(found) = form {
            self.metrics.get_or_insert(found.toml);
        }
    }

    /// Globs of the inputs.
    fn sealed(&self) -> Vec<String> {
        let inputs = self.inputs.iter().filter(|input| *input != "data");
        let inputs = inputs.flat_map(|input| [globset::escape(input), format!("{}/**", globset::escape(input))]);
        ["data/**".to_owned()].into_iter().chain(inputs).collect()
    }

    fn text(&self) -> String {
        if let Some(whole) = self.whole {
            return whole.to_owned();
        }
        // JSON's strings and lists of strings are TOML's too.
        let list = |values: &[String]| serde_json::Value::from(values.to_vec()).to_string();
        let quoted = |value: &str| serde_json::Value::from(value).to_string();
        let turns = match (self.adapter, &self.metrics) {
            (Some(adapter), _) => format!("adapter = {}        # takes turns without an edit of the trainer", quoted(adapter)),
            (None, Some(metrics)) => {
                format!("metrics = {metrics}\nsharing = \"lines\"          # takes turns by the lines that it prints for its steps")
            }
            (None, None) if self.needs_edit => "metrics = \"run/metrics.jsonl\"\nsharing = \"turns\"".to_owned(),
            (None, None) => "metrics = \"run/metrics.jsonl\"\nsharing = \"whole\"          # \"lines\" or \"turns\" for a trainer that can: far less noise".to_owned(),
        };
        // The peak of the same PyTorch program differs by up to 13 % from run to run.
        let memory_margin_pct = if self.adapter.is_some() { 20 } else { 5 };
        let places = [
            ("data", &self.data, "what the trainer reads and git does not track"),
            ("visible", &self.visible, "folders outside the system that the trainer needs"),
        ];
        let places: Vec<String> = places
            .iter()
            .filter(|(_, values, _)| !values.is_empty())
            .map(|(name, values, what)| format!("# {what}\n{name} = {}\n", list(values)))
            .collect();
        let places = places.concat();
        format!(
            r#"# What `alpha loop` builds, runs, guards and seals (docs/guide/own-trainer.md).
schema = 1
epsilon_pct = 0.5          # the smallest gain that counts
budget = "5m"              # the longest comparison, builds and confirmation aside
unmeasured = ["perf/**", "runs/**", "**/*.md"]
# Files of the instrument: a change of one is never a gain.
sealed = {sealed}
{places}
[build]
command = {build}
artifacts = {artifacts}
# Commands whose output names the toolchain.
toolchain = {toolchain}

[workload]
command = {command}
steps = {steps}
tokens_per_step = {tokens}
# Tracked files and folders that the command reads beside the artifacts.
inputs = {inputs}
{turns}

[guards.memory]
kind = "peak_memory"
margin_pct = {memory_margin_pct}
"#,
            build = quoted(&self.build),
            artifacts = list(&self.artifacts),
            inputs = list(&self.inputs),
            sealed = list(&self.sealed()),
            toolchain = list(&self.toolchain),
            command = quoted(&self.command),
            steps = self.steps,
            tokens = self.tokens_per_step,
        )
    }
}

/// The `loop.toml` of this program's own repository.
const ALPHA: &str = include_str!("init/alpha.toml");

#[cfg(test)]
pub(super) mod tests {
    use std::process::Command;

    use pairbench::progress::Quiet;

    use super::*;

    /// A repository with these files.
    pub(in crate::advise::init) fn repository(files: &[(&str, &str)]) -> (tempfile::TempDir, Repository) {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            files::write(&folder.path().join(name), content.as_bytes()).unwrap();
        }
        for words in [
            "init -q",
            "add -A",
            "-c user.name=a -c user.email=a@b -c commit.gpgsign=false commit -q --no-verify -m first",
        ] {
            let done = Command::new("git").arg("-C").arg(folder.path()).args(words.split(' ')).output().unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        }
        let repository = Repository::open(folder.path()).unwrap();
        (folder, repository)
    }

    #[test]
    fn every_kind_of_repository_gets_a_file_that_can_be_read() {
        for (files, kind, word) in [
            (&[("crates/alpha/x", ""), ("scripts/build.sh", "")][..], "alpha", "crates/alpha"),
            (&[("Cargo.toml", "[package]\nname = \"gpt\"\n")], "cargo", "target/release/gpt"),
            (&[("Makefile", "")], "make", "./train"),
            (&[("train.py", "print(1)")], "python", "python3 train.py"),
            (&[("train.py", "import torch\np.add_argument('--max-steps')")], "pytorch", "train.py --max-steps={steps}"),
            (
                &[("train.py", "import torch\nmax_iters = 1\nexec(open('configurator.py').read())")],
                "nanogpt",
                "--max_iters={steps}",
            ),
            (
                &[
                    ("makemore.py", "import torch\np.add_argument('--max-steps')\np.add_argument('--seed')"),
                    ("lib.py", "import torch"),
                ],
                "pytorch",
                "python3 makemore.py --max-steps={steps} --seed={seed}",
            ),
            (&[("x", "")], "unknown", "./train"),
        ] {
            let (folder, repository) = repository(files);
            let made = init(&repository, &Request::default(), &Quiet).unwrap();
            assert_eq!(made.kind, kind);
            let text = fs::read_to_string(folder.path().join(FILE_NAME)).unwrap();
            LoopConfig::parse(&text, None).unwrap();
            assert!(text.contains(word), "{text}");
            let again = init(&repository, &Request::default(), &Quiet).unwrap_err();
            assert!(again.to_string().contains("is there already"), "{again}");
        }
    }

    /// What was asked for by name is not replaced by something else.
    #[test]
    fn a_preset_that_does_not_fit_is_refused() {
        for (files, preset) in [
            (&[("train.py", "import torch")][..], "nanogpt"),
            (&[("train.py", "print(1)")], "pytorch"),
            (&[("Makefile", "")], "pytorch"),
        ] {
            let (folder, repository) = repository(files);
            let request = Request { preset: Some(preset.to_owned()), ..Request::default() };
            let error = init(&repository, &request, &Quiet).unwrap_err().to_string();
            assert!(error.contains("no script of this kind") && !folder.path().join(FILE_NAME).exists(), "{error}");
        }
    }

    #[test]
    fn names_that_need_quotes_are_quoted() {
        let files = [("train.py", "import torch"), (".gitignore", "*.bin"), ("a \"b\"/é.bin", "1"), ("c.py", "")];
        let (_folder, repository) = repository(&files);
        let config = LoopConfig::parse(&init(&repository, &Request::default(), &Quiet).unwrap().text, None).unwrap();
        assert_eq!(config.data, ["a \"b\""].map(std::path::PathBuf::from));
        assert_eq!(config.build.artifacts, ["c.py", "train.py"].map(std::path::PathBuf::from));
    }

    #[test]
    fn this_repository_has_the_file_that_init_writes() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let tracked = fs::read_to_string(root.join(FILE_NAME)).unwrap();
        assert_eq!(describe(&Repository::open(&root).unwrap(), None, None).unwrap().text(), tracked);
    }
}
