//! The store of builds, with shell scripts for build commands.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod environment;
#[path = "../git/sandbox.rs"]
#[expect(dead_code, reason = "shared with the tests of git")]
mod sandbox;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use feedback::store::build::{BuildStore, Built, StoreLimits, Wanted};
use feedback::{ErrorKind, LoopError, Progress, config::LoopConfig, git::Repository, store::state::State};
use nix::{sys::signal::kill, unistd::Pid};
use pairbench::{folder_content::copy_checked, process::isolation::Isolation};

use crate::sandbox::{Sandbox, folder_content};

#[derive(Default)]
struct Listener {
    notes: RefCell<Vec<String>>,
    stops: Cell<bool>,
}

impl Progress for Listener {
    fn note(&self, line: &str) {
        self.notes.borrow_mut().push(line.to_owned());
    }

    fn is_stop_requested(&self) -> bool {
        self.stops.get()
    }
}

struct StopsWhenThere(PathBuf);

impl Progress for StopsWhenThere {
    fn note(&self, _line: &str) {}

    fn is_stop_requested(&self) -> bool {
        self.0.exists()
    }
}

struct Project {
    sandbox: Sandbox,
    repository: Repository,
    state: State,
    store: BuildStore,
    config: LoopConfig,
    progress: Listener,
}

impl Project {
    fn new(script: &str) -> Project {
        Project::with(script, "artifacts = [\"out/trainer\"]")
    }

    fn with(script: &str, lines: &str) -> Project {
        let sandbox = Sandbox::new();
        sandbox.write("build.sh", format!("mkdir -p out\n{script}\n"));
        sandbox.write(".gitignore", "out/\ntarget/\n");
        sandbox.commit_all("with a build");
        let repository = sandbox.repository();
        let state = State::open_in(&repository, &sandbox.beside("cache")).unwrap();
        let store = BuildStore::new(&state, Arc::new(Isolation::none("a test")));
        let config = config("sh build.sh", lines);
        Project { sandbox, repository, state, store, config, progress: Listener::default() }
    }

    fn build_of(&self, revision: &str) -> Result<Built, LoopError> {
        self.store.build(&self.repository, self.wanted(&self.sandbox.tree(revision)), &self.progress)
    }

    fn wanted<'a>(&'a self, tree: &'a str) -> Wanted<'a> {
        Wanted { name: "candidate", tree, config: &self.config }
    }

    #[track_caller]
    fn build(&self) -> Built {
        self.build_of("HEAD").unwrap()
    }

    fn set_script(&self, script: &str) {
        self.sandbox.write("build.sh", format!("mkdir -p out\n{script}\n"));
        self.sandbox.commit_all("another build");
    }

    fn layouts(&self, layouts: &[u32]) -> Vec<Built> {
        let tree = self.sandbox.tree("HEAD");
        self.store.build_layouts(&self.repository, self.wanted(&tree), layouts, &self.progress).unwrap()
    }

    fn notes(&self) -> String {
        let notes = self.progress.notes.take().into_iter();
        notes.filter(|note| !note.starts_with("building ")).collect::<Vec<_>>().join("\n")
    }

    fn builds(&self) -> PathBuf {
        self.state.folder().join("builds")
    }
}

fn config(command: &str, lines: &str) -> LoopConfig {
    let workload = "command = \"./trainer {steps}\"\nsteps = 50\ntokens_per_step = 1";
    LoopConfig::parse(&format!("schema = 1\n[build]\ncommand = \"{command}\"\n{lines}\n[workload]\n{workload}\n"), None)
        .unwrap()
}

fn trainer(built: &Built) -> String {
    fs::read_to_string(built.folder.join("out/trainer")).unwrap()
}

#[track_caller]
fn is_gone(path_of_number: &Path) -> bool {
    let number = fs::read_to_string(path_of_number).unwrap().trim().parse().unwrap();
    kill(Pid::from_raw(number), None).is_err()
}

