//! The `commit-msg` hook: a gain is claimed with the record of its measurement, or not at all.
//!
//! A subject that reads as a claim of speed but has another form is refused, with the right form as a hint; all other
//! commits pass. The hook guards against mistakes, not against intent (`git commit --no-verify`): `alpha loop audit`
//! and `verify` read the history by the same rules. A merge, a rebase or an amended commit is judged like any other: by
//! the staged tree.

use std::{
    env, fmt, fs,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
};

use globset::GlobSet;
use pairbench::files;
use serde::Serialize;

use crate::{
    LoopError,
    config::{self, LoopConfig},
    git::Repository,
    ledger::Ledger,
    records::{
        claim::{self, AttemptClaim, Claim},
        evidence,
    },
    store::session::config_text,
};

/// Version of [`Installed`] and [`Uninstalled`].
pub const SCHEMA: &str = "alpha.loop.hook/1";

/// `@PROGRAM@` stands for the program's path.
const SCRIPT: &str = include_str!("hook/commit-msg.in");
/// Marks our hook.
const MARK: &str = "# alpha loop hook:";
const NAME: &str = "commit-msg";
/// The hook that was there before ours.
const KEPT_NAME: &str = "commit-msg.before-alpha";

/// The result of installing the hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Installed {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Path of the hook.
    pub hook: String,
    /// Path of the hook that was there before; it is called first.
    pub kept: Option<String>,
    /// Whether other repositories may share that folder of hooks (`core.hooksPath`). In those without a `loop.toml`,
    /// every commit passes.
    pub shared: bool,
}

/// The result of removing the hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Uninstalled {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Path of the hook that was removed; none if there was none.
    pub removed: Option<String>,
    /// Path of the earlier hook that is in force again.
    pub restored: Option<String>,
}

/// What is about to be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staged {
    /// Its tree without unmeasured files.
    pub measured_tree: String,
    /// The trees that it may follow, without unmeasured files: HEAD's, and that of HEAD's parent, which counts when a
    /// commit is amended.
    pub measured_parents: Vec<String>,
    /// Its changes to HEAD and to HEAD's parent. Git does not tell a hook whether a commit is amended.
    pub patch_ids: Vec<String>,
}

/// In words.
impl fmt::Display for Installed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "installed `{}`", self.hook)?;
        if let Some(kept) = &self.kept {
            writeln!(f, "calls first what was there: `{kept}`")?;
        }
        if self.shared {
            writeln!(
                f,
                "`core.hooksPath` says that folder: it serves every repository with that setting; those without a \
                 `loop.toml` are let through"
            )?;
        }
        Ok(())
    }
}

/// In words.
impl fmt::Display for Uninstalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(hook) = &self.removed {
            writeln!(f, "removed `{hook}`")?;
        }
        if let Some(hook) = &self.restored {
            writeln!(f, "`{hook}` is again what it was before")?;
        }
        if self.removed.is_none() && self.restored.is_none() {
            writeln!(f, "there was no hook of alpha")
        } else {
            Ok(())
        }
    }
}

/// Writes the hook into the repository that contains `path`, where `core.hooksPath` says. An existing hook is kept and
/// called first. Installing again only renews the hook.
///
/// At commit time it runs `alpha`, or `program` where `PATH` has none.
///
/// # Errors
/// [`LoopError::usage`] where there is no repository, and where another hook came after ours.
pub fn install(path: &Path, program: &Path) -> Result<Installed, LoopError> {
    let folder = hooks_folder(path)?;
    let (hook, kept) = (folder.join(NAME), folder.join(KEPT_NAME));
    let program = std::path::absolute(program).map_err(|error| LoopError::io("find", program, &error))?;
    let quoted = program.to_str().and_then(|program| shlex::try_quote(program).ok()).ok_or_else(|| {
        LoopError::usage(format!(
            "the path of the program, `{}`, is not text that a script can hold",
            program.display()
        ))
        .hint("move the program to another folder")
    })?;

    // The file is complete and executable before it gets its name.
    let new = folder.join("commit-msg.alpha-new");
    files::write(&new, SCRIPT.replace("@PROGRAM@", &quoted).as_bytes())?;
    let failed = |error: io::Error| LoopError::io("write", &hook, &error);
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).map_err(failed)?;
    if exists(&hook) && !is_ours(&hook) {
        if exists(&kept) {
            let _ = fs::remove_file(&new);
            let message = format!("neither `{}` nor `{}` is a hook of alpha", hook.display(), kept.display());
            return Err(LoopError::usage(message).hint("one hook can be kept: call one from the other"));
        }
        fs::rename(&hook, &kept).map_err(failed)?;
    }
    fs::rename(&new, &hook).map_err(failed)?;
    let kept = exists(&kept).then(|| kept.display().to_string());
    let shared = !is_own(&folder, &Repository::open(path)?);
    Ok(Installed { schema: SCHEMA, hook: hook.display().to_string(), kept, shared })
}

