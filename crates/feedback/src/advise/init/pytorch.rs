//! Recognises trainers that use PyTorch, from their source alone.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use pairbench::pair::timed_command;

use super::{
    Draft,
    data::{self, ignored_data},
};
use crate::{LoopError, config::FILE_NAME, git::Repository};

/// Names that a training script usually has.
pub(super) const SCRIPTS: [&str; 7] =
    ["train.py", "train_gpt2.py", "train_gpt.py", "pretrain.py", "main.py", "run.py", "scripts/base_train.py"];
/// Flags that set the number of steps, as trainers name them.
const STEPS_FLAGS: [&str; 8] =
    ["max_iters", "max_steps", "num_iterations", "num_steps", "train_steps", "total_steps", "iterations", "steps"];
/// Tracked entries of the top folder that no trainer consists of.
const NOT_CODE: [&str; 9] = ["docs", "doc", "assets", "tests", "test", "data", "datasets", "notebooks", "images"];

/// The draft for a repository with a training script that uses PyTorch; none for any other. The script is the one in the
/// user's command, else one with a usual name, else the only one of the top folder that takes a number of steps.
pub(super) fn describe(repository: &Repository, command: Option<&str>) -> Result<Option<Draft>, LoopError> {
    let root = repository.root();
    let read = |name: &str| {
        let source = fs::read_to_string(root.join(name)).ok()?;
        let uses_torch = source.contains("import torch") || source.contains("from torch");
        uses_torch.then(|| (name.to_owned(), source))
    };
    let words = command.map(timed_command::words).transpose()?.unwrap_or_default();
    let of_command = words.iter().filter(|word| is_python(word)).find_map(|word| read(word));
    let found = match of_command.or_else(|| SCRIPTS.into_iter().find_map(read)) {
        Some(found) => Some(found),
        None => only_one(repository.files(&repository.head()?.tree)?.iter().filter_map(|path| {
            let name = path.to_str().filter(|name| is_python(name) && !name.contains('/'))?;
            read(name).filter(|(_, source)| steps_flag(source).is_some())
        })),
    };
    let Some((script, source)) = found else { return Ok(None) };
    let mut draft = Draft {
        kind: "pytorch",
        build: "true".to_owned(),
        artifacts: code(repository)?,
        steps: 30,
        tokens_per_step: 1,
        adapter: Some("pytorch"),
        ..Draft::default()
    };
    // Settings that are read from a file are a change of the trainer, as its code is.
    draft.inputs = data::tracked(repository)?;
    let is_setting = |name: &String| [".json", ".yaml", ".yml"].iter().any(|end| name.ends_with(end));
    draft.inputs.retain(|name| root.join(name).is_file() && !is_setting(name));
    draft.artifacts.retain(|name| !draft.inputs.contains(name));
    let python = python(root, &mut draft);
    draft.toolchain = vec![toolchain(&python)];
    let ignored = ignored_data(&repository.ignored()?);
    if source.contains("configurator.py") && source.contains("max_iters") {
        nanogpt(root, &python, &script, &ignored, &mut draft);
    } else {
        draft.data = ignored.iter().map(|path| path.display().to_string()).collect();
        let flag = steps_flag(&source);
        let flag = flag.unwrap_or_else(|| {
            draft.guesses.push(format!(
                "`workload.command`: the flag by which `{script}` gets its number of steps, as `{{steps}}`"
            ));
            "--steps".to_owned()
        });
        let seed = if has_flag(&source, "--seed") { " --seed={seed}" } else { "" };
        draft.command = format!("{python} {script} {flag}={{steps}}{seed}");
        draft.guesses.push("`workload.command`: small settings, evaluation and checkpoints off".to_owned());
    }
    Ok(Some(draft))
}

/// The command whose output names a Python and its PyTorch: quicker than an import.
pub(super) fn toolchain(python: &str) -> String {
    if has_torch(Path::new(python)) {
        format!("{python} -c 'import sys, importlib.metadata as m; print(sys.version, m.version(\"torch\"))'")
    } else {
        format!("{python} --version")
    }
}

fn is_python(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|ending| ending == "py")
}

fn only_one<T>(mut all: impl Iterator<Item = T>) -> Option<T> {
    let first = all.next()?;
    all.next().is_none().then_some(first)
}

