//! Builds and trainers that fail, in every way they have: a clear message, the right exit code, nothing left behind.

use std::{fs, io::Write};

use crate::{
    changes::{FASTER, RENAMED},
    outcome::finish,
    toy::{Toy, wait_until},
};

/// The one line that a training run begins a step with.
const STEP: &str = "        started = perf_counter()\n";

/// Compares with a change after which a command must fail with exit code 1 and these words.
#[track_caller]
fn fails(toy: &Toy, words: &[&str]) {
    let before = toy.belongings();
    let done = toy.alpha(&["compare"]);
    done.failed(1, words);
    toy.assert_untouched(&before);
    assert_eq!(toy.processes(), Vec::<String>::new());
    // Nothing is left that could be mistaken for an answer.
    let commit = toy.alpha(&["commit", "-m", "nothing"]);
    assert!(matches!(commit.code, Some(1 | 4)), "{commit:?}"); // 1 where it cannot even be built
}

/// A toy whose candidate does this at the beginning of its thirtieth step.
fn at_step_30(lines: &str) -> Toy {
    let toy = Toy::new();
    toy.begin();
    toy.edit(STEP, &format!("        if step == 30:\n            {lines}\n{STEP}"));
    toy
}

#[test]
fn a_build_that_fails() {
    let toy = Toy::new();
    toy.begin();
    toy.edit_file("build.sh", "mkdir -p out\n", "echo 'no such kernel' >&2\nexit 3\n");
    fails(&toy, &["build", "no such kernel", "hint: "]);
}

#[test]
fn a_build_that_hangs() {
    let toy = Toy::new();
    toy.begin();
    toy.edit_file("build.sh", "mkdir -p out\n", "sleep 1000 &\nsleep 1000\n");
    fails(&toy, &["build", "timeout"]); // of ten seconds
}

#[test]
fn a_build_that_makes_no_artifact() {
    let toy = Toy::new();
    toy.begin();
    toy.edit_file("build.sh", "mv out/trainer.new out/trainer\n", "rm -f out/trainer\n");
    fails(&toy, &["out/trainer"]);
}

/// It made its artifact, so it counts; what it left running is ended.
#[test]
fn a_build_that_leaves_processes() {
    let toy = Toy::new();
    toy.begin();
    toy.edit_file("build.sh", "mkdir -p out\n", "mkdir -p out\nsleep 1000 &\n");
    let compared = toy.json(&["compare"]).says("SAME", 4);
    assert!(compared.text("reason").contains("no change"), "{:#}", compared.object);
    assert_eq!(toy.processes(), Vec::<String>::new());
}

#[test]
fn a_trainer_that_crashes_in_its_turn() {
    let toy = at_step_30("raise ValueError(\"no gradient today\")");
    fails(&toy, &["candidate", "no gradient today"]);
    let toy = at_step_30("os.abort()");
    fails(&toy, &["candidate", "signal: 6"]);
}

#[test]
fn a_trainer_that_cannot_start() {
    let toy = Toy::new();
    toy.begin();
    toy.edit_start(&["sys.exit(\"no memory today\")"]);
    fails(&toy, &["candidate", "no memory today", "hello"]);
    toy.restore();
    toy.edit_file("build.sh", "#!$(python3 -c 'import sys; print(sys.executable)') -SEs", "#!/nowhere/python3");
    fails(&toy, &["cannot start", "out/trainer"]);
}

#[test]
fn a_trainer_that_never_answers() {
    let toy = at_step_30("__import__(\"time\").sleep(1000)");
    fails(&toy, &["candidate", "no answer", "turn_timeout"]); // of ten seconds
}

/// Helpers that left the group, and their own children, whether the trainer ends well or not.
#[test]
fn helpers_of_a_trainer_that_crashes_are_ended() {
    let toy = at_step_30("os.system(\"setsid sh -c 'sleep 600 & wait' &\"); raise ValueError(\"as planned\")");
    fails(&toy, &["candidate", "as planned"]);
    assert_eq!(toy.processes(), Vec::<String>::new());
}