/// Removes the hook and restores the one that was there before. Other hooks are left alone.
pub fn uninstall(path: &Path) -> Result<Uninstalled, LoopError> {
    let folder = hooks_folder(path)?;
    let (hook, kept) = (folder.join(NAME), folder.join(KEPT_NAME));
    let failed = |error: io::Error| LoopError::io("change", &hook, &error);
    let name = hook.display().to_string();
    let is_there = is_ours(&hook);
    let is_kept = exists(&kept) && (is_there || !exists(&hook));
    if is_kept {
        fs::rename(&kept, &hook).map_err(failed)?;
    } else if is_there {
        fs::remove_file(&hook).map_err(failed)?;
    }
    Ok(Uninstalled { schema: SCHEMA, removed: is_there.then(|| name.clone()), restored: is_kept.then_some(name) })
}

/// Checks the message in the file `message`; the hook runs this in the folder where git runs the hook.
///
/// # Errors
/// [`LoopError::refused`] where the message claims a gain that its record does not support, or in another form.
pub fn check_file(path: &Path, message: &Path) -> Result<(), LoopError> {
    let bytes = fs::read(message).map_err(|error| LoopError::io("read", message, &error))?;
    let text = plain_git(path, &["stripspace", "--strip-comments"], &[], &bytes)?;
    let unclear = claim::unclear(&text);
    // A message that admits a loss needs no evidence.
    let claim = Claim::parse(&text).filter(Claim::is_gain);
    if unclear.is_none() && claim.is_none() {
        return Ok(());
    }
    let repository = Repository::open(path)?;
    // The parent's `loop.toml` judges; only the first commit with a `loop.toml` is judged by its own.
    let text = match config_text(&repository, "HEAD") {
        Ok(text) => text,
        Err(_) => match plain_git(repository.root(), &["show", &format!(":{}", config::FILE_NAME)], &[], &[]) {
            Ok(text) => text,
            // A shared folder of hooks also serves repositories without a loop.
            Err(_) if !is_own(&hooks_folder(path)?, &repository) => return Ok(()),
            Err(_) => config_text(&repository, "HEAD")?,
        },
    };
    if let Some(what) = unclear {
        return Err(LoopError::refused(format!("the {what}")).hint(
            "`alpha loop run -m \"<summary>\"` measures and commits; or leave out of the subject how much faster it is",
        ));
    }
    let Some(claim) = claim else { return Ok(()) };
    let config = LoopConfig::parse(&text, None)?;
    let ledger = Ledger::open(&repository.root().join(&config.ledger))?;
    check(&claim, &ledger, || staged(&repository, &config.unmeasured()))
}

/// Checks the claim of a gain against the record that it names. `staged` is only called if everything else fits.
///
/// # Errors
/// [`LoopError::refused`] with the reason and what to do.
pub fn check(
    claim: &Claim,
    ledger: &Ledger,
    staged: impl FnOnce() -> Result<Staged, LoopError>,
) -> Result<(), LoopError> {
    let refused =
        |why: String| LoopError::refused(format!("the message claims {:+.2} % tok/s, but {why}", claim.speedup_pct));
    let Some(name) = &claim.record else {
        return Err(refused("names no record of a measurement (`Alpha-Record: …`)".into())
            .hint("`alpha loop run -m \"<summary>\"` measures and commits; or leave the percentage out"));
    };
    let record = ledger.get(name).map_err(|error| refused(error.to_string()))?;
    if record.kind != evidence::KIND {
        let why = format!("record `{}` is of kind `{}`, a claim needs `{}`", record.id, record.kind, evidence::KIND);
        return Err(refused(why).hint("`alpha loop commit` writes the message of what was measured"));
    }
    let attempt: AttemptClaim = record.body().map_err(|error| {
        refused(error.to_string()).hint("another version wrote it: `alpha loop run` measures again")
    })?;
    let supported = attempt.supported(record.id).map_err(|why| {
        refused(format!("record `{}` does not support it: {why}", record.id)).hint("leave the percentage out")
    })?;
    claim.check_against(&supported).map_err(|differs| {
        refused(format!("does not agree with record `{}`: {differs}", record.id))
            .hint(format!("what was measured is `({:+.2}% tok/s)`", supported.speedup_pct))
    })?;
    let staged = staged()?;
    let candidate = &attempt.candidate;
    let is_measured_here = staged.measured_tree == candidate.measured_tree
        && staged.measured_parents.contains(&attempt.baseline.measured_tree);
    if is_measured_here || staged.patch_ids.contains(&candidate.patch_id) {
        return Ok(());
    }
    let why = format!("what is staged is neither the tree nor the change that record `{}` measured", record.id);
    Err(refused(why).hint("`alpha loop run -m \"<summary>\"` measures and commits what is there now"))
}

