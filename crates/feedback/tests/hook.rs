//! The hook in real repositories. It runs this test binary through a script named `alpha`.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::{
    env, fs,
    io::Write,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use feedback::{LoopError, land::hook, ledger::Ledger};
use serde_json::json;
use tempfile::TempDir;

const MESSAGE_VARIABLE: &str = "HOOK_TEST_MESSAGE";
const CLAIM: &str = "perf: fewer passes (+1.57% tok/s)";

/// The script named `alpha` runs this. Run as a test, it checks that other commits pass anywhere.
#[test]
fn program_of_the_hook() -> Result<(), LoopError> {
    if let Some(message) = env::var_os(MESSAGE_VARIABLE) {
        return hook::check_file(Path::new("."), Path::new(&message));
    }
    let dir = tempfile::tempdir().unwrap();
    let message = dir.path().join("message");
    fs::write(&message, "docs: how fast it is\n").unwrap();
    hook::check_file(dir.path(), &message)
}

/// A repository with a first commit and a program to check with.
struct Repository {
    dir: TempDir,
    root: PathBuf,
    program: PathBuf,
}

impl Repository {
    fn new() -> Repository {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("repository");
        fs::create_dir(&root).unwrap();
        let program = dir.path().join("it's a folder/alpha");
        let checks = format!(
            "#!/bin/sh\n[ \"$1 $2 $3\" = 'loop hook check' ] || exit 9\n\
             {MESSAGE_VARIABLE}=\"$4\" exec '{}' --exact program_of_the_hook --nocapture\n",
            env::current_exe().unwrap().display()
        );
        write_script(&program, &checks);
        let repository = Repository { dir, root, program };
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        for (name, value) in [("user.name", "a"), ("user.email", "a@b"), ("commit.gpgsign", "false")] {
            repository.git(&["config", name, value]);
        }
        repository.write("loop.toml", LOOP_TOML);
        repository.write("a", "1\n2\n3\n");
        repository.write("b", "1\n");
        repository.git(&["add", "--all"]);
        repository.git(&["commit", "--quiet", "--message=first"]);
        repository
    }