#[test]
fn a_trainer_that_answers_wrongly() {
    for (lines, said) in [
        ("turns.say(\"ready\")", "ready"),
        // Which of its answers is the wrong one depends on where blocks begin.
        ("turns.say(\"done 29\")", "`done "),
        ("turns.socket.sendall(b\"x\" * 10_000)", "line"),
        ("turns.file.close(); turns.socket.close(); __import__(\"time\").sleep(1000)", "socket"),
    ] {
        let toy = at_step_30(lines);
        let done = toy.alpha(&["compare"]);
        assert!(matches!(done.code, Some(1 | 4)), "{lines}: {done:?}");
        assert!(done.stderr.contains("candidate") && done.stderr.contains(said), "{lines}: {}", done.stderr);
    }
}

#[test]
fn a_trainer_that_writes_half_a_record() {
    for half in ["{\\\"step\\\": 30, \\\"lo", "\\xff\\xfe\\n", "null\\n"] {
        let toy = at_step_30(&format!("os.write(metrics.file.fileno(), b\"{half}\")"));
        fails(&toy, &["candidate", "metrics.jsonl", "30"]);
    }
    let toy = at_step_30("os.remove(\"run/metrics.jsonl\")");
    fails(&toy, &["candidate", "metrics.jsonl"]);
}

/// A baseline that fails is named as such: the candidate is not at fault.
#[test]
fn a_baseline_that_crashes() {
    let toy = Toy::new();
    toy.edit(STEP, &format!("        if step == 30:\n            raise ValueError(\"as always\")\n{STEP}"));
    toy.commit("a broken baseline");
    toy.begin();
    toy.change(FASTER);
    let done = toy.alpha(&["compare"]);
    done.failed(1, &["baseline", "as always"]);
}

#[test]
fn nothing_to_compare() {
    let toy = Toy::new();
    toy.begin();
    toy.alpha(&["compare"]).failed(4, &["--identical"]);
    // A file that is not measured is not a change either.
    toy.write("perf/notes.txt", "more of them");
    toy.alpha(&["compare"]).failed(4, &["--identical"]);
    // Another tree that builds the same program: no change, no claim, and no run.
    toy.edit("# Forward. `s` holds what a step computes.", "# Forward.");
    let compared = toy.json(&["compare"]).says("SAME", 4);
    assert!(compared.text("reason").contains("no change"), "{:#}", compared.object);
    assert_eq!(compared.number("pairs"), 0.0);
}

/// A build in use is not old, however long ago it was built: the baseline is built once.
#[test]
fn old_builds_are_pruned() {
    let toy = Toy::new();
    toy.begin();
    let size = |toy: &Toy| crate::toy::files(&toy.path(".git/alpha-loop/builds")).len();
    let mut sizes = Vec::new();
    for number in 0..30 {
        toy.restore();
        // Refused for what it is: builds, and nothing more.
        toy.edit_file("loop.toml", "schema = 1", "schema = 1 # edited");
        toy.edit("LR, WARMUP = 0.03", &format!("LR, WARMUP = 0.{}", 100 + number));
        toy.json(&["compare"]).is_refused_for(&["instrument"]);
        sizes.push(size(&toy));
    }
    assert_eq!(sizes[28], sizes[29], "files of builds: {sizes:?}");
    toy.restore();
    toy.change(RENAMED);
    toy.json(&["compare"]).says("SAME", 4);
}

/// The user's own state is as dirty as it can be, and stays so.
#[test]
fn a_dirty_tree_stays_as_it_is() {
    let toy = Toy::new();
    toy.write("tracked.txt", "one\n");
    toy.write("gone.txt", "one\n");
    toy.commit("files beside");
    toy.write("tracked.txt", "stashed\n");
    toy.git(&["stash", "-q"]);
    toy.begin();
    toy.write("tracked.txt", "staged\n");
    toy.git(&["add", "tracked.txt"]);
    toy.write("tracked.txt", "staged and changed again\n");
    toy.git(&["rm", "-q", "--cached", "gone.txt"]);
    toy.write("with space\n and ünicode", "untracked");
    toy.write("out/ignored", "ignored");
    toy.change(RENAMED);
    let before = toy.belongings();
    let listed = toy.git(&["status", "--porcelain=v2"]);
    toy.json(&["compare"]).says("SAME", 4);
    toy.assert_untouched(&before);
    assert_eq!(toy.git(&["status", "--porcelain=v2", "--", ":!perf"]), listed);
    assert_eq!(toy.read("out/ignored"), "ignored");
}