/// nanoGPT takes its settings as `--name=value`. A CPU gets the sizes that its README has for one.
fn nanogpt(root: &Path, python: &str, script: &str, ignored: &BTreeSet<PathBuf>, draft: &mut Draft) {
    draft.kind = "nanogpt";
    let datasets: Vec<&PathBuf> = ignored.iter().filter(|path| root.join(path).join("train.bin").exists()).collect();
    let Some(folder) = datasets.iter().find(|path| path.ends_with("shakespeare_char")).or(datasets.first()) else {
        draft.guesses.push(
            "`data`: no `data/<name>/train.bin` is there; run `python3 data/shakespeare_char/prepare.py`, then `alpha loop init` again"
                .to_owned(),
        );
        draft.command = format!("{python} {script} --max_iters={{steps}}");
        return;
    };
    draft.data = vec![folder.display().to_string()];
    let dataset = folder.file_name().unwrap_or_default().to_string_lossy();
    let is_cpu = !Path::new("/dev/nvidia0").exists();
    let machine = if is_cpu {
        "--device=cpu --compile=False --dtype=float32 --block_size=64 --batch_size=12 --n_layer=4 --n_head=4 --n_embd=128 \
         --gradient_accumulation_steps=1"
    } else {
        "--compile=False"
    };
    draft.command = format!(
        "{python} {script} --dataset={dataset} {machine} --dropout=0.0 --learning_rate=1e-3 --warmup_iters=10 \
         --log_interval=1 --eval_interval=1000000 --eval_iters=1 --always_save_checkpoint=False --max_iters={{steps}}"
    );
    draft.guesses.push("`workload.command`: the sizes of the model and of a batch".to_owned());
}

/// The flag among those that the source parses: in quotes, or in a form such as `"--steps=%d"`.
pub(super) fn steps_flag(source: &str) -> Option<String> {
    for name in STEPS_FLAGS {
        for name in [name.to_owned(), name.replace('_', "-")] {
            let flag = format!("--{name}");
            if has_flag(source, &flag) {
                return Some(flag);
            }
        }
    }
    // `HfArgumentParser` makes flags of all fields of `TrainingArguments`.
    source.contains("HfArgumentParser").then(|| "--max_steps".to_owned())
}

fn has_flag(source: &str, flag: &str) -> bool {
    [format!("\"{flag}\""), format!("'{flag}'"), format!("\"{flag}=")].iter().any(|text| source.contains(text))
}

/// The tracked entries of the top folder that may be code.
pub(super) fn code(repository: &Repository) -> Result<Vec<String>, LoopError> {
    let files = repository.files(&repository.head()?.tree)?;
    let top: BTreeSet<String> = files
        .iter()
        .filter(|path| {
            let name = path.to_string_lossy();
            !name.ends_with(".md")
                && !name.ends_with(".ipynb")
                && !name.starts_with('.')
                && !name.starts_with("LICENSE")
        })
        .filter_map(|path| Some(path.components().next()?.as_os_str().to_string_lossy().into_owned()))
        .filter(|name| !NOT_CODE.contains(&name.as_str()) && name != FILE_NAME && repository.root().join(name).exists())
        .collect();
    Ok(top.into_iter().collect())
}

/// The Python that has PyTorch: that of `PATH`, or of an environment in the repository, which is then made visible.
pub(super) fn python(root: &Path, draft: &mut Draft) -> String {
    if has_torch(Path::new("python3")) {
        return "python3".to_owned();
    }
    let active = env::var_os("VIRTUAL_ENV").map(PathBuf::from);
    for folder in active.into_iter().chain([".venv", "venv", "env"].map(|name| root.join(name))) {
        let python = folder.join("bin/python3");
        if has_torch(&python) {
            draft.visible.push(folder.display().to_string());
            let base = Command::new(&python).args(["-c", "import sys; print(sys.base_prefix)"]).output();
            let base = base.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
            if !base.is_empty() && !base.starts_with("/usr") {
                draft.visible.push(base);
            }
            return python.display().to_string();
        }
    }
    draft.guesses.push(
        "`workload.command`: no `python3` here has PyTorch; name the one that does, and its folder in `visible`"
            .to_owned(),
    );
    "python3".to_owned()
}

fn has_torch(python: &Path) -> bool {
    let question = "import importlib.util as u; exit(u.find_spec('torch') is None)";
    Command::new(python).args(["-c", question]).output().is_ok_and(|output| output.status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_found_as_trainers_write_them() {
        let flag = |source: &str| steps_flag(source);
        assert_eq!(flag("p.add_argument('--max-steps', type=int)").as_deref(), Some("--max-steps"));
        assert_eq!(flag("p.add_argument(\"--num_iterations\")").as_deref(), Some("--num_iterations"));
        assert_eq!(flag("HfArgumentParser(TrainingArguments)").as_deref(), Some("--max_steps"));
        assert_eq!(flag("max_steps = 10"), None);
    }
}