/// The tree that git is about to commit: from the index that it gives its hooks, which is not the user's for
/// `git commit -a` and `git commit <file>`.
fn staged(repository: &Repository, unmeasured: &GlobSet) -> Result<Staged, LoopError> {
    let index = env::var_os("GIT_INDEX_FILE").map_or_else(|| repository.git_dir().join("index"), PathBuf::from);
    // From a copy, because git writes into the index while it makes a tree of it. Files with this name are cleaned up.
    let copy = repository.git_dir().join(format!("alpha-loop-index-hook-{}", process::id()));
    fs::copy(&index, &copy).map_err(|error| LoopError::io("copy", &index, &error))?;
    let tree = plain_git(repository.root(), &["write-tree"], &[("GIT_INDEX_FILE", &copy)], &[]);
    let _ = fs::remove_file(&copy); // cleaned up later if not now
    let tree = tree?.trim().to_owned();

    let (mut patch_ids, mut measured_parents) = (Vec::new(), Vec::new());
    // A first commit has no parent.
    for parent in [Some(repository.head()?.tree), repository.tree_of("HEAD^").ok()].into_iter().flatten() {
        patch_ids.extend(repository.patch_id(&parent, &tree, unmeasured)?);
        measured_parents.push(repository.measured_tree(&parent, unmeasured)?);
    }
    Ok(Staged { measured_tree: repository.measured_tree(&tree, unmeasured)?, measured_parents, patch_ids })
}

/// Whether the folder of hooks belongs to this repository alone.
fn is_own(hooks: &Path, repository: &Repository) -> bool {
    hooks.starts_with(repository.common_dir()) || hooks.starts_with(repository.root())
}

fn hooks_folder(path: &Path) -> Result<PathBuf, LoopError> {
    let repository = Repository::open(path)?;
    // A relative path starts at the root.
    let answer =
        plain_git(repository.root(), &["rev-parse", "--path-format=absolute", "--git-path", "hooks"], &[], &[])?;
    Ok(PathBuf::from(answer.trim_end_matches('\n')))
}