#[test]
fn two_loops_in_one_repository() {
    let toy = Toy::new();
    toy.count_runs();
    toy.commit("every run leaves a mark");
    toy.begin();
    toy.change(RENAMED);
    let first = toy.start(&["compare", "--json"]);
    wait_until("the first trainer", || toy.runs() > 0);
    let pid = first.pid().to_string();
    for second in [&["compare"][..], &["smoke"], &["commit", "-m", "nothing"], &["drop"]] {
        let done = toy.alpha(second);
        assert!(matches!(done.code, Some(1 | 2 | 4)), "{second:?}: {done:?}");
        assert!(done.stderr.contains(&pid), "{second:?} does not name {pid}: {}", done.stderr);
    }
    // Looking is free.
    assert_eq!(toy.alpha(&["status"]).code, Some(0));
    crate::toy::Answer::of(first.end()).says("SAME", 4);
}

#[test]
fn no_repository_no_configuration_no_git() {
    let toy = Toy::empty();
    toy.alpha(&["compare"]).failed(2, &["commit"]);
    toy.commit("empty");
    toy.alpha(&["compare"]).failed(2, &["loop.toml", "alpha loop init"]);
    let outside = finish(toy.alpha_command(&["compare"]).current_dir(toy.outside("tmp")));
    outside.failed(2, &["repository"]);
    let without_git = finish(toy.alpha_command(&["compare"]).env("PATH", toy.outside("tmp")));
    without_git.failed(2, &["git"]);
    let toy = Toy::new();
    toy.edit_file("loop.toml", "schema = 1", "schema = 9");
    toy.commit("of the future");
    toy.alpha(&["compare"]).failed(2, &["loop.toml", "9"]);
}

/// A clock that went wrong: the baseline is of the far future, its files are older than everything.
#[test]
fn a_clock_that_was_changed() {
    let toy = Toy::new();
    toy.edit("\"adamw\": 10_000", "\"adamw\": 10_001");
    toy.git(&["add", "-A"]);
    let mut commit = toy.command("git");
    commit.args(["commit", "-qm", "from the future"]).env("GIT_COMMITTER_DATE", "2099-01-01T00:00:00Z");
    finish(commit.env("GIT_AUTHOR_DATE", "2099-01-01T00:00:00Z")).succeeded();
    toy.begin();
    toy.change(FASTER);
    finish(toy.command("touch").args(["-d", "1980-01-01", crate::toy::TRAINER])).succeeded();
    toy.json(&["compare"]).says("FASTER", 0);
    toy.alpha(&["commit", "-m", "no waste in attention"]).succeeded();
    toy.alpha(&["verify", "HEAD"]).succeeded();
}

/// The loop says when the disk is full, at any size, and goes on when it no longer is.
#[test]
fn a_full_disk() {
    const NO_MOUNT: i32 = 77;
    let toy = Toy::new();
    toy.begin();
    toy.change(RENAMED);
    let before = toy.belongings();
    for (folder, size) in [(".git/alpha-loop", "64k"), ("perf", "4k")] {
        fs::create_dir_all(toy.path(folder)).unwrap();
        let script = "kept=$(mktemp -d) && cp -a \"$1/.\" \"$kept\" && mount -t tmpfs -o size=$2 none \"$1\" || exit 77
            cp -a \"$kept/.\" \"$1\" 2>/dev/null
            \"$0\" loop compare";
        let mut command = toy.command("unshare");
        let done = finish(command.args(["-rm", "sh", "-c", script, env!("CARGO_BIN_EXE_alpha"), folder, size]));
        if done.code == Some(NO_MOUNT) || (done.code == Some(1) && done.stderr.starts_with("unshare: ")) {
            let _ = writeln!(std::io::stderr(), "SKIPPED a_full_disk: {}", done.stderr.trim());
            return;
        }
        assert!(!done.stderr.contains("panicked"), "{}", done.stderr);
        assert_eq!(done.code, Some(1), "{folder} {size}: {}{}", done.stdout, done.stderr);
        assert!(
            done.stderr.contains("No space left") || done.stderr.contains("disk is full"),
            "{folder}: {}",
            done.stderr
        );
    }
    toy.assert_untouched(&before);
    toy.json(&["compare"]).says("SAME", 4);
}