#[test]
fn a_tree_is_built_once_and_the_working_tree_is_left_alone() {
    let project = Project::new("cat a.txt >out/trainer; chmod +x out/trainer; echo building; echo warning >&2");
    project.sandbox.write("a.txt", "dirty\n");
    let before = project.sandbox.state();
    let built = project.build();
    assert!(!built.is_cached && built.seconds > 0.0);
    let said = project.progress.notes.borrow().clone();
    assert!(said[0].starts_with("building the candidate (") && said[0].contains("build.sh"), "{said:?}");
    assert!(said[1].starts_with("building everything once") && said.len() == 2, "{said:?}");
    assert_eq!(trainer(&built), "one\n");
    assert_eq!(folder_content(&built.folder).into_values().next().unwrap().0, "100755");
    assert_eq!(fs::read_to_string(&built.log).unwrap(), "building\nwarning\n");
    let again = project.build();
    assert!(again.is_cached);
    assert_eq!(*project.progress.notes.borrow(), said, "nothing is announced that is not done");
    assert_eq!((&again.key, &again.binary_hash, &again.folder), (&built.key, &built.binary_hash, &built.folder));
    assert!((again.seconds - built.seconds).abs() < 1e-9);
    assert_eq!(project.sandbox.state(), before);

    let snapshot = project.repository.snapshot(&project.config.unmeasured()).unwrap();
    let dirty = project.store.build(&project.repository, project.wanted(&snapshot.tree), &project.progress).unwrap();
    assert_eq!(trainer(&dirty), "dirty\n");
    assert_ne!((&dirty.key, &dirty.binary_hash), (&built.key, &built.binary_hash));
    assert_eq!(project.notes(), "");
}

#[test]
fn the_key_is_of_the_measured_tree_and_the_toolchain() {
    let mut project = Project::new("echo 1 >out/trainer");
    let version = project.sandbox.beside("version");
    fs::write(&version, "cc 14").unwrap();
    let lines = format!("artifacts = [\"out/trainer\"]\ntoolchain = [\"cat '{}'\"]", version.display());
    project.config = config("sh build.sh", &lines);
    let first = project.build();
    assert_eq!(first.toolchain, "cc 14");
    project.sandbox.write("perf/ledger/record.json", "{}");
    project.sandbox.write("runs/1/metrics.jsonl", "{}");
    project.sandbox.commit_all("unmeasured files");
    assert_eq!(project.build().key, first.key);
    project.sandbox.write("a.txt", "measured\n");
    project.sandbox.commit_all("measured file");
    let second = project.build();
    assert_ne!(second.key, first.key);
    // Other sources may make the same trainer.
    assert_eq!(second.binary_hash, first.binary_hash);
    fs::write(&version, "cc 15").unwrap();
    assert_ne!(project.build().key, second.key);

    for (command, named) in [("false", "failed (exit status: 1)"), ("no-such-program -V", "cannot be run")] {
        project.config.build.toolchain = vec![command.into()];
        let error = project.build_of("HEAD").unwrap_err();
        assert!(error.to_string().contains(&format!("`{command}` of `build.toolchain` {named}")), "{error}");
    }
}

#[test]
fn every_tree_is_built_at_the_same_path_and_nothing_above_it_is_seen() {
    // The script looks for a configuration in all folders above, as build tools do.
    let project = Project::new(
        "pwd >out/trainer; echo \"$PWD\" >>out/trainer\n\
         folder=$PWD; while [ \"$folder\" != / ]; do cat \"$folder/tool.toml\"; folder=$(dirname \"$folder\"); done >>out/trainer",
    );
    project.sandbox.write("tool.toml", "of the candidate\n");
    let baseline = project.build();
    let stage = fs::canonicalize(project.sandbox.beside("cache")).unwrap();
    let lines = trainer(&baseline);
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[0], lines[1]);
    assert!(Path::new(lines[0]).starts_with(stage));
    project.sandbox.write("a.txt", "changed");
    fs::remove_file(project.sandbox.path("tool.toml")).unwrap();
    project.sandbox.commit_all("changed");
    assert_eq!(project.build().binary_hash, baseline.binary_hash);
}

/// Such as a user's home folder with a repository of its own.
#[test]
fn a_repository_above_the_stage_is_not_seen() {
    let project = Project::new("git rev-parse HEAD >out/trainer || echo none >out/trainer");
    let state = State::open_in(&project.repository, &project.sandbox.path("target")).unwrap();
    let store = BuildStore::new(&state, Arc::new(Isolation::none("a test")));
    let tree = project.sandbox.tree("HEAD");
    let built = store.build(&project.repository, project.wanted(&tree), &project.progress).unwrap();
    assert_eq!(trainer(&built), "none\n");
}