    fn with_hook() -> Repository {
        let repository = Repository::new();
        hook::install(&repository.root, &repository.program).unwrap();
        repository
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.root.join(name), text).unwrap();
    }

    /// Runs git as a user does, without an `alpha` in `PATH`.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        command.args(arguments).current_dir(&self.root).env("PATH", path_without_alpha());
        command.env("GIT_EDITOR", "true").env("LC_ALL", "C").stdin(Stdio::null());
        for variable in ["GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE", "GIT_CONFIG_GLOBAL", "HOME", "XDG_CONFIG_HOME"] {
            command.env_remove(variable);
        }
        command
    }

    fn try_git(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    #[track_caller]
    fn git(&self, arguments: &[&str]) -> String {
        let output = self.try_git(arguments);
        assert!(output.status.success(), "git {arguments:?}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    #[track_caller]
    fn refused(&self, arguments: &[&str], reason: &str) {
        let before = self.git(&["rev-parse", "HEAD"]);
        let output = self.try_git(arguments);
        assert!(!output.status.success() && text(&output).contains(reason), "git {arguments:?}: {}", text(&output));
        assert_eq!(self.git(&["rev-parse", "HEAD"]), before);
    }

    fn subject(&self) -> String {
        self.git(&["log", "-1", "--format=%s"])
    }

    fn hooks(&self) -> PathBuf {
        self.root.join(".git/hooks")
    }

    /// Records that the change from HEAD to the staged tree was measured and confirmed, and returns the message.
    fn measured(&self, tree: &str, patch_id: &str) -> String {
        let side = |tree: &str, patch_id: &str| json!({"commit": "", "tree": "", "measured_tree": tree, "patch_id": patch_id, "binary": ""});
        let head = self.git(&["rev-parse", "HEAD^{tree}"]);
        let estimate = json!({"speedup_pct": 1.572, "ci_low_pct": 1.1, "ci_high_pct": 2.04, "pairs": 10});
        let attempt = json!({
            "verdict": "FASTER",
            "baseline": side(&head, ""),
            "candidate": side(tree, patch_id),
            "attempt": {"pairs": [0, 0]},
            "confirmation": {"pairs": 10, "p": 0.01, "accepted": true, "estimate": estimate},
        });
        let mut ledger = Ledger::open(&self.root.join("perf/ledger")).unwrap();
        let record = ledger.append("attempt", &attempt, None).unwrap();
        format!("{CLAIM}\n\nOne pass.\n\nAlpha-Interval: +1.10% .. +2.04%\nAlpha-Pairs: 2+10\nAlpha-Record: {record}\n")
    }

    /// The same, where only the tree is the measured one.
    fn measured_tree(&self) -> String {
        self.measured(&self.git(&["write-tree"]), "")
    }

    /// The same, where only the change is the measured one.
    fn measured_patch(&self) -> String {
        let alias = "alias.patch=!git diff --cached --full-index | git patch-id --verbatim";
        let answer = self.git(&["-c", alias, "patch"]);
        let patch_id = answer.split_whitespace().next().unwrap();
        self.measured("", patch_id)
    }
}

const LOOP_TOML: &str = r#"
schema = 1
[build]
command = "make"
artifacts = ["out"]
[workload]
command = "./out --steps={steps}"
steps = 50
tokens_per_step = 128
"#;

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn write_script(path: &Path, script: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, script).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn path_without_alpha() -> std::ffi::OsString {
    let path = env::var_os("PATH").unwrap();
    env::join_paths(env::split_paths(&path).filter(|folder| !folder.join("alpha").exists())).unwrap()
}

#[test]
fn other_commits_are_let_through() {
    let repository = Repository::with_hook();
    for message in [
        "docs: how fast it is",
        "perf: x",
        "perf: 3% fewer passes",
        "perf: right before fast (-0.3% tok/s)",
        "Revert \"perf: x (+3% tok/s)\"",
        "fixup! perf: x (+3% tok/s)",
        "docs: x\n\nperf: y (+3% tok/s)",
    ] {
        repository.git(&["commit", "--quiet", "--allow-empty", "--message", message]);
    }
}

#[test]
fn a_claim_of_another_form_is_refused_with_the_right_one() {
    let repository = Repository::with_hook();
    repository.write("a", "fast\n");
    repository.git(&["add", "a"]);
    // Also if everything else of a claim is there.
    let trailers = repository.measured_tree().replace(CLAIM, "");
    for subject in [
        "docs: x (+1.57% tok/s)",
        "perf: fewer passes (+1.57％ tok/s)",
        "perf: fewer passes (+1.57\u{200b}% tok/s)",
        "perf: twice as fast",
        "30% faster training",
        "perf: fewer passes,\n1.3x tok/s",
        "perf: 2x faster passes (+1.57% tok/s)",
    ] {
        for message in [subject.to_owned(), format!("{subject}{trailers}")] {
            repository.refused(&["commit", "--message", &message], "`perf: <summary> (+X.XX% tok/s)`");
        }
    }
    // In a repository without a loop, such a subject passes.
    let other = Repository::new();
    fs::remove_file(other.root.join("loop.toml")).unwrap();
    other.git(&["commit", "--quiet", "--all", "--message=no loop any more"]);
    other.git(&["config", "core.hooksPath", other.dir.path().join("shared").to_str().unwrap()]);
    hook::install(&other.root, &other.program).unwrap();
    other.git(&["commit", "--quiet", "--allow-empty", "--message=30% faster training"]);
}

#[test]
fn a_claim_needs_the_record_of_what_is_staged() {
    let repository = Repository::with_hook();
    repository.write("a", "1\n2\n3\nfast\n");
    repository.git(&["add", "a"]);
    repository.refused(&["commit", "--message", CLAIM], "names no record");
    let unknown = format!("{CLAIM}\n\nAlpha-Record: {}", "0".repeat(64));
    repository.refused(&["commit", "--message", &unknown], "no record in");
    for message in [repository.measured_tree(), repository.measured_patch()] {
        repository.refused(&["commit", "--message", &message.replace("+1.57%", "+1.58%")], "the record has +1.57%");
        repository.write("b", "2\n");
        repository.refused(&["commit", "--all", "--message", &message], "neither the tree nor the change");
        // The ledger itself is not measured.
        repository.git(&["add", "perf"]);
        repository.git(&["commit", "--quiet", "--message", &message]);
        assert_eq!(repository.subject(), CLAIM);
        repository.git(&["reset", "--quiet", "--soft", "HEAD^"]);
        repository.git(&["checkout", "--quiet", "b"]);
    }
}

#[test]
fn a_message_may_come_from_a_file_or_an_editor() {
    let repository = Repository::with_hook();
    repository.write("a", "fast\n");
    repository.git(&["add", "a"]);
    let good = repository.measured_tree();
    let file = repository.dir.path().join("message");
    let path = file.to_str().unwrap();
    for (message, is_good) in [(good.as_str(), true), (CLAIM, false)] {
        fs::write(&file, message).unwrap();
        // As an editor leaves it: with the template's comments, here also above, and the diff below.
        let edit = format!(
            "f() {{ {{ echo '# a comment'; echo; cat '{path}' \"$1\"; }} >'{path}.new'; mv '{path}.new' \"$1\"; }}; f"
        );
        let commits: [&[&str]; 2] = [&["commit", "--file", path], &["commit", "--verbose"]];
        for arguments in commits {
            let output = repository.command(arguments).env("GIT_EDITOR", &edit).output().unwrap();
            assert_eq!(output.status.success(), is_good, "{arguments:?}: {}", text(&output));
            if is_good {
                assert_eq!(repository.subject(), CLAIM);
                repository.git(&["reset", "--quiet", "--soft", "HEAD^"]);
            } else {
                assert!(text(&output).contains("names no record"), "{}", text(&output));
            }
        }
    }
}

#[test]
fn what_counts_is_what_git_commits() {
    let repository = Repository::with_hook();
    repository.write("a", "fast\n");
    repository.git(&["add", "a"]);
    let only_a = repository.measured_tree();
    repository.write("b", "2\n");
    repository.git(&["add", "b"]);
    repository.refused(&["commit", "--message", &only_a], "neither the tree nor the change");
    let index = fs::read(repository.root.join(".git/index")).unwrap();
    repository.refused(&["commit", "--message", &only_a, "--", "b"], "neither the tree nor the change");
    assert_eq!(fs::read(repository.root.join(".git/index")).unwrap(), index);
    repository.git(&["commit", "--quiet", "--message", &only_a, "--", "a"]);
    assert_eq!(repository.git(&["diff", "--cached", "--name-only"]), "b");

    repository.git(&["reset", "--quiet", "--hard"]);
    repository.write("b", "3\n");
    repository.git(&["add", "b"]);
    let only_b = repository.measured_patch();
    repository.git(&["reset", "--quiet"]);
    repository.git(&["commit", "--quiet", "--all", "--message", &only_b]);
    let mut left = fs::read_dir(repository.root.join(".git")).unwrap().flatten();
    assert!(left.all(|entry| !entry.file_name().to_string_lossy().starts_with("alpha")));
}

#[test]
fn amended_and_picked_commits_keep_their_claim() {
    let repository = Repository::with_hook();
    repository.write("a", "1\n2\n3\nfast\n");
    repository.git(&["add", "a"]);
    let message = repository.measured_patch();
    repository.git(&["commit", "--quiet", "--message", &message]);
    let claimed = repository.git(&["rev-parse", "HEAD"]);
    let reworded = message.replace("One pass.", "One pass instead of two.");
    repository.git(&["commit", "--quiet", "--amend", "--message", &reworded]);
    // With other content it is another change.
    repository.write("b", "2\n");
    repository.refused(&["commit", "--all", "--amend", "--no-edit"], "neither the tree nor the change");
    repository.git(&["checkout", "--quiet", "b"]);

    // On another commit, in which the same lines are at another place.
    repository.git(&["checkout", "--quiet", "-b", "other", "main^"]);
    repository.write("b", "other\n");
    repository.git(&["commit", "--quiet", "--all", "--message=other"]);
    repository.git(&["cherry-pick", "--no-commit", &claimed]);
    repository.git(&["commit", "--quiet", "--message", &message]);
    repository.git(&["reset", "--quiet", "--hard", "HEAD^"]);
    repository.git(&["cherry-pick", "--edit", &claimed]);
    assert_eq!(repository.subject(), CLAIM);
}

#[test]
fn merges_are_judged_like_any_commit() {
    let repository = Repository::with_hook();
    repository.git(&["checkout", "--quiet", "-b", "topic"]);
    repository.write("a", "1\n2\n3\nfast\n");
    repository.git(&["add", "a"]);
    let message = repository.measured_patch();
    repository.git(&["commit", "--quiet", "--message=wip"]);
    repository.git(&["checkout", "--quiet", "main"]);
    repository.write("b", "main\n");
    repository.git(&["commit", "--quiet", "--all", "--message=main"]);
    repository.refused(&["merge", "--quiet", "--no-ff", "--message", CLAIM, "topic"], "names no record");
    repository.git(&["merge", "--abort"]);
    // The merge's change of main is the measured change.
    repository.git(&["merge", "--quiet", "--no-ff", "--message", &message, "topic"]);
    repository.git(&["reset", "--quiet", "--hard", "HEAD^"]);
    repository.git(&["merge", "--quiet", "--squash", "topic"]);
    repository.git(&["commit", "--quiet", "--no-edit"]);
    repository.git(&["commit", "--quiet", "--amend", "--message", &message]);
    repository.git(&["reset", "--quiet", "--hard", "HEAD^"]);
    repository.git(&["merge", "--quiet", "--no-edit", "topic"]);
    assert_eq!(repository.subject(), "Merge branch 'topic'");
}

#[test]
fn a_linked_worktree_has_the_same_hook_and_its_own_index() {
    let repository = Repository::with_hook();
    repository.git(&["worktree", "add", "--quiet", "../linked"]);
    let linked = Repository { root: repository.dir.path().join("linked"), program: PathBuf::new(), ..repository };
    linked.write("a", "fast\n");
    linked.git(&["add", "a"]);
    linked.refused(&["commit", "--message", CLAIM], "names no record");
    let message = linked.measured_tree();
    linked.git(&["commit", "--quiet", "--message", &message]);
    assert_eq!(hook::uninstall(&linked.root).unwrap().restored, None);
    linked.git(&["commit", "--quiet", "--allow-empty", "--message", CLAIM]);
}

#[test]
fn without_the_program_only_claims_are_refused() {
    let repository = Repository::with_hook();
    fs::remove_file(&repository.program).unwrap();
    repository.git(&["commit", "--quiet", "--allow-empty", "--message=perf: x"]);
    for claim in [CLAIM, "Perf(a)!: x\n(3,5 %\u{a0}Tokens/s)", "perf: x (\u{2212}0.3\u{202f}% tok/sec)"] {
        repository
            .refused(&["commit", "--allow-empty", "--message", claim], "`alpha`, which checks claims, is not there");
    }
    // A program in `PATH` comes first.
    let bin = repository.dir.path().join("bin");
    write_script(&bin.join("alpha"), "#!/bin/sh\necho \"in PATH: $1 $2 $3\"\n");
    let mut path = bin.into_os_string();
    path.push(":");
    path.push(path_without_alpha());
    let output =
        repository.command(&["commit", "--allow-empty", "--message", CLAIM]).env("PATH", path).output().unwrap();
    assert!(output.status.success() && text(&output).contains("in PATH: loop hook check"), "{}", text(&output));
}

#[test]
fn a_hook_that_is_there_is_called_first() {
    let repository = Repository::new();
    let theirs = repository.hooks().join("commit-msg");
    let script = "#!/bin/sh\ngrep -q ticket \"$1\" || { echo no ticket; exit 3; }\necho checked >>\"$1\"\n";
    write_script(&theirs, script);
    fs::set_permissions(&theirs, fs::Permissions::from_mode(0o750)).unwrap();
    let first = hook::install(&repository.root, &repository.program).unwrap();
    let kept = repository.hooks().join("commit-msg.before-alpha");
    assert_eq!(first.kept.as_deref(), kept.to_str());
    assert!(first.to_string().contains("calls first"));
    let ours = fs::read(&theirs).unwrap();
    // Installing again changes nothing.
    assert_eq!(hook::install(&repository.root, &repository.program).unwrap(), first);
    assert_eq!((fs::read(&theirs).unwrap(), fs::read_to_string(&kept).unwrap()), (ours, script.to_owned()));

    repository.refused(&["commit", "--allow-empty", "--message=docs: x"], "no ticket");
    repository.refused(&["commit", "--allow-empty", "--message", &format!("{CLAIM}\n\nticket")], "names no record");
    repository.git(&["commit", "--quiet", "--allow-empty", "--message=docs: x\n\nticket"]);
    assert!(repository.git(&["log", "-1", "--format=%b"]).contains("checked"));

    // Another hook has replaced ours.
    write_script(&theirs, "#!/bin/sh\n");
    let error = hook::install(&repository.root, &repository.program).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert_eq!(fs::read_to_string(&theirs).unwrap(), "#!/bin/sh\n");
    assert_eq!(hook::uninstall(&repository.root).unwrap().removed, None);
    assert!(theirs.exists() && kept.exists());
    fs::remove_file(&theirs).unwrap();
    hook::install(&repository.root, &repository.program).unwrap();

    let gone = hook::uninstall(&repository.root).unwrap();
    assert_eq!((gone.removed.as_deref(), gone.restored.as_deref()), (theirs.to_str(), theirs.to_str()));
    assert_eq!(fs::read_to_string(&theirs).unwrap(), script);
    assert_eq!(fs::metadata(&theirs).unwrap().permissions().mode() & 0o777, 0o750);
    assert!(!kept.exists());
    let again = hook::uninstall(&repository.root).unwrap();
    assert_eq!((again.removed.clone(), again.restored.clone()), (None, None));
    assert_eq!(again.to_string(), "there was no hook of alpha\n");
}

#[test]
fn hooks_lie_where_git_looks_for_them() {
    let repository = Repository::new();
    let elsewhere = repository.dir.path().join("else where");
    for (value, folder) in
        [("git hooks", repository.root.join("git hooks")), (elsewhere.to_str().unwrap(), elsewhere.clone())]
    {
        repository.git(&["config", "core.hooksPath", value]);
        // Also from a folder below the root.
        fs::create_dir_all(repository.root.join("sub")).unwrap();
        let installed = hook::install(&repository.root.join("sub"), &repository.program).unwrap();
        assert_eq!(Some(installed.hook.as_str()), folder.join("commit-msg").to_str());
        repository.refused(&["commit", "--allow-empty", "--message", CLAIM], "names no record");
        hook::uninstall(&repository.root).unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    }
    assert!(!repository.hooks().join("commit-msg").exists());
    repository.git(&["config", "core.hooksPath", "/dev/null"]);
    assert!(hook::install(&repository.root, &repository.program).is_err());
    assert!(hook::install(repository.dir.path(), &repository.program).is_err(), "no repository");
}

#[test]
fn a_linked_or_disabled_hook_stays_what_it_is() {
    let repository = Repository::new();
    let place = repository.hooks().join("commit-msg");
    fs::create_dir_all(repository.hooks()).unwrap();
    symlink("../../no such file", &place).unwrap();
    hook::install(&repository.root, &repository.program).unwrap();
    repository.git(&["commit", "--quiet", "--allow-empty", "--message=docs: x"]);
    hook::uninstall(&repository.root).unwrap();
    assert_eq!(fs::read_link(&place).unwrap(), Path::new("../../no such file"));
    // Git does not run a hook that cannot be executed; neither do we.
    fs::remove_file(&place).unwrap();
    fs::File::create(&place).unwrap().write_all(b"#!/bin/sh\nexit 1\n").unwrap();
    hook::install(&repository.root, &repository.program).unwrap();
    repository.git(&["commit", "--quiet", "--allow-empty", "--message=docs: x"]);
}