/// Runs git with the settings and the environment of a hook, unlike [`Repository`].
fn plain_git(
    folder: &Path,
    arguments: &[&str],
    variables: &[(&str, &Path)],
    input: &[u8],
) -> Result<String, LoopError> {
    let failed = |what: String| LoopError::failed(format!("`git {}` {what}", arguments[0]));
    let mut child = Command::new("git")
        .args(arguments)
        .current_dir(folder)
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(format!("cannot be run: {error}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A failed write means that git does not need the input; its exit code counts.
        let _ = stdin.write_all(input);
    }
    let output = child.wait_with_output().map_err(|error| failed(format!("cannot be run: {error}")))?;
    if !output.status.success() {
        return Err(failed(format!("failed: {}", String::from_utf8_lossy(&output.stderr).trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Also true for a broken symbolic link.
fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn is_ours(hook: &Path) -> bool {
    fs::read(hook)
        .is_ok_and(|text| String::from_utf8_lossy(&text).lines().nth(1).is_some_and(|line| line.starts_with(MARK)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn attempt() -> Value {
        let side =
            |tree: &str| json!({"commit": "", "tree": "", "measured_tree": tree, "patch_id": "bbbb", "binary": ""});
        let estimate = json!({"speedup_pct": 1.574_999, "ci_low_pct": 1.096, "ci_high_pct": 2.0449, "pairs": 10});
        json!({
            "verdict": "FASTER",
            "baseline": side("cccc"),
            "candidate": side("aaaa"),
            "attempt": {"pairs": [1, 2, 3]},
            "confirmation": {"pairs": 10, "p": 0.01, "accepted": true, "estimate": estimate},
        })
    }

    fn staged(tree: &str, patches: &[&str]) -> Staged {
        let patch_ids = patches.iter().copied().map(String::from).collect();
        Staged { measured_tree: tree.into(), measured_parents: vec!["eeee".into(), "cccc".into()], patch_ids }
    }

    /// Checks a message, in which `@` stands for the id of a record. Without `staged`, the staged tree must not be
    /// read.
    #[track_caller]
    fn check_message(kind: &str, body: &Value, message: &str, staged: Option<Staged>) -> Result<(), String> {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(dir.path()).unwrap();
        let record = ledger.append(kind, body, None).unwrap().to_string();
        let claim = Claim::parse(&message.replace('@', &record)).unwrap();
        check(&claim, &ledger, || Ok(staged.expect("not asked for"))).map_err(|error| {
            assert_eq!(error.exit_code(), 4, "{error}");
            assert!(error.to_string().contains("hint: "), "{error}");
            error.to_string().replace(&record, "@")
        })
    }

    #[test]
    fn a_claim_needs_a_record_that_says_the_same() {
        let refused = |body: &Value, message: &str| check_message("attempt", body, message, None).unwrap_err();
        let with = |pointer: &str, value: Value| {
            let mut body = attempt();
            *body.pointer_mut(pointer).unwrap() = value;
            body
        };
        let good = "perf: x (+1.57% tok/s)\n\nAlpha-Record: @\nAlpha-Pairs: 3+10\n";
        for (body, message, reason) in [
            (attempt(), "perf: x (+1.57% tok/s)", "names no record"),
            (attempt(), "perf: x (+1.57% tok/s)\n\nAlpha-Record: 0000", "no record in"),
            (attempt(), "perf: x (+1.57% tok/s)\n\nAlpha-Record: see above", "`see above` is not a record"),
            (attempt(), "perf: x (+1.6% tok/s)\n\nAlpha-Record: @", "claims +1.60%, the record has +1.57%"),
            (attempt(), "perf: x (+1.57% tok/s)\n\nAlpha-Record: @\nAlpha-Pairs: 30+10", "the record has 3+10"),
            (with("/verdict", json!("SAME")), good, "its verdict is SAME"),
            (with("/verdict", json!("LEANER")), good, "its verdict is LEANER"),
            (with("/verdict", json!("BRILLIANT")), good, "BRILLIANT"),
            (with("/confirmation", Value::Null), good, "it was not confirmed"),
            (with("/confirmation/accepted", json!(false)), good, "its confirmation failed"),
            (json!(1), good, "record `@` of kind `attempt`"),
        ] {
            let error = refused(&body, message);
            assert!(error.starts_with("the message claims +1.") && error.contains(reason), "{error}");
        }
        let error = check_message("smoke", &attempt(), good, None).unwrap_err();
        assert!(error.contains("is of kind `smoke`"), "{error}");
    }

    #[test]
    fn the_tree_or_the_change_must_be_what_was_measured() {
        let good = "perf: x (+1.57% tok/s)\n\nAlpha-Record: @";
        let check = |body: &Value, staged| check_message("attempt", body, good, Some(staged));
        assert_eq!(check(&attempt(), staged("aaaa", &[])), Ok(()));
        assert_eq!(check(&attempt(), staged("cccc", &["dddd", "bbbb"])), Ok(()));
        // The same tree on another parent is another change.
        let after_another = Staged { measured_parents: vec!["aaaa".into()], ..staged("aaaa", &[]) };
        assert!(check(&attempt(), after_another).is_err());
        let error = check(&attempt(), staged("bbbb", &["aaaa"])).unwrap_err();
        assert!(error.contains("neither the tree nor the change that record `@` measured"), "{error}");
        // A record without a patch does not match an empty patch.
        let mut without_patch = attempt();
        without_patch["candidate"]["patch_id"] = json!("");
        assert!(check(&without_patch, staged("cccc", &[])).is_err());
    }
}