#[test]
fn builds_are_incremental_and_right() {
    // Like a build tool, the script compiles files that are younger than their outputs.
    let project = Project::new(
        "mkdir -p target\n\
         for source in a.txt src/kernel.txt; do\n\
         made=target/$(basename $source)\n\
         if [ ! -e $made ] || [ -n \"$(find $source -newer $made)\" ]; then cp $source $made; echo compiled $source; fi\n\
         done\n\
         cat target/*.txt >out/trainer",
    );
    let log = |built: &Built| fs::read_to_string(&built.log).unwrap();
    let mut expected = BTreeMap::new();
    for number in 0..4 {
        project.sandbox.write("a.txt", format!("{number}\n"));
        let revision = project.sandbox.commit_all("change");
        let built = project.build();
        assert_eq!(log(&built).contains("compiled src/kernel.txt"), number == 0);
        assert!(log(&built).contains("compiled a.txt") && trainer(&built).starts_with(&format!("{number}\n")));
        expected.insert(revision, built.binary_hash);
    }
    fs::remove_dir_all(project.builds()).unwrap();
    for (revision, hash) in expected {
        assert_eq!(project.build_of(&revision).unwrap().binary_hash, hash);
        assert!(
            project.store.rebuild(&project.repository, &revision, &project.config, &project.progress).unwrap() > 0.0
        );
    }
}

#[test]
fn a_build_that_fails_shows_its_last_words_and_where_all_are() {
    let project = Project::new("for i in $(seq 1 50); do echo line $i; done; echo 'error: no such kernel' >&2; exit 3");
    let error = project.build_of("HEAD").unwrap_err();
    let text = error.to_string();
    assert_eq!(error.exit_code(), 1);
    assert!(text.starts_with("the build failed (exit status: 3); its last words:\n  line 32\n"), "{text}");
    assert!(text.contains("\n  line 50\n  error: no such kernel\n\nhint: "), "{text}");
    let log = PathBuf::from(text.split('`').nth(1).unwrap());
    assert_eq!(fs::read_to_string(log).unwrap().lines().count(), 51);
    project.set_script("echo fine >out/trainer");
    assert_eq!(trainer(&project.build()), "fine\n");
    assert_eq!(project.notes(), "");
}

#[test]
fn a_build_that_cannot_start_is_said_to() {
    let mut project = Project::new("");
    for command in ["./missing.sh", "no-such-program"] {
        project.config = config(command, "artifacts = [\"out/trainer\"]");
        let error = project.build_of("HEAD").unwrap_err();
        assert!(error.to_string().starts_with(&format!("cannot start `{command}`: ")), "{error}");
    }
    project.config = config("sh build.sh", "artifacts = [\"out/trainer\", \"out\", \"a.txt\", \"lib/b\"]");
    let error = project.build_of("HEAD").unwrap_err();
    assert!(error.to_string().starts_with("the build made no `out/trainer`, `lib/b`\n\nhint: "), "{error}");
    assert_eq!(project.notes(), "");
}

#[test]
fn a_build_that_hangs_is_ended_with_its_children() {
    let mut project = Project::new("");
    let numbers = ["1", "2"].map(|name| project.sandbox.beside(name));
    let [first, second] = numbers.each_ref().map(|path| path.display());
    let hangs = format!("sleep 600 & echo $! >'{first}'; echo $$ >'{second}'; echo waiting; sleep 600");
    project.config = config("sh build.sh", "artifacts = [\"out/trainer\"]\ntimeout = \"500ms\"");
    project.set_script(&hangs);
    // On a busy machine the script may not even have started within this time; it is killed all the same.
    let error = project.build_of("HEAD").unwrap_err();
    assert!(error.to_string().starts_with("the build did not end within 500ms; it"), "{error}");
    assert_eq!(error.exit_code(), 1);
    for path in numbers.iter().filter(|path| fs::metadata(path).is_ok_and(|data| data.len() > 0)) {
        assert!(is_gone(path), "{}", path.display());
    }
    // It ended when asked: the files of the build so far are used.
    project.config.build.timeout = Duration::from_secs(600);
    project.set_script("echo fine >out/trainer");
    project.build();
    assert_eq!(project.notes(), "");
}

#[test]
fn a_build_that_had_to_be_killed_is_begun_anew() {
    let project = Project::new("");
    let ready = project.sandbox.beside("ready");
    project.set_script(&format!("trap '' TERM; echo half >target.tmp; mkdir target; mv target.tmp target/half; echo >'{}'\nwhile :; do sleep 600; done", ready.display()));
    // Only when the script ignores signals, so that the request to end cannot come first.
    let tree = project.sandbox.tree("HEAD");
    let stopped = project.store.build(&project.repository, project.wanted(&tree), &StopsWhenThere(ready));
    assert!(stopped.is_err_and(|error| error.kind == ErrorKind::Interrupted));
    let half = project.state.stage().unwrap().join("target/half");
    assert!(half.exists());
    project.set_script("echo fine >out/trainer");
    project.build();
    assert_eq!(project.notes(), "the last build was cut off: building from the beginning");
    assert!(!half.exists());
    project.set_script("echo finer >out/trainer");
    project.build();
    assert_eq!(project.notes(), "");
}

#[test]
fn a_stop_ends_the_build() {
    let project = Project::new("sleep 600");
    project.progress.stops.set(true);
    let error = project.build_of("HEAD").unwrap_err();
    assert!(error.kind == ErrorKind::Interrupted, "{error}");
    let entries: Vec<_> = fs::read_dir(project.builds()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(entries.iter().all(|path| path.extension().is_some_and(|ending| ending == "log")), "{entries:?}");
}

#[test]
fn a_process_that_outlives_the_build_is_ended() {
    let project = Project::new("");
    let number = project.sandbox.beside("number");
    project.set_script(&format!("sleep 600 & echo $! >'{}'; echo 1 >out/trainer", number.display()));
    project.build();
    assert!(is_gone(&number));
}

#[test]
fn artifacts_are_taken_as_they_are() {
    let script = "mkdir -p out/app/deep out/real; echo content >'out/app/deep/größer name'; ln -s deep out/app/link\n\
                  ln -s /bin/sh out/app/system; ln -s nowhere out/app/nothing; ln -s ../real/share out/app/share\n\
                  mkdir out/real/share; echo shared >out/real/share/file; echo program >out/real/program; chmod +x out/real/program\n\
                  ln -s real/program out/program";
    let project = Project::with(script, "artifacts = [\"out/app\", \"out/program\", \"out/real/share\"]");
    let built = project.build();
    let content = folder_content(&built.folder);
    let of = |path: &str| {
        let (mode, bytes) = &content[Path::new(path)];
        (mode.as_str(), str::from_utf8(bytes).unwrap())
    };
    assert_eq!(of("out/app/deep/größer name"), ("100644", "content\n"));
    assert_eq!(of("out/app/link"), ("120000", "deep"));
    assert_eq!(of("out/app/system"), ("120000", "/bin/sh"));
    assert_eq!(of("out/app/nothing"), ("120000", "nowhere"));
    assert_eq!(of("out/app/share"), ("120000", "../real/share"));
    assert_eq!(of("out/real/share/file"), ("100644", "shared\n"));
    assert_eq!(of("out/program"), ("100755", "program\n"));
    assert_eq!(content.len(), 7);
    assert!(project.build().is_cached);
}

#[test]
fn a_link_back_into_the_stage_is_refused() {
    for link in ["ln -s \"$PWD/a.txt\" out/app/link", "ln -s ../../a.txt out/app/link"] {
        let project = Project::with(&format!("mkdir out/app; {link}"), "artifacts = [\"out/app\"]");
        let error = project.build_of("HEAD").unwrap_err();
        assert!(error.to_string().contains("out/app/link` is a link to `"), "{error}");
        assert!(!fs::read_dir(project.builds()).unwrap().any(|entry| entry.unwrap().path().is_dir()));
    }
    let project = Project::with("mkdir out/app; mkfifo out/app/pipe", "artifacts = [\"out/app\"]");
    let error = project.build_of("HEAD").unwrap_err();
    assert!(error.to_string().contains("out/app/pipe` is neither a file nor a folder"), "{error}");
}

#[test]
fn a_damaged_build_is_made_again_and_said() {
    let project = Project::new("echo content >out/trainer");
    let built = project.build();
    let entry = built.folder.parent().unwrap();
    let damages: [&dyn Fn(); 6] = [
        &|| fs::write(built.folder.join("out/trainer"), "other").unwrap(),
        &|| sandbox::make_executable(&built.folder.join("out/trainer")),
        &|| fs::write(built.folder.join("out/more"), "").unwrap(),
        &|| fs::remove_dir_all(&built.folder).unwrap(),
        &|| fs::write(entry.join("built.json"), "{\"key\":").unwrap(),
        &|| fs::rename(built.folder.join("out/trainer"), built.folder.join("out/renamed")).unwrap(),
    ];
    for damage in damages {
        damage();
        let again = project.build();
        assert!(!again.is_cached);
        assert_eq!(again.binary_hash, built.binary_hash);
        assert!(project.notes().contains("is not what it was"));
        assert!(project.build().is_cached);
    }
    // A crash leaves an unfinished build, which does not count.
    fs::rename(entry, project.builds().join(format!("unfinished-{}", built.key))).unwrap();
    assert!(!project.build().is_cached);
    assert_eq!(fs::read_dir(project.builds()).unwrap().count(), 2);
}

#[test]
fn builds_that_were_not_used_for_long_are_pruned() {
    let project = Project::new("cat a.txt >out/trainer");
    let used = project.build();
    project.sandbox.write("a.txt", "later\n");
    project.sandbox.commit_all("later");
    let later = project.build();
    let now = SystemTime::now();
    let age = |path: &Path, seconds| {
        fs::File::open(path).unwrap().set_modified(now - Duration::from_secs(seconds)).unwrap();
    };
    // Seven more, each a minute older than the one before and of 1000 bytes; and the log of one that failed.
    let names: Vec<String> = (1..=7).map(|number| format!("{number:032}")).collect();
    for (name, minutes) in names.iter().zip(1..) {
        let folder = project.builds().join(name);
        fs::create_dir_all(folder.join("artifacts")).unwrap();
        fs::write(folder.join("artifacts/trainer"), [0; 990]).unwrap();
        fs::write(folder.join("built.json"), "0123456789").unwrap();
        fs::write(folder.with_extension("log"), "").unwrap();
        age(&folder.join("built.json"), minutes * 60);
        age(&folder.with_extension("log"), 9000);
    }
    fs::write(project.builds().join("failed.log"), "").unwrap();
    age(&project.builds().join("failed.log"), 9999);
    // Both were built long ago; one was used since.
    for built in [&used, &later] {
        age(&built.folder.with_file_name("built.json"), 9000);
        age(&built.log, 9000);
    }
    assert!(project.build_of("HEAD~1").unwrap().is_cached);

    let prune = |keep: &[&str], builds, bytes| project.store.prune(keep, StoreLimits { builds, bytes }).unwrap();
    assert!(prune(&[], 100, u64::MAX).is_empty());
    assert_eq!(prune(&[&later.key], 8, u64::MAX), ["failed"]);
    assert_eq!(prune(&[&later.key], 7, u64::MAX), [names[6].clone()]);
    // Not even one fits: the builds used last stay, and the one that is needed.
    assert_eq!(prune(&[&later.key], 100, 10), [names[3].clone(), names[4].clone(), names[5].clone()]);
    let mut left: Vec<_> = fs::read_dir(project.builds()).unwrap().map(|entry| entry.unwrap().path()).collect();
    left.sort();
    let mut expected: Vec<PathBuf> = [&used.key, &later.key, &names[0], &names[1], &names[2]]
        .iter()
        .flat_map(|key| [project.builds().join(key), project.builds().join(format!("{key}.log"))])
        .collect();
    expected.sort();
    assert_eq!(left, expected);
    assert_eq!(prune(&[], 1, 0), [later.key]);
}

#[test]
fn only_measured_files_are_there_when_a_tree_is_built() {
    let project = Project::new("ls >out/trainer; ls perf runs >>out/trainer 2>/dev/null; true");
    project.sandbox.write("runs/fast", "1");
    project.sandbox.commit_all("an unmeasured file");
    let built = project.build();
    assert_eq!(trainer(&built), "a.txt\nbuild.sh\nout\nsrc\n");
}

/// Files that an attempt's build leaves vanish with it; those of the accepted tree's build stay.
#[test]
fn no_build_of_an_attempt_leaves_anything_to_another() {
    let builds =
        "mkdir -p target; cat target/* >out/trainer 2>/dev/null; cat a.txt >>out/trainer; echo kept >target/kept";
    let project = Project::new(builds);
    assert_eq!(trainer(&project.build()), "one\n");
    let build_dirty = |content: &str| {
        project.sandbox.write("a.txt", content);
        let snapshot = project.repository.snapshot(&project.config.unmeasured()).unwrap();
        project.store.build(&project.repository, project.wanted(&snapshot.tree), &project.progress)
    };
    let script = fs::read_to_string(project.sandbox.path("build.sh")).unwrap();
    // One that ends well, one that fails, and one that is cut off.
    for end in ["true", "false", "kill -KILL $$"] {
        project.sandbox.write("build.sh", format!("{script}echo poison >target/poison; rm -f target/kept; {end}\n"));
        let poisoned = build_dirty(end);
        assert_eq!(poisoned.is_ok(), end == "true", "{end}");
    }
    project.sandbox.write("build.sh", script);
    assert_eq!(trainer(&build_dirty("two\n").unwrap()), "kept\ntwo\n");
    assert_eq!(project.notes(), "");
    // Another accepted tree continues from the last one.
    project.sandbox.commit_all("accepted");
    fs::remove_dir_all(project.builds()).unwrap();
    assert_eq!(trainer(&project.build()), "kept\ntwo\n");
    // After a rewritten history the build starts over.
    project.sandbox.git(["reset", "--quiet", "--hard", "HEAD~1"]);
    project.sandbox.write("a.txt", "three\n");
    project.sandbox.commit_all("another history");
    assert_eq!(trainer(&project.build()), "three\n");
    assert!(project.notes().contains("HEAD does not descend from what was built last"));
}

#[test]
fn a_build_does_not_find_what_an_earlier_one_made() {
    let project = Project::new("test -e out/trainer && echo found >>out/trainer || echo first >out/trainer");
    assert_eq!(trainer(&project.build()), "first\n");
    project.sandbox.write("build.sh", "test -e out/trainer && echo found >>out/trainer || echo second >out/trainer");
    let snapshot = project.repository.snapshot(&project.config.unmeasured()).unwrap();
    let built = project.store.build(&project.repository, project.wanted(&snapshot.tree), &project.progress);
    assert_eq!(trainer(&built.unwrap()), "second\n");
}

#[test]
fn an_accepted_tree_that_does_not_build_is_no_obstacle_to_another() {
    let project = Project::new("echo fine >out/trainer");
    project.set_script("exit 1");
    assert_eq!(trainer(&project.build_of("HEAD~1").unwrap()), "fine\n");
    assert!(project.notes().contains("HEAD does not build"));
}

/// Only what differs between layouts is rebuilt: each layout finds the files of the one before.
#[test]
fn layouts_are_built_one_after_the_other_in_one_place() {
    let mut project = Project::new("echo $1 >>out/made; cat out/made >out/trainer");
    project.config.build.command = "sh build.sh {layout}".to_owned();
    assert_eq!(trainer(&project.layouts(&[4])[0]), "0\n4\n", "it goes on from HEAD's own build");
    let made = project.layouts(&[3, 4, 5]);
    assert_eq!(made.iter().map(trainer).collect::<Vec<_>>(), ["0\n3\n", "0\n4\n", "0\n3\n5\n"]);
    assert_eq!(made.iter().map(|built| built.is_cached).collect::<Vec<_>>(), [false, true, false]);
}

#[test]
fn what_is_copied_for_a_run_is_what_was_built() {
    let project = Project::with(
        "mkdir -p out/app; echo 1 >out/app/trainer; chmod +x out/app/trainer; ln -s trainer out/app/link",
        "artifacts = [\"out/app\"]",
    );
    let built = project.build();
    let copy = |name: &str| copy_checked(&built.folder, &project.sandbox.beside(name), &built.binary_hash);
    copy("first").unwrap();
    assert_eq!(folder_content(&project.sandbox.beside("first")), folder_content(&built.folder));
    fs::write(built.folder.join("out/app/trainer"), "2").unwrap();
    let error = copy("second").unwrap_err();
    assert!(error.to_string().contains("is not what was built") && error.exit_code() == 4, "{error}");
}

#[test]
fn each_layout_is_a_build_of_its_own() {
    let mut project = Project::new("echo \"layout ${1:-none}\" >out/trainer");
    let build = |project: &Project, layout| project.layouts(&[layout]).remove(0);
    let plain = [build(&project, 0), build(&project, 7)];
    assert_eq!(plain[0].key, plain[1].key, "a command without the placeholder has one layout");
    project.config.build.command = "sh build.sh {layout}".to_owned();
    let made = [0, 7, 0].map(|layout| build(&project, layout));
    assert_eq!(made.each_ref().map(trainer), ["layout 0\n", "layout 7\n", "layout 0\n"]);
    assert_eq!(made.each_ref().map(|built| built.is_cached), [false, false, true]);
    assert_eq!(project.build().key, made[0].key, "what is built without a layout is the written one");
}
